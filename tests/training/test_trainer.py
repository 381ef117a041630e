"""Training as a user starts it: `lground pretrain` and `lground finetune` on a tiny store."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lground.cli import main
from lground.errors import InputError
from lground.models import load_model
from lground.predict import evaluate
from lground.text import load_anchors, save_anchors
from lground.training import load_recipe, train

SMALL = [
    "data.voxel_size=0.1",
    "data.batch_size=2",
    "data.cache=true",
    "augment.elastic=false",
    "data.workers=0",
]


def overrides(store, *more: str) -> list[str]:
    return [f"data.root={store}", *SMALL, *more]


def pretrain(store, anchors, out, *more: str, resume=False) -> int:
    line = ["pretrain", "demo", *overrides(store, f"text.anchors={anchors}", *more), "--out", str(out)]
    return main(line + ["--resume"] * resume)


def finetune(store, out, *more: str, resume=False) -> int:
    return main(["finetune", "demo", *overrides(store, *more), "--out", str(out)] + ["--resume"] * resume)


def same(a, b) -> bool:
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="session")
def pretrained(store, anchors, tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained") / "run"
    assert pretrain(store, anchors, out, "epochs=3", "validate_every=1") == 0
    return out


def test_a_run_leaves_its_recipe_log_weights_and_metrics(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert {
        "recipe.yaml",
        "log.csv",
        "last.ckpt",
        "last.safetensors",
        "best.safetensors",
        "metrics.json",
    } <= names
    assert not [name for name in names if ".part" in name]
    with open(pretrained / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    best = max(float(row["val_miou"]) for row in rows)
    metrics = json.loads((pretrained / "metrics.json").read_text())
    assert metrics["vertex"]["means"]["all"]["mean_iou"] == pytest.approx(best)
    assert any(name.startswith("events") for name in names)


@pytest.mark.parametrize("reduce", ["first", "majority", "agreed"])
def test_what_training_wrote_is_what_evaluate_says_of_its_weights(store, tmp_path, reduce):
    """Whatever vertex speaks for a voxel in training; the network is taught enough to tell some points apart."""
    assert finetune(store, tmp_path / "run", "epochs=6", "validate_every=6", f"data.reduce={reduce}") == 0
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    again = evaluate(load_model(tmp_path / "run"), store, "val").metrics()
    assert again == {key: written[key] for key in again}
    assert 0.05 < again["vertex"]["means"]["all"]["mean_iou"] < 1


def test_language_pretraining_learns_the_rooms(store, anchors, tmp_path):
    assert pretrain(store, anchors, tmp_path / "run", "epochs=15") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["vertex"]["means"]["all"]["mean_iou"] > 0.6


@pytest.mark.parametrize("name", ["contrastive_ce", "l2", "supcon"])
def test_every_pretraining_loss_trains(store, anchors, tmp_path, name):
    assert pretrain(store, anchors, tmp_path / "run", "epochs=4", f"loss.name={name}") == 0
    with open(tmp_path / "run" / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_finetuning_starts_from_the_pretrained_weights(store, pretrained, tmp_path):
    """With a learning rate of nothing the backbone stays that of pretraining; only the classifier is new."""
    args = ("epochs=1", "optimizer.lr=1e-30", "optimizer.weight_decay=0")
    assert finetune(store, tmp_path / "run", *args, f"network.weights={pretrained}") == 0
    old, new = load_file(pretrained / "best.safetensors"), load_file(tmp_path / "run" / "last.safetensors")
    kernels = [key for key in new if key.endswith("kernel") and not key.startswith("final")]
    assert kernels and all(torch.allclose(old[key], new[key]) for key in kernels)
    assert new["final.kernel"].shape == (96, 200)


def test_classifier_only_leaves_the_backbone_bit_for_bit(store, pretrained, tmp_path):
    args = (f"network.weights={pretrained}", "network.classifier_only=true", "epochs=2")
    assert finetune(store, tmp_path / "run", *args) == 0
    old, new = load_file(pretrained / "best.safetensors"), load_file(tmp_path / "run" / "last.safetensors")
    shared = [key for key in new if not key.startswith("final")]
    assert all(torch.equal(old[key], new[key]) for key in shared)


def test_focal_with_class_weights_trains(store, tmp_path):
    assert (
        finetune(store, tmp_path / "run", "epochs=2", "loss.name=focal", "loss.class_weights=inverse_log")
        == 0
    )


@pytest.mark.parametrize("reduction", ["mean", "mean_all"])
def test_micro_batches_give_the_gradient_of_the_whole_step(store, pretrained, tmp_path, reduction):
    """With fixed batch statistics (classifier only), a small point limit must change nothing but rounding."""
    store = shutil.copytree(store, tmp_path / "store")
    for path in sorted(store.glob("train/*/segment200.npy"))[::2]:  # half of the scenes are hardly labelled
        labels = np.load(path)
        labels[5:] = -1
        np.save(path, labels)
    args = (f"network.weights={pretrained}", "network.classifier_only=true", "epochs=2", "optimizer.name=sgd")
    args += (f"loss.reduction={reduction}",)
    assert finetune(store, tmp_path / "whole", *args) == 0
    assert finetune(store, tmp_path / "parts", *args, "data.point_limit=1") == 0
    whole, parts = (
        load_file(tmp_path / run / "last.safetensors")["final.kernel"] for run in ("whole", "parts")
    )
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-6)


def test_resumed_run_equals_the_uninterrupted_one(store, anchors, tmp_path):
    args = ("schedule.name=multistep", "schedule.milestones=[2, 3]", "loss.name=supcon")
    assert pretrain(store, anchors, tmp_path / "whole", "epochs=4", *args) == 0
    assert pretrain(store, anchors, tmp_path / "parts", "epochs=2", *args) == 0
    assert pretrain(store, anchors, tmp_path / "parts", "epochs=4", *args, resume=True) == 0
    assert same(tmp_path / "whole" / "last.safetensors", tmp_path / "parts" / "last.safetensors")
    with open(tmp_path / "parts" / "log.csv") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


def test_killed_run_resumes_to_the_same_weights(store, anchors, tmp_path, forked):
    line = ["pretrain", "demo", *overrides(store, f"text.anchors={anchors}", "epochs=3"), "--out"]
    assert forked([*line, str(tmp_path / "whole")])[0] == 0
    out = tmp_path / "killed"
    forked([*line, str(out)], signal.SIGKILL, random.uniform(0, 0.5), out / "last.ckpt")
    assert forked([*line, str(out), "--resume"])[0] == 0
    assert same(tmp_path / "whole" / "last.safetensors", out / "last.safetensors")


def test_two_processes_train_and_score_as_one(store, pretrained, tmp_path):
    """Fixed batch statistics again: the update over 2 x 1 scenes is that over 1 x 2, and the scores are equal."""
    line = [
        "finetune",
        "demo",
        *overrides(store, f"network.weights={pretrained}", "network.classifier_only=true"),
    ]
    line += ["epochs=1", "optimizer.name=sgd", "optimizer.lr=0.1", "data.workers=0"]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "-m",
        "lground",
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    two = [*line, "data.batch_size=1", "devices=2", "--out", str(tmp_path / "two")]
    ran = subprocess.run([*launch, *two], env=environment, check=True, capture_output=True, timeout=120)
    assert ran.stdout.count(b"finetune: epoch 1 is the best") == 1  # one of them speaks
    assert main([*line, "--out", str(tmp_path / "one")]) == 0
    kernels = [load_file(tmp_path / run / "last.safetensors")["final.kernel"] for run in ("one", "two")]
    assert torch.allclose(*kernels, rtol=1e-3, atol=1e-5)
    metrics = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two")]
    one, two = (m["vertex"]["means"]["all"] for m in metrics)
    assert one == pytest.approx(two)


@pytest.mark.parametrize(
    ("stage", "change", "words"),
    [
        ("pretrain", "text.anchors=null", "lground anchors"),
        ("pretrain", "text.anchors=missing.safetensors", "missing.safetensors"),
        ("pretrain", "network.name=Res16UNet14AR", "_Proj"),
        ("pretrain", "network.name=Res16UNet34X", "Res16UNet34"),
        ("pretrain", "loss.name=focal", "contrastive"),
        ("pretrain", "data.root=nowhere", "nowhere"),
        ("finetune", "loss.name=contrastive", "cross_entropy"),
        ("finetune", "network.classifier_only=true", "network.weights"),
        ("finetune", "network.weights=nowhere.ckpt", "nowhere.ckpt"),
        ("finetune", "network.classifier=anchors", "network.weights"),
        ("finetune", "data.annotation=object-0.5", "object-0.5"),
        ("finetune", "optimizer.lr=1e30", "diverged"),
    ],
)
def test_wrong_recipe_ends_with_one_line_and_code_2(store, anchors, tmp_path, capsys, stage, change, words):
    line = [stage, "demo", *overrides(store), *([f"text.anchors={anchors}"] if stage == "pretrain" else [])]
    assert main([*line, "epochs=2", change, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("lground: ") and words in message
    assert "diverged" in message or not (tmp_path / "run").exists()


@pytest.mark.parametrize("lacking", ["data.annotation=scene-21", "data.label_set=scannet20"])
def test_what_scenes_lack_is_told_before_anything_is_written(store, tmp_path, capsys, lacking):
    root = shutil.copytree(store, tmp_path / "store")
    for path in root.glob("*/*/segment20.npy"):
        path.unlink()
    assert finetune(root, tmp_path / "run", "data.cache=false", "epochs=1", lacking) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"lground: {root}") and lacking.split("=")[1] in message
    assert len(message.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_fine_tuned_model_has_no_anchors_to_start_a_classifier_at(store, pretrained, tmp_path, capsys):
    assert finetune(store, tmp_path / "first", "epochs=1", f"network.weights={pretrained}") == 0
    args = ("epochs=1", f"network.weights={tmp_path / 'first'}", "network.classifier=anchors")
    assert finetune(store, tmp_path / "second", *args) == 2
    assert "no anchors" in capsys.readouterr().err and not (tmp_path / "second").exists()


def test_a_run_folder_is_not_overwritten(store, pretrained, anchors, capsys):
    assert pretrain(store, anchors, pretrained) == 2
    assert "--resume" in capsys.readouterr().err
    assert pretrain(store, anchors, pretrained, "optimizer.lr=0.5", resume=True) == 2
    assert "differs from the recipe given in optimizer.lr, " in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_is_told_first(store, tmp_path, capsys):
    (tmp_path / "file").touch()
    for out, words in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "run", "not a folder")):
        assert finetune(store, out, "network.name=Res16UNet34X") == 2
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert said.startswith(f"lground: {out}: ") and words in said


def test_a_run_is_not_laid_among_the_scenes(store, capsys):
    assert finetune(store, store, "epochs=1") == 2
    assert "holds the scenes" in capsys.readouterr().err and not (store / "recipe.yaml").exists()


def test_without_validation_scenes_the_last_epoch_is_kept(store, tmp_path, capsys):
    root = tmp_path / "store"
    root.mkdir()
    (root / "train").mkdir()
    for scene in (store / "train").iterdir():
        (root / "train" / scene.name).symlink_to(scene)
    assert finetune(root, tmp_path / "run", "epochs=1") == 0
    assert same(tmp_path / "run" / "best.safetensors", tmp_path / "run" / "last.safetensors")
    (root / "train" / "scene0000_00").rename(root / "train" / "scene0009_00")  # as many, but others
    assert finetune(root, tmp_path / "run", "epochs=2", resume=True) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"lground: {root}: not the training scenes")
    assert "they differ in scene0000_00, scene0009_00;" in message


def test_a_run_goes_on_when_its_files_have_moved_or_its_start_is_gone(
    store, pretrained, anchors, tmp_path, capsys
):
    """Anchors of the pretraining serve the language loss and start the classifier: none of it is read again."""
    shutil.copytree(pretrained, tmp_path / "start")
    shutil.copyfile(anchors, tmp_path / "anchors.safetensors")
    args = (f"network.weights={tmp_path / 'start'}", f"text.anchors={tmp_path / 'anchors.safetensors'}")
    args += ("loss.language=0.5", "network.classifier=anchors", "schedule.name=constant")
    assert finetune(store, tmp_path / "whole", "epochs=2", *args) == 0
    assert finetune(store, tmp_path / "parts", "epochs=1", *args) == 0
    (tmp_path / "scenes").symlink_to(store)
    shutil.rmtree(tmp_path / "start")
    (tmp_path / "anchors.safetensors").unlink()
    capsys.readouterr()
    assert finetune(tmp_path / "scenes", tmp_path / "parts", "epochs=2", *args, resume=True) == 0
    assert "loaded" not in capsys.readouterr().err
    assert same(tmp_path / "whole" / "last.safetensors", tmp_path / "parts" / "last.safetensors")


def test_a_run_does_not_go_on_with_other_anchors(store, pretrained, anchors, tmp_path, capsys):
    run, moved = shutil.copytree(pretrained, tmp_path / "run"), tmp_path / "moved.safetensors"
    shutil.copyfile(anchors, moved)
    args = ("epochs=4", "validate_every=1")
    assert pretrain(store, moved, run, *args, resume=True) == 0
    known = load_anchors(anchors)
    save_anchors(replace(known, vectors=known.vectors.flip(0)), moved)
    assert pretrain(store, moved, run, *args, resume=True) == 2
    assert f"{moved}: not the anchors that {run} started with" in capsys.readouterr().err


def test_runs_of_different_precision_in_one_process(store, tmp_path):
    for precision in ("bf16", "no"):
        assert finetune(store, tmp_path / precision, "epochs=1", f"precision={precision}") == 0


def test_scenes_of_one_voxel_at_the_coarsest_level_are_named(store, tmp_path, capsys):
    """The rooms are 2 m wide: 4 voxels, of which a U-Net with 16 times wider ones sees a single one."""
    assert finetune(store, tmp_path / "run", "data.batch_size=1", "data.voxel_size=0.5") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        said.startswith("lground: scene000") and "data.voxel_size=0.5" in said and "data.batch_size" in said
    )


def test_data_root_is_required():
    with pytest.raises(InputError, match=r"data\.root"):
        train(load_recipe("demo", "finetune"), "unused")
