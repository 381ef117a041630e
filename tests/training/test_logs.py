"""What a run says about itself, and what it leaves when it goes wrong."""

import csv
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lground.cli import main
from lground.data import SceneDataset, collate
from lground.labels import load_labels
from lground.training import load_recipe
from lground.training.stages import build_stage


@pytest.fixture(scope="module")
def logged(store, tmp_path_factory):
    """A run with everything there is to log."""
    out = tmp_path_factory.mktemp("logged") / "run"
    changes = ["data.voxel_size=0.1", "data.batch_size=2", "augment.elastic=false", "loss.lovasz=0.5"]
    changes += ["epochs=2", "validate_every=1", "images_every=2", "loss.class_weights=inverse_log"]
    assert main(["finetune", "demo", f"data.root={store}", *changes, "--out", str(out)]) == 0
    return out


def rows(path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_every_epoch_has_its_losses_scores_and_speed(logged):
    for row in rows(logged / "log.csv"):
        assert float(row["loss"]) == pytest.approx(
            float(row["loss_cross_entropy"]) + 0.5 * float(row["loss_lovasz"]), rel=1e-4
        ) or float(row["loss"]) == pytest.approx(
            float(row["loss_cross_entropy"]) + float(row["loss_lovasz"]), rel=1e-4
        )
        assert 0 <= float(row["waiting"]) <= 1 and float(row["scenes_per_second"]) > 0
        assert float(row["seconds"]) * float(row["scenes_per_second"]) >= 6 * 0.99  # scenes, and validation
        assert float(row["val_miou"]) >= 0 and float(row["val_miou_head"]) >= 0


def test_tensorboard_has_the_numbers_of_the_table_and_the_picture(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged)).Reload()
    table = rows(logged / "log.csv")
    for tag, column in (
        ("loss", "loss"),
        ("loss/lovasz", "loss_lovasz"),
        ("lr", "lr"),
        ("val/miou", "val_miou"),
    ):
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx([float(row[column]) for row in table], rel=1e-5)
    assert [event.step for event in events.Images("val/room")] == [2]


def test_the_picture_shows_colours_truth_and_prediction(logged):
    from matplotlib.image import imread

    assert [path.name for path in (logged / "images").iterdir()] == ["epoch-0002.png"]
    picture = imread(logged / "images" / "epoch-0002.png")[:, :, :3]
    panels = np.split(picture[40:500], 3, axis=1)
    painted = [(panel.min(axis=2) < 0.95).mean() for panel in panels]
    assert min(painted) > 0.1 and max(painted) - min(painted) < 0.02  # one room from one side
    assert not np.array_equal(panels[0], panels[1]) and not np.array_equal(panels[1], panels[2])


def test_class_weights_are_stored_with_the_run(logged):
    table = rows(logged / "class_weights.csv")
    assert len(table) == 200
    present = [row for row in table if int(row["points"])]
    assert {row["name"] for row in present} == {"floor", "wall", "chair", "table"}
    by_points = sorted(present, key=lambda row: int(row["points"]))
    weights = [float(row["weight"]) for row in by_points]
    assert weights == sorted(weights, reverse=True)


def test_tensorboard_that_is_not_installed_is_said_once(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["finetune", "demo", *tiny, "epochs=1", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.count("pip install 'lground[logging]'") == 1
    assert not list((tmp_path / "run").glob("events*"))


def test_wandb_that_is_not_installed_is_named(tiny, tmp_path, capsys):
    if importlib.util.find_spec("wandb"):
        pytest.skip("it is installed")
    assert main(["finetune", "demo", *tiny, "wandb=rooms", "--out", str(tmp_path / "run")]) == 2
    assert "pip install 'lground[wandb]'" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_wandb_gets_the_rows(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    line = ["finetune", "demo", *tiny, "epochs=2", "images_every=1", "wandb=rooms", "--out"]
    assert main([*line, str(tmp_path / "run")]) == 0
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"val_miou" in log.read_bytes() and (tmp_path / "run" / "wandb-id").read_text() in log.name


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    from lground.errors import InputError
    from lground.training.failure import check_weights

    model = torch.nn.Linear(2, 2)
    check_weights(tmp_path, model, 3)
    torch.nn.init.constant_(model.bias, float("inf"))
    with pytest.raises(InputError, match="not finite in epoch 3"):
        check_weights(tmp_path, model, 3)


def test_a_loss_that_is_not_finite_can_be_computed_again(store, tiny, tmp_path, capsys):
    """From what is left in the folder alone: the recipe, the stage's weights and the voxels."""
    line = ["finetune", "demo", *tiny, "optimizer.lr=1e30", "epochs=2", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    (folder,) = (tmp_path / "run").glob("nan-*")
    about = json.loads((folder / "process-0.json").read_text())
    assert message.startswith("lground: ") and str(folder) in message and "diverged" in message
    scenes = about["scenes"][0]
    assert scenes and all(name in message for name in scenes)

    recipe = load_recipe(str(folder / "recipe.yaml"), "finetune")
    stage = build_stage(recipe, load_labels("scannet200"), SceneDataset(store, "train"))
    stage.load_state_dict(load_file(folder / "stage.safetensors"))
    names = [path.name for path in sorted((store / "train").iterdir())]
    dataset = SceneDataset(store, "train", voxel_size=recipe.data.voxel_size)
    batch = collate([dataset[0, names.index(name)] for name in scenes])[0]
    with np.load(folder / "process-0-0.npz", allow_pickle=False) as arrays:
        for name in arrays.files:
            object.__setattr__(batch, name, torch.from_numpy(arrays[name]))
    assert not np.isfinite(float(stage.train()(batch, torch.Generator())))
    assert about["losses"] == ["nan"] or about["losses"] == ["inf"]
    assert not list(folder.glob("*.pkl"))
