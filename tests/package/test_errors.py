"""What becomes one line, of what the machine is the cause of."""

import pytest
import torch

from lground.errors import input_error

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.9 GiB memory in use.\nException raised from malloc"
)


def test_memory_of_a_gpu_that_ran_out_is_one_line_with_advice():
    said = str(input_error(torch.OutOfMemoryError(CUDA)))
    assert "Tried to allocate 2.00 GiB)" in said and "data.batch_size" in said and "\n" not in said


def test_memory_that_ran_out_is_one_line_with_advice():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    assert "lower data.batch_size" in str(input_error(raised.value))


def test_an_error_of_the_program_itself_is_not_told():
    with pytest.raises(RuntimeError) as raised:
        torch.zeros(2) @ torch.zeros(3)
    assert input_error(raised.value) is None
