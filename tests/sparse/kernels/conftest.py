"""Voxels of many kinds, and their maps."""

import importlib.util

import numpy as np
import pytest
import torch

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]


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
