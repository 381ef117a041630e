"""`lground demo`: everything, from made-up rooms to a labelled scan, on a CPU in minutes."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write; an earlier demo in it is replaced.")
    ] = Path("lground-demo"),
    seed: Annotated[int, typer.Option(help="Rooms and training.")] = 0,
):
    """Make rooms, prepare, pretrain with language, fine-tune, compare with scratch, label and query an unseen room."""
    from lground.demo import run_demo

    run_demo(out, seed)
