import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lground.labels import load_labels
from lground.text import Anchors, save_anchors

CLASSES = ("floor", "wall", "chair", "table")


def write_scene(folder, seed: int) -> None:
    """A floor, a wall and two boxes in four colours: learnable in a few updates."""
    rng = np.random.default_rng(seed)
    n = 400
    floor = np.c_[rng.uniform(0, 2, (n, 2)), np.zeros(n)]
    wall = np.c_[rng.uniform(0, 2, n), np.zeros(n), rng.uniform(0, 1.5, n)]
    chair = rng.uniform((0.4, 0.8, 0.0), (0.7, 1.1, 0.5), (n // 2, 3))
    table = rng.uniform((1.2, 1.2, 0.4), (1.8, 1.6, 0.5), (n // 2, 3))
    names = load_labels("scannet200").names
    parts = (floor, wall, chair, table)
    label = np.repeat([names.index(c) for c in CLASSES], [len(p) for p in parts])
    instance = np.repeat(np.arange(4), [len(p) for p in parts])
    label[rng.random(len(label)) < 0.05] = -1
    color = np.repeat(rng.integers(40, 220, (4, 3)), [len(p) for p in parts], axis=0)
    order = rng.permutation(len(label))
    folder.mkdir(parents=True)
    arrays = {
        "coord": np.concatenate(parts).astype(np.float32),
        "color": (color + rng.integers(-20, 20, color.shape)).astype(np.uint8),
        "segment200": label.astype(np.int16),
        "segment20": np.minimum(label, 19).astype(np.int16),
        "instance": np.where(label < 0, -1, instance).astype(np.int32),
        "superpoint": instance.astype(np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array[order])
    (folder / "scene.json").write_text(json.dumps({"name": folder.name}))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A prepared store of six training and two validation scenes."""
    root = tmp_path_factory.mktemp("store")
    for seed in range(6):
        write_scene(root / "train" / f"scene{seed:04}_00", seed)
    for seed in (6, 7):
        write_scene(root / "val" / f"scene{seed:04}_00", seed)
    return root


@pytest.fixture(scope="session")
def anchors(tmp_path_factory):
    """Random anchors 24 wide: what is tested is training, not language."""
    path = tmp_path_factory.mktemp("anchors") / "anchors.safetensors"
    names = load_labels("scannet200").names
    vectors = torch.randn(len(names), 24, generator=torch.Generator().manual_seed(0))
    save_anchors(Anchors(vectors, names, "random", "{}"), path)
    return path


@pytest.fixture(autouse=True)
def one_thread():
    """Bitwise equality between runs is promised at a fixed number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(store):
    """Of a recipe: a network and a resolution at which an update takes a fraction of a second."""
    return [
        f"data.root={store}",
        "network.name=Res16UNet14A",
        "data.voxel_size=0.15",
        "data.batch_size=2",
        "augment.elastic=false",
        "validate_every=1",
        "checkpoint_every=1",
    ]


@pytest.fixture(scope="session")
def _forking():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("forking.py"))]
    server = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield server
    server.stdin.write("null\n")  # closing does not end it: processes forked since hold the pipe open, too
    server.stdin.close()
    server.wait()


@pytest.fixture
def forked(_forking):
    """`forked(line, signal=None, after=0.0, once=None) -> (exit code, what it said)`, see forking.py."""

    def run(line, signal=None, after=0.0, once=None):
        request = {"line": line, "signal": signal, "after": after, "once": once and str(once)}
        _forking.stdin.write(json.dumps(request) + "\n")
        _forking.stdin.flush()
        reply = json.loads(_forking.stdout.readline())
        return reply["code"], reply["err"]

    return run
