"""The benchmark of the paper's claim: real runs in miniature, and its tables on numbers that are known."""

import json
import re
import runpy
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lground.labels import load_labels
from lground.text import Anchors, save_anchors

CLAIM = Path(__file__).parents[2] / "benchmarks" / "claim"
SPLITS = ("all", "head", "common", "tail")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(CLAIM))


@pytest.fixture(scope="module")
def anchors(tmp_path_factory):
    """Random ones, to spare the text encoder."""
    path = tmp_path_factory.mktemp("anchors") / "random.safetensors"
    names = load_labels("scannet200").names
    vectors = torch.randn(len(names), 24, generator=torch.Generator().manual_seed(0))
    save_anchors(Anchors(vectors, names, "random", "{}"), path)
    return path


def start(*arguments: object) -> subprocess.Popen:
    line = [sys.executable, CLAIM, *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, error = process.communicate()
    return process.returncode, out, error


@pytest.fixture
def refused(monkeypatch, capsys):
    """`refused(*arguments)`: the exit code and stderr of the benchmark in this process."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(CLAIM), *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            code = runpy.run_path(str(CLAIM / "__main__.py"))["main"]()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return code, capsys.readouterr().err

    return run


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_and_every_method_has_the_same_updates(anchors, tmp_path, refused):
    line = ("--quick", "--methods", "scratch,language,ours", "--annotations", "object-0.05")
    line = (*line, "--anchors", anchors, "--out", tmp_path)
    first = start(*line)
    results = tmp_path / "runs"
    for _ in range(6000):  # ten minutes, if the machine is that busy
        if list(results.glob("[!.]*.json")) and list((tmp_path / "work" / "runs").glob("language*.log")):
            break
        assert first.poll() is None, finish(first)
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    finish(first)
    (done,) = results.glob("[!.]*.json")
    before = (done.name, done.stat().st_mtime_ns)

    code, error = refused(*line, "--minutes", 0)
    assert code == 0 and "2 of 3 runs are left" in error
    code, out, error = finish(start(*line))
    assert code == 0, error
    assert "run 1 of 2: language" in error
    assert (done.name, done.stat().st_mtime_ns) == before
    found = {path.stem: json.loads(path.read_text()) for path in results.glob("[!.]*.json")}
    assert set(found) == {f"{name}-object-0.05-0" for name in ("scratch", "language", "ours")}
    assert len({sum(result["updates"].values()) for result in found.values()}) == 1
    language = found["language-object-0.05-0"]
    assert len(language["log"]) + len(language["pretrained"]["log"]) == language["identity"]["epochs"]
    assert language["recipe"]["data"]["annotation"] == "object-0.05"
    assert language["recipe"]["before"]["optimizer"] == language["recipe"]["optimizer"]
    for result in found.values():  # one rise and fall of the learning rate in each stage
        for stage in filter(None, (result["pretrained"], result)):
            rates = [float(row["lr"]) for row in stage["log"]]
            peak = rates.index(max(rates))
            assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
            assert rates[-1] < 1e-3 * result["recipe"]["optimizer"]["lr"]
    shared = found["ours-object-0.05-0"]["pretrained"]
    assert shared == language["pretrained"]  # done once: even its seconds agree
    for result in found.values():
        assert set(result["scores"]) == {"plain", "superpoints", "views", "views, superpoints"}
        assert all(0 <= means["all"]["mean_iou"] <= 1 for means in result["scores"].values())
        assert result["worded"] is None  # these leave the texts
    assert (tmp_path / "claim.md").read_text().strip() == out.strip()
    assert not list((tmp_path / "work" / "runs").glob("*/"))  # weights are thrown away
    code, error = refused(*line, "--set", "optimizer.lr=0.5")
    assert code == 2 and "other settings" in error and error.count("\n") == 1
    language["recipe"]["before"]["loss"]["temperature"] = 0.5
    (results / "language-object-0.05-0.json").write_text(json.dumps(language))
    code, error = refused(*line)
    assert code == 2 and "before.loss.temperature" in error and error.count("\n") == 1


def made_up(method: str, annotation: str, seed: int, rng: np.random.Generator) -> dict:
    means = {split: {"mean_iou": float(rng.uniform(0.1, 0.6))} for split in SPLITS}
    return {
        "method": method,
        "annotation": annotation,
        "seed": seed,
        "identity": {"network": "34C", "voxel_size": 0.05, "epochs": 40, "batch": 8},
        "device": "none",
        "at_once": 2,
        "seconds": {"train": 100 + seed, "evaluate": 5},
        "updates": {"finetune": 100},
        "scores": {
            "plain": means,
            "views": {s: {"mean_iou": float(m["mean_iou"] / 2)} for s, m in means.items()},
        },
        "pretrained": None if method == "scratch" else {"means": means},
        "worded": {"all": {"mean_iou": 0.25}} if method == "best" else None,
    }


@pytest.fixture
def results(tmp_path):
    """Results of 2 annotations, 5 methods and 3 seeds, by name."""
    rng = np.random.default_rng(1)
    methods = ("scratch", "supcon", "language", "ours", "best")
    found = {
        f"{m}-{a}-{s}": made_up(m, a, s, rng)
        for s, a, m in product(range(3), ("full", "object-0.05"), methods)
    }
    (tmp_path / "runs").mkdir()
    for name, result in found.items():
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(result))
    return found


def test_the_tables_are_the_means_and_spreads_of_the_results(results, tmp_path):
    import findings

    text = findings.write(tmp_path, tmp_path / "no rooms", list(results))
    table = json.loads((tmp_path / "claim.json").read_text())["table"]
    assert len(table) == 2 * 5 * 2
    sections = dict(zip(("full", "object-0.05"), text.split("## Annotation: ")[1:], strict=True))
    values = {}
    for annotation, section in sections.items():
        rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")]
        for row in rows[1:6]:
            name = row[0].strip()
            mine = [r for r in results.values() if (r["annotation"], r["method"]) == (annotation, name)]
            for cell, split in zip(row[2:6], SPLITS, strict=True):
                seeds = [100 * r["scores"]["plain"][split]["mean_iou"] for r in mine]
                assert cell.strip() == f"{np.mean(seeds):.2f} ± {np.std(seeds, ddof=1):.2f}"
                values[annotation, name, split] = np.mean(seeds)
            assert row[6].strip() == "3" and row[8].strip() == ("25.00 ± 0.00" if name == "best" else "")
        for row in rows[7:12]:  # votes: half of the plain
            plain, views = (float(cell.split("±")[0]) for cell in row[1:3])
            assert views == pytest.approx(plain / 2, abs=0.01)
        gain = re.search(r"- ours over scratch, relative: all ([+-]\d+)%", section).group(1)
        expected = values[annotation, "ours", "all"] / values[annotation, "scratch", "all"] - 1
        assert int(gain) == round(100 * expected)
        other = re.search(r"- ours over the best other pretraining \((\w+)\)", section).group(1)
        assert other == max(("supcon", "language"), key=lambda m: values[annotation, m, "all"])
    assert (tmp_path / "claim.png").read_bytes().startswith(b"\x89PNG")


def test_some_results_and_some_splits_may_be_missing(results, tmp_path):
    import findings

    kept = ["scratch-full-0", "ours-full-0", "ours-full-1"]
    for name, result in results.items():
        file = tmp_path / "runs" / f"{name}.json"
        for means in result["scores"].values():
            means["tail"]["mean_iou"] = None
        file.write_text(json.dumps(result)) if name in kept else file.unlink()
    text = findings.write(tmp_path, tmp_path / "no rooms", list(results))
    assert text.startswith("3 of 30 runs")
    row = next(line for line in text.splitlines() if line.startswith("| scratch"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[2] == f"{100 * results['scratch-full-0']['scores']['plain']['all']['mean_iou']:.2f}"
    assert cells[5] == "-"
    assert findings.write(tmp_path / "nothing", tmp_path, ["a"]) == "No run has ended yet.\n"


def test_no_run_starts_that_would_end_too_late():
    from turns import Turns

    jobs = [{"name": str(n), "method": "ours"} for n in range(3)]
    turns = Turns(2, time.monotonic() + 10, lambda job: 20, gpus=[])
    assert turns.run(jobs) == jobs and not turns.running


def test_results_that_are_being_written_are_no_results_yet(results, tmp_path):
    expected = runpy.run_path(str(CLAIM / "__main__.py"))["expected"]
    (tmp_path / "runs" / ".best-full-0.json.x.part.json").write_text("{")
    job = {"method": "scratch"}
    assert expected(tmp_path, job, at_once=2) == 107
    assert expected(tmp_path, job, at_once=3) == 0


def test_rooms_are_counted(tmp_path):
    import rooms

    settings = {"train": 3, "val": 2, "size": "small", "spacing": 0.1, "annotations": ["full", "object-0.05"]}
    rooms.make_rooms(tmp_path / "store", settings, 1)
    found = json.loads((tmp_path / "store" / rooms.COUNTED).read_text())
    labels = [np.load(p) for p in (tmp_path / "store" / "train").glob("*/segment200.npy")]
    labels = np.concatenate(labels)
    np.testing.assert_array_equal(np.bincount(labels[labels >= 0], minlength=200), found["train"]["vertices"])
    objects = sum(
        len(np.unique(np.load(p.with_name("instance.npy"))[np.load(p) >= 0]))
        for p in (tmp_path / "store" / "train").glob("*/segment200.npy")
    )
    assert sum(found["train"]["objects"]) == objects
    assert f"{np.count_nonzero(found['train']['objects'])} classes" in "\n".join(rooms.tail_lines(found))
    assert len(list((tmp_path / "store").glob("train/*/annotated.object-0.05.npy"))) == 3
    stamp = (tmp_path / "store" / rooms.COUNTED).stat().st_mtime_ns
    rooms.make_rooms(tmp_path / "store", settings, 1)
    assert (tmp_path / "store" / rooms.COUNTED).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "options,words",
    [
        (("--methods", "nonsense"), "choose of scratch"),
        (("--methods", "scratch~loss.nonsense=1"), "loss.nonsense"),
        (("--methods", "scratch", "--set", "optimizer.nonsense=1"), "optimizer.nonsense"),
        (("--methods", "scratch", "--anchors", "/none.safetensors"), "/none.safetensors"),
    ],
)
def test_one_clear_line(options, words, tmp_path, refused):
    code, error = refused("--quick", *options, "--out", tmp_path / "out")
    assert code == 2 and words in error and error.count("\n") == 1


def test_on_gpus_the_first_run_compiles_the_kernels_for_all(tmp_path):
    from turns import Turns

    screen = tmp_path / "run.log"
    screen.write_text("Loading train scenes\n")
    on_gpu, on_cpu = (Turns(3, time.monotonic() + 10, lambda job: 0, gpus) for gpus in (["0"], []))
    on_gpu.running["run"] = None, {"folder": str(tmp_path / "run")}, "0"
    assert on_cpu._room() == 3 and on_gpu._room() == on_gpu._room() == 1
    screen.write_text("finetune: 1/190, loss 5.93\n")
    on_gpu._room()
    assert on_gpu._room() == 3
