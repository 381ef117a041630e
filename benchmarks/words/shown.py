"""The table, and a picture of one room."""

from pathlib import Path

import numpy as np
from naming import Answers

from lground import report
from lground.predict import object_colors


def lines(results: list[dict], held_out: list[str]) -> list[str]:
    """Markdown: mean over seeds, with the standard deviation where there are several."""
    seeds = sorted({run["seed"] for run in results})
    first = results[0]
    text = [
        f"Held out: {', '.join(held_out)}. {first['rooms']} rooms of each of {len(seeds)} seeds, "
        f"{_mean([run['objects, held out'] for run in results]):.0f} held-out and "
        f"{_mean([run['objects, trained'] for run in results]):.0f} other objects of 100 vertices and more, "
        f"{first['words']} words. In percent.",
    ]
    for method in dict.fromkeys(run["method"] for run in results):
        runs = [run for run in results if run["method"] == method]
        text += [
            "",
            f"## {method[0].upper()}{method[1:]}",
            "",
            "| | AP | AP50 | AP25 | recall 50 | recall 25 |",
        ]
        text += ["|---|---|---|---|---|---|"]
        for name, group in (("all", None), ("held out", "held out")):
            cells = [_cell([run[name][key] for run in runs]) for key in ("ap", "ap50", "ap25")]
            recalls = ("-", "-")
            if group:
                recalls = [
                    _cell([run[f"naming, {group}"][iou]["recall"] for run in runs]) for iou in ("0.5", "0.25")
                ]
            text.append(f"| objects, {name} | " + " | ".join([*cells, *recalls]) + " |")
        text += ["", *_namings(runs, len(held_out))]
    return text


def _namings(runs: list[dict], ten: int) -> list[str]:
    def cell(group: str, iou: str, naming: str) -> str:
        return _cell([run[f"naming, {group}"][iou]["named right"][naming] for run in runs])

    words = _mean([run["words"] for run in runs])
    header = [
        "named right",
        *(f"held out, of {which}, IoU {i}" for which in ("all", ten) for i in ("50", "25")),
    ]
    header += ["others, of all, IoU 50"]
    rows = [header, ["---"] * len(header)]
    for naming in ("reach", "cosine", "closed set"):
        cells = [
            cell("held out", iou, f"{naming}, {which}") for which in ("all", "ten") for iou in ("0.5", "0.25")
        ]
        rows.append([naming, *cells, cell("trained", "0.5", f"{naming}, all")])
    five = [cell("held out", iou, "first five") for iou in ("0.5", "0.25")]
    rows.append(["reach, among the first five", *five, "", "", cell("trained", "0.5", "first five")])
    rows.append(["chance", *[f"{100 / words:.1f}"] * 2, *[f"{100 / ten:.1f}"] * 2, f"{100 / words:.1f}"])
    return ["| " + " | ".join(row) + " |" for row in rows]


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _cell(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None and not np.isnan(value)]
    if not known:
        return "-"
    spread = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{np.mean(known):.1f}{spread}"


def draw(answers: Answers, path: Path) -> None:
    """Input, true objects, objects found, and their names, of the room with most held-out objects."""
    scene, result = answers.shown
    label_set, points = answers.label_set, np.asarray(scene.coord)
    truth = np.asarray(scene.segment()).astype(np.int64)
    thing = (truth >= 0) & (scene.instance >= 0) & label_set.instance_class[truth]
    number = np.unique(np.where(thing, scene.instance, -1), return_inverse=True)[1] - int(not thing.all())
    labels = np.where(result.labels >= 0, answers.words[result.labels], -1)
    grey = np.append(label_set.colors, [[200, 200, 200]], axis=0)
    pictures = [
        ("input", points, np.asarray(scene.color)),
        ("true objects", points, object_colors(number.max() + 1)[number]),
        ("objects found", points, object_colors(len(result.objects))[result.instances]),
        ("their names", points, grey[labels].astype(np.uint8)),
    ]
    legend = report.label_legend(labels, label_set.names, label_set.colors, limit=20)
    report.panels(path, pictures, legend=legend, columns=2)
