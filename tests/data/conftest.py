import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lground.data import Sample


def surface(count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) float32 of a floor and a wall, some of them in the same 2 cm voxel, around the origin."""
    plane = rng.uniform(-0.7, 0.7, (count, 3))
    plane[: count // 2, 2] = 0.0
    plane[count // 2 :, 0] = -0.7
    return plane.astype(np.float32)


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    def make(count: int = 3000, seed: int = 0) -> Sample:
        rng = np.random.default_rng(seed)
        return Sample(
            name=f"made{seed}",
            points=surface(count, rng),
            colors=rng.integers(0, 256, (count, 3)).astype(np.uint8),
            labels=rng.integers(-1, 5, count),
            instances=rng.integers(-1, 9, count),
        )

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared store: 7 train scenes of different sizes, 2 val scenes, 1 test scene."""
    root = tmp_path_factory.mktemp("store")
    sizes = {"train": (300, 500, 400, 900, 350, 600, 450), "val": (500, 300), "test": (200,)}
    for split_number, (split, counts) in enumerate(sizes.items()):
        for number, count in enumerate(counts):
            folder = root / split / f"scene{split_number:02d}{number:02d}_00"
            write_scene(folder, count, np.random.default_rng([split_number, number]))
    (root / "train.scenes-0.10.txt").write_text("scene0002_00\nscene0005_00\n")
    return root


def write_scene(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", surface(count, rng))
    np.save(folder / "color.npy", rng.integers(0, 256, (count, 3)).astype(np.uint8))
    if folder.parent.name != "test":
        np.save(folder / "segment200.npy", rng.integers(-1, 200, count).astype(np.int16))
        np.save(folder / "segment20.npy", rng.integers(-1, 20, count).astype(np.int16))
        np.save(folder / "instance.npy", rng.integers(-1, 30, count).astype(np.int32))
    np.save(folder / "superpoint.npy", rng.integers(0, 50, count).astype(np.int32))
    np.save(folder / "annotated.object-0.05.npy", rng.random(count) < 0.05)
    (folder / "scene.json").write_text(json.dumps({"name": folder.name, "points": count}))
