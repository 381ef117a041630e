"""The bank of rare objects: `lground prepare` writes it, and writes it again for what changed."""

import json

import numpy as np
import pytest

from lground.cli import main
from lground.labels import load_labels
from lground.scannet import build_bank, open_bank

LABELS = load_labels("scannet200")
RARE = [*LABELS.splits["common"][:1], *LABELS.splits["tail"][:2]]


@pytest.fixture
def store(tmp_path):
    """Three scenes; instance k is of class RARE[k], 3 of a head class, 4 of none; instance 1 has one stray label."""
    for number in range(3):
        rng = np.random.default_rng(number)
        folder = tmp_path / "train" / f"scene{number:04}_00"
        folder.mkdir(parents=True)
        instance = rng.integers(-1, 5, 300).astype(np.int32)
        segment = np.array([*RARE, LABELS.splits["head"][0], -1, -1])[instance].astype(np.int16)
        segment[np.flatnonzero(instance == 1)[0]] = RARE[0]
        np.save(folder / "coord.npy", rng.normal(size=(300, 3)).astype(np.float32))
        np.save(folder / "color.npy", np.zeros((300, 3), np.uint8))
        np.save(folder / "instance.npy", instance)
        np.save(folder / "segment200.npy", segment)
        (folder / "scene.json").write_text(json.dumps({"name": folder.name}))
    return tmp_path


def test_every_object_of_a_common_or_tail_class_is_found(store, capsys):
    assert main(["prepare", str(store), "--bank"]) == 0
    assert "9 objects of 3 classes in 3 training scenes" in capsys.readouterr().out
    bank = open_bank(store)
    assert len(bank) == 9 and sorted(set(bank.label.tolist())) == sorted(map(int, RARE))
    for k in range(len(bank)):
        folder = store / "train" / bank.scenes[bank.scene[k]]
        rows = np.load(folder / "instance.npy") == bank.instance[k]
        points = np.load(folder / "coord.npy")[rows]
        assert bank.vertices[k] == rows.sum() and RARE[bank.instance[k]] == bank.label[k]
        assert np.allclose(bank.box[k], [points.min(axis=0), points.max(axis=0)], atol=1e-4)


def test_only_scenes_that_changed_are_looked_through_again(store):
    assert "3 looked through now" in build_bank(store, workers=1)
    assert "0 looked through now" in build_bank(store, workers=1)
    path = store / "train" / "scene0001_00" / "segment200.npy"
    np.save(path, np.full(300, -1, np.int16))
    assert "1 looked through now" in build_bank(store, workers=1)
    assert len(open_bank(store)) == 6
