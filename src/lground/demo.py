"""The demo: the real commands, one after the other, on made-up rooms; then a table and pictures.

As in the paper's tables, "scratch" is the same fine-tuning without the pretraining before it.
"""

import contextlib
import json
import shlex
import shutil
import time
from pathlib import Path

import numpy as np

from lground import labels, report, scannet, scans
from lground.cli import main
from lground.errors import InputError
from lground.files import write_json
from lground.progress import say

MARKER = ".lground-demo"
QUERY, ANSWER = "where to sleep", "bed"  # the room shown is the one with most of the answer


def run_demo(
    out: Path,
    seed: int = 0,
    *,
    rooms: tuple[int, int] = (40, 12),
    epochs: tuple[int, int, int] = (15, 10, 5),
) -> dict:
    """Write the demo to `out` and return what its `metrics.json` holds.

    rooms: how many to train and to evaluate on. epochs: of pretraining, of fine-tuning and of learning objects.
    Raises InputError when `out` holds something else than an earlier demo, or when a step fails.
    """
    start = time.monotonic()
    _clear(out)
    with open(out / "log.txt", "w") as log, contextlib.redirect_stdout(log):
        room = _run_steps(out, seed, rooms, epochs)
    _draw(out, room)
    _draw_objects(out, room)
    metrics = {"means": {run: _means(out / run) for run in ("pretrained", "ours", "scratch")}}
    metrics["objects"] = _of_objects(out / "objects")
    metrics["seconds"] = round(time.monotonic() - start)
    write_json(out / "metrics.json", metrics)
    _print_results(metrics, out)
    return metrics


def _run_steps(
    out: Path, seed: int, rooms: tuple[int, int], epochs: tuple[int, int, int]
) -> scannet.PreparedScene:
    """All commands; what they print goes to the log. Returns the room that was labelled and queried."""
    raw, data, anchors = out / "raw", out / "data", out / "anchors.safetensors"
    pretrained, ours, scratch, objects = (out / name for name in ("pretrained", "ours", "scratch", "objects"))
    before, after, last = ((f"data.root={data}", f"seed={seed}", f"epochs={count}") for count in epochs)

    counts = f"--train {rooms[0]} --val {rooms[1]} --test 1 --size small --spacing 0.05 --seed {seed}"
    _step("synth", raw, *counts.split())
    _step("prepare", raw, data)
    _step("anchors", anchors)
    _step("pretrain", "demo", *before, f"text.anchors={anchors}", "--out", pretrained)
    _step(
        "finetune",
        "demo",
        *after,
        f"network.weights={pretrained}",
        "network.classifier=anchors",
        "--out",
        ours,
    )
    _step("finetune", "demo", *after, "--out", scratch)
    _step("instances", "demo", *last, f"network.weights={ours}", "--out", objects)
    for run in (pretrained, ours, scratch):
        _step("evaluate", run, data, "--out", run / "evaluation")
    _step("evaluate", objects, data, "--instances", "--out", objects / "evaluation")
    room = _room_to_show(data)
    scan = raw / "scans" / room.name / f"{room.name}_vh_clean_2.ply"
    _step("segment", scan, "--model", ours, "--out", out / "labelled.ply")
    _step("segment", scan, "--model", objects, "--instances", "--out", out / "objects.ply")
    _step("query", scan, QUERY, "--model", pretrained, "--out", out / "query.ply")
    return room


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise InputError(
                f"{out}: holds files that are not a demo's; give an empty or new folder with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _step(*arguments: object) -> None:
    line = [str(argument) for argument in arguments]
    say(f"$ lground {shlex.join(line)}")
    start = time.monotonic()
    if code := main(line):
        raise InputError(f"the step `lground {shlex.join(line)}` ended with code {code}")
    say(f"  {time.monotonic() - start:.0f} s")


def _room_to_show(data: Path) -> scannet.PreparedScene:
    """The validation room, seen by no training, with the most vertices of the query's answer."""
    answer = labels.load_labels("scannet200").names.index(ANSWER)
    rooms = [scannet.open_scene(folder) for folder in scannet.list_scenes(data, "val")]
    return max(rooms, key=lambda room: np.count_nonzero(room.segment("scannet200") == answer))


def _means(run: Path) -> dict[str, float | None]:
    """Mean IoU per vertex over all classes present, and by head, common and tail."""
    vertex = json.loads((run / "evaluation" / "metrics.json").read_text())["vertex"]
    return {name: mean["mean_iou"] for name, mean in vertex["means"].items()}


def _draw(out: Path, room: scannet.PreparedScene) -> None:
    """One picture of the room: what goes in, the truth, what came out, and the answer to the query."""
    label_set = labels.load_labels("scannet200")
    truth = np.asarray(room.segment("scannet200")).astype(np.int64)
    predicted = scans.read_scan(out / "labelled.ply")
    heat = scans.read_scan(out / "query.ply").colors
    truth_colors = np.where(truth[:, None] >= 0, label_set.colors[truth], 200).astype(np.uint8)
    coord = np.asarray(room.coord)
    pictures = [
        ("input", coord, np.asarray(room.color)),
        ("truth", coord, truth_colors),
        ("predicted by ours", coord, predicted.colors),
        (f'answer to "{QUERY}"', coord, heat),
    ]
    shown = np.concatenate([truth, predicted.extras["label"]])
    legend = report.label_legend(shown, label_set.names, label_set.colors, limit=20)
    report.panels(out / "pictures" / "room.png", pictures, legend=legend, columns=2)
    for name in ("ours", "scratch"):
        shutil.copyfile(out / name / "evaluation" / "classes.png", out / "pictures" / f"classes-{name}.png")


def _of_objects(run: Path) -> dict[str, float | None]:
    """AP, AP50 and AP25 of the objects, and panoptic quality, each the mean over the classes present."""
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    ap = {name: metrics["objects"]["means"]["all"][name] for name in ("ap", "ap50", "ap25")}
    return ap | {"pq": metrics["panoptic"]["means"]["all"]["pq"]}


def _draw_objects(out: Path, room: scannet.PreparedScene) -> None:
    """The same room in objects: the true ones, and those that were found."""
    label_set = labels.load_labels("scannet200")
    segment, instance = np.asarray(room.segment("scannet200")), np.asarray(room.instance)
    counted = label_set.instance_class[segment] & (segment >= 0) & (instance >= 0)
    _, first, number = np.unique(instance[counted], return_index=True, return_inverse=True)
    true = np.full(len(segment), -1)
    true[counted] = number
    true_names = [label_set.names[label] for label in segment[counted][first]]
    found = scans.read_scan(out / "objects.ply").extras["instance"].astype(np.int64)
    listed = {entry["id"]: entry["class"] for entry in json.loads((out / "objects.objects.json").read_text())}
    names = [listed.get(index, "") for index in range(found.max(initial=-1) + 1)]
    pictures = [
        (f"{len(true_names)} true objects", true, true_names),
        (f"{len(listed)} objects found", found, names),
    ]
    report.draw_objects(out / "pictures" / "objects.png", np.asarray(room.coord), pictures)


def _print_results(metrics: dict, out: Path) -> None:
    said = (out / "log.txt").read_text().splitlines()
    print("\n" + next(line for line in said if line.startswith(f'"{QUERY}"')))
    print("\nmean IoU (%) in made-up rooms nobody trained on, per vertex, over the classes present\n")
    print(f"{'':<12}{'all':>8}{'head':>8}{'common':>8}{'tail':>8}")
    for name, means in metrics["means"].items():
        cells = "".join(f"{'-' if v is None else format(100 * v, '.2f'):>8}" for v in means.values())
        print(f"{name:<12}{cells}")
    said = (
        f"{name.upper()} {'-' if v is None else format(100 * v, '.1f')}"
        for name, v in metrics["objects"].items()
    )
    print("\nobjects in these rooms (%, means over the classes present): " + ", ".join(said))
    print(
        f"\n{metrics['seconds']} s. pictures: {out / 'pictures'}, what the commands said: {out / 'log.txt'}"
    )
    print(f"weights: {out / 'ours' / 'best.safetensors'}")
