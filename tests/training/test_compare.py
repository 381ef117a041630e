"""`lground compare`, and a fine-tuning with its pretraining before it."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from lground.cli import main
from lground.report.curves import draw_curves
from lground.training import load_recipe
from lground.training.run import SIGNS

BEFORE = ["before=demo", "before.epochs=1", "before.augment.elastic=false", "before.data.batch_size=2"]


@pytest.fixture(scope="module")
def chained(store, anchors, tmp_path_factory):
    """One command: pretraining, then fine-tuning. Returns the line and the folder."""
    out = tmp_path_factory.mktemp("chained") / "ours"
    line = ["finetune", "demo", f"data.root={store}", f"text.anchors={anchors}", "data.voxel_size=0.1"]
    line += ["data.batch_size=2", "augment.elastic=false", "validate_every=1", *BEFORE, "--out", str(out)]
    assert main([*line, "epochs=2", "optimizer.lr=1e-30", "optimizer.weight_decay=0"]) == 0
    return [*line, "optimizer.lr=1e-30", "optimizer.weight_decay=0"], out


def test_one_command_pretrains_and_fine_tunes_from_it(chained):
    _, out = chained
    for run in (out, out / "before"):
        names = {path.name for path in run.iterdir()}
        assert {"recipe.yaml", "log.csv", "best.safetensors", "last.safetensors", "last.ckpt"} <= names
    old, new = load_file(out / "before" / "best.safetensors"), load_file(out / "best.safetensors")
    kernels = [key for key in new if key.endswith("kernel") and not key.startswith("final")]
    assert kernels and all((old[key] == new[key]).all() for key in kernels)  # nothing was learned since
    recipe = load_recipe(str(out / "recipe.yaml"), "finetune")
    assert recipe.before == load_recipe(str(out / "before" / "recipe.yaml"), "pretrain")


def test_a_finished_pretraining_is_not_repeated(chained, capsys):
    line, out = chained
    before = (out / "before" / "last.ckpt").stat().st_mtime_ns
    for name in SIGNS:  # a fine-tuning that is to be done again
        (out / name).unlink()
    assert main([*line, "epochs=1"]) == 0
    assert "finished, its weights are taken" in capsys.readouterr().err
    assert (out / "before" / "last.ckpt").stat().st_mtime_ns == before
    assert main([*line, "epochs=1"]) == 2  # it holds a run now, and the pretraining is not even looked at
    assert "--resume" in capsys.readouterr().err
    assert main([*line, "epochs=1", "before.seed=3", "--resume"]) == 2
    assert "differs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.name=Res16UNet34X", "Res16UNet34X"),
        ("network.name=Res16UNet34C", "before.network.name=Res16UNet14AR_Proj: weights of another network"),
        ("loss.name=supcon", "finetune takes cross_entropy, focal"),
        ("paste.count=2", "lground prepare"),
    ],
)
def test_what_cannot_be_fine_tuned_is_told_before_the_pretraining(chained, tmp_path, capsys, change, words):
    line = [*chained[0], change, "data.cache=true"]
    line[line.index("--out") + 1] = str(tmp_path / "run")
    assert main(line) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if line.startswith("lground: ")] == said[-1:] and words in said[-1]
    assert not (tmp_path / "run").exists()


def test_a_fine_tuning_that_has_started_needs_its_pretraining_no_more(chained, tmp_path, capsys):
    line, out = [*chained[0]], chained[1]
    line[line.index("--out") + 1] = str(shutil.copytree(out, tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "before")
    assert main([*line, "epochs=3", "before.epochs=2", "--resume"]) == 2
    assert "differs from the recipe given in before.epochs;" in capsys.readouterr().err
    assert main([*line, "epochs=3", "before.data.workers=1", "--resume"]) == 0
    assert not (tmp_path / "run" / "before").exists()
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 4


def test_an_unfinished_pretraining_is_resumed(chained, tmp_path, capsys):
    line, _ = chained
    line[line.index("--out") + 1] = str(tmp_path / "run")
    assert main([*line, "epochs=1"]) == 0
    for name in SIGNS:
        (tmp_path / "run" / name).unlink()
    assert main([*line, "epochs=1", "before.epochs=2"]) == 2
    assert "before: holds a run already" in capsys.readouterr().err
    assert main([*line, "epochs=1", "before.epochs=2", "--resume"]) == 0
    assert len((tmp_path / "run" / "before" / "log.csv").read_text().splitlines()) == 3


def test_weights_come_from_one_place(chained, tmp_path, capsys):
    line, out = chained
    line = [*line[: line.index("--out")], f"network.weights={out}", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    assert "beside network.weights" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_compare_prints_what_runs_reached_and_where_they_differ(chained, tmp_path, capsys):
    from matplotlib.image import imread

    _, out = chained
    runs = [str(out), str(out / "before")]
    assert main(["compare", *runs, "--out", str(tmp_path / "c.png")]) == 0
    printed = capsys.readouterr().out.splitlines()
    for run in runs:
        metrics = json.loads((out / run / "metrics.json").read_text())
        (line,) = (line for line in printed if line.startswith(run + " "))
        best = 100 * metrics["vertex"]["means"]["all"]["mean_iou"]
        assert f"{best:.2f}" in line.split() and f"{metrics['epoch']} of" in line
    differing = {line.split()[0] for line in printed if line}
    assert {"stage", "loss.name", "optimizer.lr", "before"} <= differing
    assert not {"seed", "data.root", "data.voxel_size"} & differing
    assert imread(tmp_path / "c.png")[:, :, :3].std() > 0.05


def test_compare_shows_how_well_objects_are_found(store, chained, tmp_path, capsys):
    run = tmp_path / "objects"
    line = ["instances", "demo", f"data.root={store}", "data.voxel_size=0.15", "data.batch_size=2"]
    assert main([*line, "augment.elastic=false", "epochs=1", "--out", str(run)]) == 0
    best = json.loads((run / "metrics.json").read_text())["objects"]["means"]["all"]
    capsys.readouterr()
    assert main(["compare", str(chained[1]), str(run), "--out", str(tmp_path / "c.png")]) == 0
    head, without, objects = capsys.readouterr().out.splitlines()[:3]
    assert head.split()[-4:] == ["AP", "AP50", "best", "epoch"]
    assert objects.split()[-5:-3] == [f"{100 * best['ap']:.2f}", f"{100 * best['ap50']:.2f}"]
    assert without.split()[-5:-3] == ["-", "-"]


def test_curves_of_objects_and_of_many_runs_can_be_told_apart(tmp_path):
    """Twelve runs: the eleventh has the colour of the first, and another line."""
    from matplotlib.image import imread

    def drawn(name: str, *keys: str) -> np.ndarray:
        runs = {f"run {n}": [{"epoch": e, **dict.fromkeys(keys, n)} for e in (1, 2)] for n in range(12)}
        draw_curves(tmp_path / name, runs)
        return imread(tmp_path / name)[:, :, :3]

    assert drawn("a.png", "loss", "val_ap", "val_ap50").shape[1] == 3 * drawn("b.png", "loss").shape[1]
    legend = drawn("b.png", "loss")[-12 * 22 - 8 : -8, 16:47].reshape(12, 22, 31, 3)
    painted = [(line.min(axis=2) < 0.9).any(axis=0).mean() for line in legend]
    assert min(painted[:10]) > 0.95 and max(painted[10:]) < 0.9  # solid, and dashed


def test_compare_of_one_run_finds_no_difference(chained, tmp_path, capsys):
    assert main(["compare", str(chained[1]), "--out", str(tmp_path / "c.png")]) == 0
    assert "the recipes are the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.json", b'{"epoch": 1, ', "damaged"),
        ("metrics.json", b"[1]", "damaged"),
        ("recipe.yaml", b"stage: [", "no recipe"),
        ("recipe.yaml", b"- stage", "no recipe"),
        ("recipe.yaml", b"", "no recipe"),
        ("recipe.yaml", b"\xff\xfe\x00", "no recipe"),
        ("log.csv", b"epoch,loss\nx,y\n", "damaged"),
        ("log.csv", b"epoch,loss\n1,2,3\n", "damaged"),
        ("log.csv", b"loss\n1\n", "damaged"),
        ("log.csv", b"\xff\xfe\x00", "damaged"),
        ("log.csv", b"epoch\n1\n", "nothing to draw"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(chained, tmp_path, capsys, name, content, words):
    run = tmp_path / "run"
    run.mkdir()
    for kept in ("recipe.yaml", "log.csv", "metrics.json"):
        shutil.copyfile(chained[1] / kept, run / kept)
    (run / name).write_bytes(content)
    assert main(["compare", str(run), "--out", str(tmp_path / "c.png")]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"lground: {run}") and name in said and words in said and "; " in said


def test_compare_wants_run_folders(tmp_path, capsys):
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / "c.png")]) == 2
    assert "no recipe.yaml" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text("stage: finetune\n")
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / "c.png")]) == 2
    assert "not finished an epoch" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / "c.txt")]) == 2
    assert not (tmp_path / "c.png").exists()
