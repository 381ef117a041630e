"""Kernels run on the GPU if there is one; else, in tests that ask for it, on small cases under Triton's interpreter."""

import importlib.util
import math
import os
import signal
from dataclasses import replace

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores, and what they start does, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# What a shell starts in the background ignores interrupts, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis.settings.register_profile(
    "shared cores", deadline=None
)  # a time says nothing while others compute
hypothesis.settings.load_profile("shared cores")
HAS_TRITON = importlib.util.find_spec("triton") is not None

if HAS_TRITON and not torch.cuda.is_available():
    # Read when a function is decorated, and whenever the engine chooses between kernels and plain PyTorch: set
    # while all kernels and what a launch imports are imported, and in tests with the fixture `kernels`.
    os.environ["TRITON_INTERPRET"] = "1"
    import triton.experimental.gluon  # noqa: F401
    from triton.runtime.interpreter import InterpretedFunction, interpreter_builder

    from lground.sparse.kernels import autograd, normalization, pointwise  # noqa: F401

    def call(self, *arguments, _patched=set(), _call=InterpretedFunction.__call__, **options):  # noqa: B006
        """A function that a kernel calls patches Triton's language for its module: once is enough, and every time
        would take longer than what it computes."""
        if self.fn.__module__ in _patched:
            return self.rewrite()(*arguments, **options)
        _patched.add(self.fn.__module__)
        return _call(self, *arguments, **options)

    InterpretedFunction.__call__ = call
    # Looking for overflows takes a fifth of the time, and small cases, which are compared with their twins, have none.
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)
    del os.environ["TRITON_INTERPRET"]


def pytest_collection_modifyitems(items):
    """Without a GPU, what is marked so is skipped."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where kernels run: the GPU, or the CPU under the interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def kernels(monkeypatch) -> None:
    """The engine takes the kernels, also without a GPU."""
    if not HAS_TRITON:
        pytest.skip("needs Triton")
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def scan(device):
    """`scan(n, seed=0, scenes=1)`: n distinct voxels of bumpy surfaces, half below zero, int32, in no order."""

    def make(n: int, seed: int = 0, scenes: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        side = math.isqrt(n // scenes) + 1
        batch, x, y = torch.cartesian_prod(*map(torch.arange, (scenes, side, side))).t()
        z = (3 * torch.sin(x / 4 + seed) + y / 3).round().long()
        rows = torch.stack([batch, x - side // 2, y - side // 2, z], 1)
        return rows[torch.randperm(len(rows), generator=generator)[:n]].int().to(device)

    return make
