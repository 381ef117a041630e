"""Time the grouping of points into objects, against a breadth-first search through lists of neighbours.

    python benchmarks/grouping                       # 50k, 200k and 1M vertices of made-up rooms; about three minutes
    python benchmarks/grouping --vertices 20k        # seconds

Times are CPU seconds of one thread, the best of several calls. Peak memory is all that a process of its own held,
the scan included, and for find_objects the probabilities of 200 classes. The reference finds its neighbours with
scipy's kd-tree and then searches in two ways, of which the faster counts; where it cuts a list at 1000 neighbours, as
the original does, it may miss that two groups are one. `--out` receives grouping.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SUBJECTS = ("connected_groups", "breadth first", "find_objects")
PLACES = ("points", "shifted")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main() -> None:
    if sys.argv[1:2] == ["--process"]:  # of one measurement: started below
        from work import work

        return work(*sys.argv[2:])
    options = parse()
    with tempfile.TemporaryDirectory(prefix="lground-benchmark-") as folder:
        results = measure(Path(folder), options.vertices, options.out)
    print("\n".join(lines(results)))
    if any(case["same"] == "NO" for case in results["cases"]):
        sys.exit("the groups differ from those of the reference, whose lists were whole")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/grouping", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vertices", type=numbers, default=numbers("50k,200k,1M"), help="default: 50k,200k,1M")
    add(
        "--out",
        type=Path,
        default=Path("runs/grouping"),
        help="folder of the results (default: runs/grouping)",
    )
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(float(part.replace("k", "e3").replace("M", "e6"))) for part in text.split(",")]


def measure(folder: Path, sizes: list[int], out: Path) -> dict:
    """Every subject on every size, each in a process of its own; the results are written after each size."""
    from scans import save

    from lground.files import write_json
    from lground.progress import say

    machine = {"cpu": processor(), "python": platform.python_version(), "numpy": np.__version__}
    results = {"machine": machine, "cases": []}
    for vertices in sizes:
        scan = folder / f"{vertices}.npz"
        save(scan, vertices)
        found = {}
        for subject in SUBJECTS:
            say(f"{vertices:,} vertices: {subject}")
            line = [sys.executable, Path(__file__).parent, "--process", subject, scan, folder / "result.json"]
            subprocess.run(line, check=True, env=os.environ | ONE_THREAD)
            found[subject] = json.loads((folder / "result.json").read_text())
        results["cases"].append({"vertices": vertices, **compared(found)})
        write_json(out / "grouping.json", results)
    return results


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compared(found: dict[str, dict]) -> dict:
    """What was measured, with ratios of the reference's times to ours."""
    ours, theirs = found["connected_groups"], found["breadth first"]
    ratios = {places: theirs["seconds"][places] / ours["seconds"][places] for places in PLACES}
    both = sum(theirs["seconds"][places] for places in PLACES)
    ratios["both"] = both / sum(ours["seconds"][places] for places in PLACES)
    ratios["find_objects"] = both / found["find_objects"]["seconds"]["all"]
    same = "yes" if ours["groups"] == theirs["groups"] else "lists cut" if theirs["cut"] else "NO"
    return {"subjects": found, "ratios": ratios, "same": same}


def lines(results: dict) -> list[str]:
    """Markdown."""
    table = [
        f"{results['machine']['cpu']}, one thread. CPU seconds per 100k vertices; in brackets how many times faster "
        "than the reference on both sets of coordinates. Peak memory in MB.",
        "",
        "| vertices | grouped | reference: points | shifted | connected_groups: points | shifted | find_objects |"
        " memory: reference | connected_groups | find_objects | same groups |",
        "|" + "---|" * 11,
    ]
    for case in results["cases"]:
        share = case["vertices"] / 100_000
        ours, theirs, whole = (
            case["subjects"][s] for s in ("connected_groups", "breadth first", "find_objects")
        )
        cells = [f"{case['vertices']:,}", f"{ours['grouped']:,}"]
        cells += [f"{theirs['seconds'][places] / share:.2f}" for places in PLACES]
        cells += [
            f"{ours['seconds'][places] / share:.3f} ({case['ratios'][places]:.1f}×)" for places in PLACES
        ]
        cells.append(f"{whole['seconds']['all'] / share:.3f} ({case['ratios']['find_objects']:.1f}×)")
        cells += [f"{subject['peak_mb']:.0f}" for subject in (theirs, ours, whole)]
        cells.append(case["same"])
        table.append("| " + " | ".join(cells) + " |")
    return table


if __name__ == "__main__":
    main()
