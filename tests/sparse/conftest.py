"""Golden layers of MinkowskiEngine, and small random voxel scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def golden_arrays():
    def load(case: dict) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / "layers" / case["file"]) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def scatter():
    """`scatter(n, size, seed)`: at most n distinct voxels of two scenes around zero, shuffled, int32."""

    def make(n: int, size: int = 5, seed: int = 0) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        rows = np.concatenate([rng.integers(0, 2, (n, 1)), rng.integers(-size, size, (n, 3))], axis=1)
        return torch.from_numpy(rng.permutation(np.unique(rows, axis=0))).int()

    return make
