"""Which arguments share a compiled kernel, what it is launched with, and by which launcher."""

import sys

import pytest
import torch
import triton
import triton.language as tl

from lground.sparse.kernels.launch import Kernel, cdiv, compiling, power_of_2


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


@Kernel
@triton.jit
def write_one(out, a, NUMBER: tl.constexpr):
    tl.store(out + NUMBER, a)


@Kernel
@triton.jit
def write_two(out, a, b, NUMBER: tl.constexpr):
    tl.store(out + NUMBER, a + b)


@Kernel
@triton.jit
def write_three(out, a, b, c, NUMBER: tl.constexpr):
    tl.store(out + NUMBER, a + b + c)


@pytest.fixture
def impatient():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_loaded_side_by_side_have_launchers_of_their_own(impatient):
    kernels = [(write_one, (1,)), (write_two, (2, 3)), (write_three, (4, 5, 6))]
    out = torch.zeros(4, dtype=torch.int32, device="cuda")

    def launch() -> None:
        for number in range(4):  # four kernels share a launcher: it is loaded again, which is where they mix
            for write, values in kernels:
                write[1,](out, *values, number)

    for _ in range(100):
        for write, _ in kernels:
            write.compiled.clear()
            write.function.device_caches.clear()
        with compiling():
            launch()
        launch()
    assert out.tolist() == [15] * 4
