"""lground synth: made-up rooms in ScanNet's raw format."""

from pathlib import Path
from typing import Annotated

import typer


def synth(
    out: Annotated[Path, typer.Argument(help="New or empty folder for the raw data set.")],
    train: Annotated[int, typer.Option(help="Number of training scenes.")] = 20,
    val: Annotated[int, typer.Option(help="Number of validation scenes.")] = 5,
    test: Annotated[int, typer.Option(help="Number of test scenes (written without annotation).")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    size: Annotated[str, typer.Option(help="Rooms: small (at most 4 m a side) or normal.")] = "normal",
    spacing: Annotated[float, typer.Option(help="Metres between the vertices of the meshes.")] = 0.02,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores if not given.", min=1)] = None,
) -> None:
    """Write made-up furnished rooms in ScanNet's raw format, to try everything without the data set."""
    from lground.synth import write_dataset

    counts = write_dataset(out, train, val, test, seed=seed, size=size, spacing=spacing, workers=workers)
    scenes = f"{train} train, {val} val, {test} test scenes"
    print(f"{out}: {scenes}; {sum(counts.values())} objects, {len(counts)} names")
