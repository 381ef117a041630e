"""The results as tables for people and as a plot."""

import os
from itertools import product
from pathlib import Path

from lground.files import atomic_file

DPI = 130


def tables(results: dict, against: str) -> str:
    """Markdown: what is right, then inference and training, with ratios to the engine `against` and to the floor."""
    machine, rates = results["machine"], results["ceilings"]
    reached = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items() if name != "copy")
    lines = [
        f"{machine['device']}, torch {machine['torch']}, {results['settings']['variant']}; measured ceilings: "
        f"copy {rates['copy'] / 1e12:.3g} TB/s, {reached}.",
        *("", "Relative errors against float64, of the logits and of the gradients' norms:", ""),
        *_check(results),
    ]
    for part in ("inference", "training"):
        rows = [row for name in results["engines"] for row in _rows(results, part, name, against)]
        lines += ["", PREFACE[part], "", *_table(rows)] if rows else []
    for name, engine in results["engines"].items():
        for failure in engine["failures"]:
            lines.append(f"\n{name}, {failure['case']}: {failure['error']}")
    return "\n".join(lines)


PREFACE = {
    "inference": "Inference, fresh coordinates every time. Times in ms (10th to 90th percentile). Maps: built alone, "
    "in brackets the GPU's time (of peers: what a run saves that knows them). Memory in MB above what was there "
    "before: allocated, and on a GPU by how much the device's pool grew. Floor: all arithmetic and traffic at the "
    "measured ceilings.",
    "training": "Training step (forward, cross-entropy, backward, SGD), fresh coordinates every time.",
}


def _check(results: dict) -> list[str]:
    rows = []
    for name, engine in results["engines"].items():
        for case in engine["check"]:
            cells = {
                "stem": f"{case['stem']}³",
                "dtype": case["dtype"],
                "engine": name,
                "logits": f"{case['error']:.1e}",
                "gradients": f"{case['gradient_error']:.1e}" if "gradient_error" in case else "",
                "": "" if case["ok"] else "WRONG: not timed",
            }
            rows.append(((case["stem"], case["dtype"]), cells))
    return _table(rows)


def _rows(results: dict, part: str, name: str, against: str) -> list[tuple[tuple, dict[str, str]]]:
    """Sort key and cells of an engine's cases."""
    floors = {_key(case): case["ms"] for case in results["floors"] if case["part"] == part}
    other = results["engines"].get(against, {part: []})
    others = {_key(case): case["wall_ms"] for case in other[part]}
    rows = []
    for case in results["engines"][name][part]:
        key, wall = _key(case), case["wall_ms"]
        cells = {
            "stem": f"{key[0]}³",
            "dtype": key[1],
            "voxels": f"{key[2]:,}",
            "engine": name,
            "wall": f"{wall:.3g} ({case['low_ms']:.3g}–{case['high_ms']:.3g})",
            "GPU busy": _number(case, "gpu_ms", ".3g"),
            "launches": _number(case, "launches", ".0f"),
            "maps" if part == "inference" else "forward": _number(case, MIDDLE[part], ".3g")
            + (f" ({case['maps_gpu_ms']:.3g})" if "maps_gpu_ms" in case else ""),
            "first call": _number(case, "first_ms", ".0f"),
            "memory": "/".join(filter(None, (_number(case, k, ".0f") for k in ("peak_mb", "reserved_mb")))),
            f"faster than {against}": f"{others[key] / wall:.2f}×" if key in others else "",
            "floor": f"{floors[key]:.3g}",
            "wall / floor": f"{wall / floors[key]:.1f}",
        }
        rows.append((key, cells))
    return rows


MIDDLE = {"inference": "maps_ms", "training": "forward_ms"}


def _number(case: dict, key: str, form: str) -> str:
    return format(case[key], form) if key in case else ""


def _key(case: dict) -> tuple[int, str, int]:
    return case["stem"], case["dtype"], case["voxels"]


def _table(rows: list[tuple[tuple, dict[str, str]]]) -> list[str]:
    """Markdown of (sort key, cells); the rows of a key stay in the order of the engines."""
    cells = [list(row.values()) for _, row in sorted(rows, key=lambda row: row[0])]
    cells = [list(rows[0][1]), *cells] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    return [*lines[:1], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def plot(results: dict, path: str | os.PathLike) -> None:
    """Write a PNG: inference over voxels, both logarithmic, a panel per stem and dtype, the floor dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    settings = results["settings"]
    panels = list(product(settings["stems"], settings["dtypes"]))
    figure = Figure(figsize=(4.2 * len(panels) + 0.6, 4.4), dpi=DPI, layout="constrained", facecolor="white")
    figure.suptitle(
        f"{settings['variant']}, inference with fresh coordinates\n{results['machine']['device']}"
    )
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (stem, dtype) in zip(axes, panels, strict=True):

        def line(cases, value, stem=stem, dtype=dtype):
            cases = [c for c in cases if (c["stem"], c["dtype"]) == (stem, dtype)]
            return list(zip(*((c["voxels"], c[value]) for c in cases), strict=True)) or [(), ()]

        for number, (name, engine) in enumerate(results["engines"].items()):
            axis.plot(*line(engine["inference"], "wall_ms"), "o-", color=f"C{number}", ms=4, label=name)
        floors = [case for case in results["floors"] if case["part"] == "inference"]
        axis.plot(*line(floors, "ms"), "--", color="0.35", label="floor")
        axis.set(xscale="log", yscale="log", xlabel="voxels", title=f"{dtype}, {stem}³ stem")
        axis.set_xticks(settings["voxels"], [_short(v) for v in settings["voxels"]], rotation=30)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("wall time, ms")
    axes[-1].legend(frameon=False, fontsize=8)
    with atomic_file(Path(path)) as part:
        FigureCanvasAgg(figure).print_png(part)


def _short(voxels: int) -> str:
    return f"{voxels / 1e6:g}M" if voxels >= 1e6 else f"{voxels / 1e3:g}k"
