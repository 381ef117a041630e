"""Which arguments share a compiled kernel, and what it is launched with."""

import pytest
import torch
import triton
import triton.language as tl

from lground.sparse.kernels.launch import Kernel, cdiv, power_of_2


@Kernel
@triton.jit(do_not_specialize=["free"])
def kernel(pointer, other, sizes, number, free, CONSTANT: tl.constexpr):
    pass


BYTES = torch.zeros(256, dtype=torch.uint8)


def key(pointer=None, other=None, sizes=(16, 32), number=16, free=16, constant=1):
    pointer = BYTES if pointer is None else pointer
    return kernel.describe((pointer, other, sizes, number, free, constant))[0]


@pytest.mark.skipif(kernel.specialised is None, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    "changed",
    [
        {"pointer": BYTES[1:]},  # loads of 16 bytes are out
        {"pointer": BYTES.view(torch.int32)},
        {"other": BYTES},
        {"sizes": (16, 33)},
        {"number": 17},
        {"number": 1},
        {"number": 2**35},
        {"number": -(2**35)},
        {"number": 0.5},
        {"free": 2**35},
        {"constant": 2},
    ],
    ids=str,
)
def test_another_kernel_where_triton_compiles_another(changed):
    assert key(**changed) != key()


@pytest.mark.skipif(kernel.specialised is None, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    "changed",
    [
        {"pointer": BYTES[16:]},
        {"sizes": (48, 64)},
        {"number": 32},
        {"free": 17},
        {"free": 1},
        {"number": -32},
    ],
    ids=str,
)
def test_the_same_kernel_for_what_it_does_not_depend_on(changed):
    assert key(**changed) == key()


@pytest.mark.skipif(kernel.specialised is None, reason="the interpreter compiles nothing")
def test_tensors_are_launched_as_addresses():
    _, values = kernel.describe((BYTES[3:], None, (1, 2), 5, 6, 7))
    assert values == [BYTES.data_ptr() + 3, None, (1, 2), 5, 6, 7]


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 1000])
def test_whole_numbers(n):
    assert power_of_2(n) >= n > power_of_2(n) / 2
    assert 16 * cdiv(n, 16) >= n > 16 * (cdiv(n, 16) - 1)
