"""`lground compare`: runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of training.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Picture of the curves to write (.png).")]


def compare(runs: Runs, out: Out = Path("compare.png")):
    """Print what runs reached and in what their recipes differ, and draw their curves."""
    from lground.cli.outputs import check_outputs
    from lground.report.curves import draw_curves
    from lground.training.comparison import difference_table, read_run, table

    check_outputs(runs[0], (out, (".png",)))
    found = [read_run(folder) for folder in dict.fromkeys(runs)]
    draw_curves(out, {run.name: run.rows for run in found})
    print(table(found))
    print("\n" + difference_table(found))
    print(f"\ncurves: {out}")
