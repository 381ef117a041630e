"""Two processes that talk through gloo: what they learn and score is what one does."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lground.cli import main
from lground.data import VoxelScene, collate
from lground.training.micro_batches import split_evenly


@pytest.fixture(scope="session")
def uneven(store, tmp_path_factory):
    """Scenes of which every other one has lost its wall, and three rooms to validate on."""
    root = tmp_path_factory.mktemp("uneven")
    scenes = sorted(store.glob("*/*"))
    for number, source in enumerate([*scenes, scenes[0]]):
        target = root / ("train" if number < 6 else "val") / source.name
        target.mkdir(parents=True)
        keep = np.load(source / "instance.npy") != (1 if number % 2 else -2)
        for path in source.glob("*.npy"):
            np.save(target / path.name, np.load(path)[keep])
        (target / "scene.json").write_text((source / "scene.json").read_text())
    return root


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run / "last.safetensors")


def scores(run) -> dict:
    return json.loads((run / "metrics.json").read_text())["vertex"]


def losses(run) -> list[float]:
    with open(run / "log.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_two_processes_give_the_update_of_one_batch_norm_included(tiny, uneven, tmp_path):
    """Batch statistics are those of both processes: 2 x 1 scenes and 1 x 2 give one gradient, loss and model."""
    line = ["finetune", "demo", *tiny, f"data.root={uneven}", "data.voxel_size=0.1", "optimizer.name=sgd"]
    line += ["optimizer.lr=0.02", "optimizer.momentum=0", "optimizer.dampening=0", "schedule.name=constant"]
    line += ["epochs=1", "--out"]
    assert main([*line, str(tmp_path / "one"), "data.batch_size=2"]) == 0
    assert main([*line, str(tmp_path / "two"), "data.batch_size=1", "devices=2"]) == 0
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        assert torch.allclose(value.float(), two[name].float(), rtol=2e-3, atol=2e-5), name
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-4)
    first, second = scores(tmp_path / "one"), scores(tmp_path / "two")
    assert first["points"] == second["points"]
    assert first["means"]["all"]["mean_iou"] == pytest.approx(second["means"]["all"]["mean_iou"], abs=1e-3)


def test_processes_count_the_confusion_of_all(tiny, uneven, anchors, tmp_path):
    """Of points of the same class and of others: those often confused are drawn by the counts of all processes."""
    line = [
        "pretrain",
        "demo",
        *tiny,
        f"data.root={uneven}",
        f"text.anchors={anchors}",
        "data.voxel_size=0.1",
    ]
    line += ["network.name=Res16UNet14AR_Proj", "loss.name=supcon", "epochs=1", "--out"]
    assert main([*line, str(tmp_path / "one"), "data.batch_size=2"]) == 0
    assert main([*line, str(tmp_path / "two"), "data.batch_size=1", "devices=2"]) == 0
    states = [torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("one", "two")]
    one, two = (state["stage"]["confusion"].sum(1) for state in states)
    assert one.equal(two) and one.sum() > 1000


def test_processes_with_more_and_less_to_do_take_as_many_passes(tiny, uneven, tmp_path, capfd):
    """A point limit between the sizes of scenes: one process has two passes where the other has one.

    There is one room to validate on, so one process has nothing to do there.
    """
    (tmp_path / "store" / "val").mkdir(parents=True)
    (tmp_path / "store" / "train").symlink_to(uneven / "train")
    room = min((uneven / "val").iterdir())
    (tmp_path / "store" / "val" / room.name).symlink_to(room)
    line = [
        "finetune",
        "demo",
        *tiny,
        f"data.root={tmp_path / 'store'}",
        "data.voxel_size=0.1",
        "data.accumulate=2",
    ]
    line += [
        "data.batch_size=1",
        "data.point_limit=450",
        "devices=2",
        "epochs=2",
        "loss.lovasz=1.0",
    ]
    assert main([*line, "--out", str(tmp_path / "run")]) == 0
    assert losses(tmp_path / "run")[1] < losses(tmp_path / "run")[0]
    assert capfd.readouterr().out.count("finetune: epoch") == 1  # one of them speaks


def scene(number: int, size: int) -> VoxelScene:
    rng = np.random.default_rng(number)
    return VoxelScene(
        name=f"room{number}",
        coordinates=np.c_[np.arange(size), np.zeros((size, 2))].astype(np.int32),
        colors=rng.random((size, 3), dtype=np.float32),
        labels=np.full(size, number),
        instances=np.full(size, number),
        inverse=np.arange(size),
        vertex_labels=np.full(size, number),
    )


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    limit=st.integers(1, 120),
    more=st.integers(0, 5),
)
def test_splitting_keeps_every_labelled_voxel_once(sizes, limit, more):
    batches = collate([scene(k, size) for k, size in enumerate(sizes)], limit)
    parts = split_evenly(batches, len(batches) + more)
    assert len(parts) == len(batches) + more
    labels = torch.cat([part.labels for part in parts])
    counts = [int((labels == k).sum()) for k in range(len(sizes))]
    assert counts == sizes
    assert all(len(part.labels) == sum(map(len, part.scenes)) for part in parts)
    if len(parts) <= len(sizes):  # enough scenes: nothing is repeated
        assert len(labels) == sum(sizes)


def test_accumulation_takes_several_batches_per_update(tiny, tmp_path):
    """Two passes of one scene each, and as many updates as batches of two have."""
    line = ["finetune", "demo", *tiny, "data.voxel_size=0.1", "data.batch_size=1", "data.accumulate=2"]
    assert main([*line, "epochs=1", "--out", str(tmp_path / "run")]) == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["scheduler"]["last_epoch"] == 3
    passes = state["stage"]["model.network.bn0.bn.num_batches_tracked"]
    assert int(passes) == 6
