"""The demo: the real commands, one after the other, on made-up rooms; then a table and pictures.

Scratch gets as many updates as pretraining and fine-tuning together.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np

from lground import labels, predict, report, scannet
from lground.cli import main
from lground.errors import InputError
from lground.files import atomic_file
from lground.progress import say
from lground.training import load_recipe

MARKER = ".lground-demo"
QUERY = "somewhere to sit"


def run_demo(out: Path, seed: int = 0) -> dict:
    """Write the demo to `out` and return what its `metrics.json` holds.

    Raises InputError when `out` holds something else than an earlier demo, or when a step fails.
    """
    start = time.monotonic()
    _clear(out)
    raw, data, anchors = out / "raw", out / "data", out / "anchors.safetensors"
    pretrained, ours, scratch = out / "pretrained", out / "ours", out / "scratch"
    equal = load_recipe("demo", "pretrain").epochs + load_recipe("demo", "finetune").epochs
    common = (f"data.root={data}", f"seed={seed}")

    _step("synth", raw, "--train", 40, "--val", 12, "--test", 1, "--size", "small", "--spacing", 0.05, "--seed", seed)
    _step("prepare", raw, data)
    _step("anchors", anchors)
    _step("pretrain", "demo", *common, f"text.anchors={anchors}", "--out", pretrained)
    _step("finetune", "demo", *common, f"network.weights={pretrained}", "--out", ours)
    _step("finetune", "demo", *common, f"epochs={equal}", "--out", scratch)
    for run in (pretrained, ours, scratch):
        _step("evaluate", run, data, "--out", run / "evaluation")
    room = scannet.list_scenes(data, "val")[0]
    scan = next(raw.glob(f"scans/{room.name}/*_vh_clean_2.ply"))
    _step("segment", scan, "--model", ours, "--out", out / "labelled.ply")
    _step("query", scan, QUERY, "--model", pretrained, "--out", out / "query.ply")

    metrics = {name: _means(out / name / "evaluation") for name in ("pretrained", "ours", "scratch")}
    metrics["seconds"] = round(time.monotonic() - start)
    with atomic_file(out / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=1) + "\n")
    _draw(out, room, ours, pretrained)
    _print_table(metrics, out)
    return metrics


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise InputError(f"{out}: holds files that are not a demo's; give an empty or new folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _step(*arguments: object) -> None:
    line = [str(argument) for argument in arguments]
    say(f"$ lground {' '.join(line)}")
    start = time.monotonic()
    if code := main(line):
        raise InputError(f"the step `lground {' '.join(line)}` ended with code {code}")
    say(f"  {time.monotonic() - start:.0f} s")
