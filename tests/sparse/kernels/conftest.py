"""Kernels run on the GPU if there is one, else on small cases under Triton's interpreter."""

import importlib.util
import os

import numpy as np
import pytest
import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
collect_ignore_glob = [] if HAS_TRITON else ["test_*.py"]

if HAS_TRITON and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before any kernel is imported
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_index(tensor, scope):
        """Recent NumPy turns no array of one element into an integer, which is what a loop's bound is here."""
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(np.asarray(self.handle.data).item()))

    interpreter._patch_lang_tensor = patch_index


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


def _scenes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(-14, 14), np.arange(-9, 9), indexing="ij")
    surface = np.stack([0 * x, x, y, np.round(3 * np.sin(x / 4) + y / 3).astype(int)], -1).reshape(-1, 4)
    cloud = np.concatenate([rng.integers(0, 2, (80, 1)), rng.integers(-500, 500, (80, 3))], 1)
    block = np.stack(np.meshgrid([0], *[np.arange(-3, 3)] * 3, indexing="ij"), -1).reshape(-1, 4)
    first, last = -(1 << 16), (1 << 16) - 1
    axis = [first, first + 1, last - 1, last]
    corners = np.stack(np.meshgrid([4094, 4095], axis, axis, axis, indexing="ij"), -1).reshape(-1, 4)
    return {
        "surface": surface,
        "random cloud": cloud,
        "block": block,
        "one voxel": np.array([[0, -1, -1, -1]]),
        "scene 1 of 0, 1, 2 is missing": np.concatenate([block[:50], block[30:] + np.array([2, 0, 0, 0])]),
        "ends of the range": corners,
    }


SCENES = {name: np.random.default_rng(1).permutation(np.unique(c, axis=0)) for name, c in _scenes().items()}


@pytest.fixture(scope="session", params=SCENES)
def voxels(request, device) -> torch.Tensor:
    """(N, 4) int32 distinct rows [batch, x, y, z] in no order: one scene after the other."""
    return torch.from_numpy(SCENES[request.param]).int().to(device)


@pytest.fixture(scope="session")
def build():
    """`build(voxels, **options)`: the Pyramid of all rows."""
    from lground.sparse.kernels.pyramid import Pyramid

    def make(voxels: torch.Tensor, **options) -> Pyramid:
        return Pyramid.build(voxels, voxels.new_full((1,), len(voxels)), **options)

    return make


@pytest.fixture(scope="session")
def pyramid(voxels, build):
    """The maps of a scene."""
    return build(voxels)
