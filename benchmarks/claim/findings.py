"""What the runs found: tables, JSON and a picture."""

import json
from pathlib import Path

import numpy as np
from methods import method
from rooms import COUNTED, tail_lines

from lground.files import atomic_file, write_json

SPLITS = ("all", "head", "common", "tail")
PAPER = {  # what the paper finds on ScanNet200: relative gain of "ours" in mean IoU over all classes
    "full": ("scratch", 0.15),
    "object-0.05": ("the best other pretraining", 0.25),
}
OTHER_PRETRAINING = ("supcon", "language", "hinge")
DPI = 130


def write(out: Path, store: Path, names: list[str]) -> str:
    """Write claim.json, claim.md and claim.png of the results that are there; returns the Markdown.

    names: the runs that were asked for, in their order; those without a result yet are left out.
    """
    files = [out / "runs" / f"{name}.json" for name in names]
    results = [json.loads(path.read_text()) for path in files if path.exists()]
    found = summary(results)
    counted = json.loads((store / COUNTED).read_text()) if (store / COUNTED).exists() else None
    text = "\n".join(lines(found, results, len(names), counted)) + "\n"
    write_json(out / "claim.json", {"table": found, "rooms": counted, "runs": [_short(r) for r in results]})
    with atomic_file(out / "claim.md") as part:
        part.write_text(text)
    if results:
        draw(found, out / "claim.png")
    return text


def _short(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in ("log", "classes", "recipe")}


def summary(results: list[dict]) -> list[dict]:
    """A row for each annotation, method and way of evaluating: the mean IoU of every seed, in percent."""
    rows: dict[tuple[str, str, str], dict] = {}
    for result in sorted(results, key=lambda r: r["seed"]):
        for votes, means in result["scores"].items():
            key = result["annotation"], result["method"], votes
            row = rows.setdefault(key, {"seeds": [], **{split: [] for split in SPLITS}})
            row["seeds"].append(result["seed"])
            for split in SPLITS:
                value = means[split]["mean_iou"]  # None where no class of the split occurs
                row[split].append(None if value is None else 100 * value)
    return [
        {"annotation": annotation, "method": method, "votes": votes, **row}
        for (annotation, method, votes), row in rows.items()
    ]


def lines(found: list[dict], results: list[dict], wanted: int, counted: dict | None) -> list[str]:
    if not results:
        return ["No run has ended yet."]
    devices = ", ".join(sorted({result["device"] for result in results}))
    identity = results[0]["identity"]
    text = [
        f"{len(results)} of {wanted} runs, {devices}; Res16UNet{identity['network']}, voxels of "
        f"{100 * identity['voxel_size']:g} cm, {identity['epochs']} epochs in all, "
        f"{identity['batch']} rooms per update.",
        "Mean IoU in percent over the classes present in made-up validation rooms, per vertex: mean ± standard "
        "deviation over seeds. By words: by cosine to the names of the classes, without the classifier.",
    ]
    for annotation in dict.fromkeys(row["annotation"] for row in found):
        rows = [row for row in found if row["annotation"] == annotation]
        text += ["", f"## Annotation: {annotation}", ""]
        text += _table([_cells(row, results) for row in rows if row["votes"] == "plain"])
        text += ["", *claims(rows, annotation)]
        text += [
            "",
            f"What voting over vertices adds, {annotation} (all classes):",
            "",
            *_table(_votes(rows)),
        ]
    if counted is not None:
        text += ["", "## The rooms", "", *tail_lines(counted)]
    return text


def _cells(row: dict, results: list[dict]) -> dict[str, str]:
    runs = [r for r in results if (r["annotation"], r["method"]) == (row["annotation"], row["method"])]
    steps = runs[0]["updates"]
    first = [100 * r["pretrained"]["means"]["all"]["mean_iou"] for r in runs if r["pretrained"]]
    words = [100 * means["all"]["mean_iou"] for r in runs if (means := r.get("worded"))]
    return {
        "method": row["method"],
        "pretraining": method(row["method"]).what,
        **{split: _spread(row[split]) for split in SPLITS},
        "seeds": str(len(row["seeds"])),
        "pretrained, by words": _spread(first) if first else "",
        "by words": _spread(words) if words else "",
        "updates": " + ".join(str(n) for n in steps.values()),
        "seconds": f"{np.mean([sum(r['seconds'].values()) for r in runs]):.0f}",
    }


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
    return f"{np.mean(known):.2f}{spread}"


def _votes(rows: list[dict]) -> list[dict[str, str]]:
    names = dict.fromkeys(row["method"] for row in rows)
    return [
        {"method": name} | {row["votes"]: _spread(row["all"]) for row in rows if row["method"] == name}
        for name in names
    ]


def claims(rows: list[dict], annotation: str) -> list[str]:
    """The gain of ours and best over the others, relative, beside what the paper finds."""
    plain = {row["method"]: row for row in rows if row["votes"] == "plain"}
    others = [plain[name] for name in OTHER_PRETRAINING if name in plain]
    against = {"scratch": plain.get("scratch")}
    against["the best other pretraining"] = max(others, key=lambda row: _mean(row["all"]), default=None)
    said = []
    for name in ("ours", "best"):
        for base, other in against.items():
            if name not in plain or other is None:
                continue
            gains = {split: _gain(plain[name][split], other[split]) for split in SPLITS}
            known = ", ".join(f"{split} {gain:+.0%}" for split, gain in gains.items() if gain is not None)
            which = "" if base == other["method"] else f" ({other['method']})"
            expected = PAPER.get(annotation, ("", 0))
            paper = f"; the paper on ScanNet200: {expected[1]:+.0%}" if expected[0] == base else ""
            said.append(f"- {name} over {base}{which}, relative: {known}{paper}.")
    return said


def _mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None] or [np.nan]))


def _gain(values: list[float | None], others: list[float | None]) -> float | None:
    mean, other = _mean(values), _mean(others)
    return mean / other - 1 if np.isfinite(mean) and other > 0 else None


def _table(rows: list[dict[str, str]]) -> list[str]:
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    drawn = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return [drawn[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *drawn[1:]]


def draw(found: list[dict], path: Path) -> None:
    """Write a PNG: bars of the means by split and method, a dot for each seed, a panel for each annotation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plain = [row for row in found if row["votes"] == "plain"]
    annotations = list(dict.fromkeys(row["annotation"] for row in plain))
    methods = list(dict.fromkeys(row["method"] for row in plain))
    size = (max(6.5, 1.2 + 0.95 * len(methods)), 3.4 * len(annotations) + 0.5)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    for axis, annotation in zip(
        figure.subplots(len(annotations), squeeze=False)[:, 0], annotations, strict=True
    ):
        rows = {row["method"]: row for row in plain if row["annotation"] == annotation}
        _bars(axis, [(name, rows[name]) for name in methods if name in rows], methods)
        axis.set_title(
            "all points labelled" if annotation == "full" else f"annotation {annotation}", fontsize=11
        )
    names = max(figure.axes, key=lambda axis: len(axis.containers)).get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=min(6, len(methods)), frameon=False, fontsize=9)
    figure.suptitle("Made-up rooms nobody trained on: mean IoU; dots are seeds", fontsize=12)
    with atomic_file(path) as part:
        FigureCanvasAgg(figure).print_png(part)


def _bars(axis, rows: list[tuple[str, dict]], methods: list[str]) -> None:
    width = 0.82 / len(methods)
    for name, row in rows:
        number = methods.index(name)
        places = np.arange(len(SPLITS)) + (number - (len(methods) - 1) / 2) * width
        axis.bar(
            places, [_mean(row[split]) for split in SPLITS], 0.92 * width, color=f"C{number}", label=name
        )
        for place, split in zip(places, SPLITS, strict=True):
            values = [value for value in row[split] if value is not None]
            spots = place + 0.25 * width * np.linspace(-1, 1, len(values)) if len(values) > 1 else [place]
            axis.plot(spots[: len(values)], values, ".", color="0.15", ms=6, mec="white", mew=0.6, zorder=3)
    axis.set_xticks(range(len(SPLITS)), SPLITS)
    axis.set_ylabel("mean IoU, %")
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
