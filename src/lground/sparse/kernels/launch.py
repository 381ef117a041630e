"""Launching a kernel at a fraction of what Triton's own look-up costs the host, and compiling many at once.

Triton finds the compiled kernel for some arguments in Python, in 30 to 50 us; a training step launches 600.
What a compiled kernel depends on is little: types, whether pointers and integers are multiples of 16 (wide
loads), which integers are 1, and the values of constants. A tuple of these is the key of a dictionary here, and
what is found there is given straight to Triton's launcher.

A network has some thirty kernels. Compiled one by one, when they are first launched, they take ten seconds;
`compiling` does it on all cores.

Up to Triton 3.6 the launcher of a kernel is a C module, built for it, and all of these modules have one name. Python
keeps one module of a name when it loads again what it loaded before, so of two threads that load launchers at once
one can be given the other's: here one thread loads at a time.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import repeat
from threading import Lock

import torch
import triton
from torch import Tensor
from triton.compiler import CompiledKernel

_LOADING = Lock()
_WANTED: ContextVar[list | None] = ContextVar("wanted", default=None)


@contextmanager
def compiling() -> Iterator[None]:
    """Within it nothing is launched by this thread: what launches ask for is compiled, side by side, by its end.

    So results hold anything, and nothing within may depend on them, indices least of all.
    """
    wanted, device = [], torch.cuda.current_device()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        token = _WANTED.set(wanted)
        try:
            with triton.AsyncCompileMode(pool):
                yield
        finally:
            _WANTED.reset(token)
        with _LOADING:
            for kernel in list(pool.map(_load, dict.fromkeys(wanted), repeat(device))):
                # Its launcher is built; what the threads took for it may be another's.
                kernel._run = triton.runtime.driver.active.launcher_cls(kernel.src, kernel.metadata)


def _load(kernel: triton.FutureKernel | CompiledKernel, device: int) -> CompiledKernel:
    """Bring a compiled kernel to the device, and have its launcher built."""
    kernel = kernel.result() if isinstance(kernel, triton.FutureKernel) else kernel
    with torch.cuda.device(device):
        _ = kernel.run
    return kernel


def cdiv(a: int, b: int) -> int:
    """a / b rounded up (Triton's functions for this and the next are slow on the host)."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two that is not smaller than n >= 1."""
    return 1 << (n - 1).bit_length()


class Kernel:
    """A `triton.jit` function, launched as one: `kernel[grid](*arguments, num_warps=4, num_stages=3)`.

    Runs on the device of its first tensor. Constants may be given by name, last.
    """

    def __init__(self, function):
        self.function = function
        self.compiled = {}
        self.names = function.arg_names
        self.specialised = None  # of the arguments before the constants: whether Triton looks at their values
        if isinstance(function, triton.JITFunction):  # else it is interpreted
            variable = [p for p in function.params if not p.is_constexpr]
            if variable != function.params[: len(variable)]:
                raise ValueError(f"{function.__name__}: constants come last")
            self.specialised = [not p.do_not_specialize for p in variable]

    def __getitem__(self, grid: tuple[int, ...]):
        def launch(*arguments, num_warps: int = 4, num_stages: int = 3, **constants):
            if self.specialised is None:
                return self.function[grid](
                    *arguments, **constants, num_warps=num_warps, num_stages=num_stages
                )
            if constants:
                arguments += tuple(constants[name] for name in self.names[len(arguments) :])
            device = next(a for a in arguments if isinstance(a, Tensor)).get_device()
            if device == torch.cuda.current_device():
                self._launch(grid, arguments, device, num_warps, num_stages)
            else:
                with torch.cuda.device(device):
                    self._launch(grid, arguments, device, num_warps, num_stages)

        return launch

    def _launch(
        self, grid: tuple[int, ...], arguments: tuple, device: int, num_warps: int, num_stages: int
    ) -> None:
        wanted = _WANTED.get()
        if wanted is not None:
            wanted.append(
                self.function.run(
                    *arguments, grid=grid, warmup=True, num_warps=num_warps, num_stages=num_stages
                )
            )
            return
        key, values = self.describe(arguments)
        key += device, num_warps, num_stages
        compiled = self.compiled.get(key)
        if compiled is None:
            shape = {"num_warps": num_warps, "num_stages": num_stages}
            self.function.run(*arguments, grid=grid, warmup=True, **shape)  # compiles, beside other threads
            with _LOADING:
                self.compiled[key] = self.function[grid](*arguments, **shape)
            return
        x, y, z = (*grid, 1, 1)[:3]
        stream = torch._C._cuda_getCurrentRawStream(device)
        compiled.run(
            x, y, z, stream, compiled.function, compiled.packed_metadata, None, None, None, *values
        )  # no metadata and no hooks: those are of Triton's profiler

    def describe(self, arguments: tuple) -> tuple[tuple, list]:
        """What the compiled kernel for `arguments` depends on, and what it is launched with.

        Tensors are launched as their addresses, which Triton then need not ask for, nor the driver confirm.
        """
        values, key = list(arguments), list(arguments[len(self.specialised) :])
        for place, specialised in enumerate(self.specialised):
            argument = arguments[place]
            if argument.__class__ is int:
                key.append(_number(argument, specialised))
            elif isinstance(argument, Tensor):
                values[place] = address = argument.data_ptr()
                key += argument.dtype, specialised and address % 16
            elif argument.__class__ is tuple:
                key += [_number(a, specialised) for a in argument]
            else:  # None, a float
                key.append(argument.__class__)
        return tuple(key), values


def _number(argument: int, specialised: bool) -> int:
    """What a kernel depends on of a number: whether it is wide, and, where Triton looks, 1 or a multiple of 16."""
    kind = (argument == 1) + 2 * (argument % 16 == 0) if specialised else 0
    return kind if -(1 << 31) <= argument < 1 << 31 else ~kind
