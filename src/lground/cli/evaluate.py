"""`lground evaluate`: IoU per class, by head, common and tail, on prepared scenes."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[Path, typer.Argument(help="Run folder, .safetensors or published .ckpt.")],
    data: Annotated[Path, typer.Argument(help="Prepared scenes (from `lground prepare`).")],
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result folder [default: beside the model].")
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="Text anchors, for a published pretraining checkpoint.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 [default: cuda when there is one].")
    ] = None,
    workers: Annotated[int, typer.Option(help="Loading processes.")] = 0,
    views: Annotated[int, typer.Option(help="Average over this many views of each scene, such as 8.")] = 1,
    superpoints: Annotated[
        bool, typer.Option("--superpoints", help="One class for all vertices of a superpoint of the store.")
    ] = False,
):
    """Print and save the scores of a model: table, metrics.json, classes.csv and a bar chart per class."""
    from lground import predict
    from lground.metrics import semantic_scores
    from lground.report import write_scores

    loaded = predict.load_model(model, anchors=anchors)
    chosen = predict.choose_device(device)
    confusion = predict.evaluate(loaded, data, split, chosen, workers, views=views, superpoints=superpoints)
    target = out or (model if model.is_dir() else model.parent) / f"evaluation-{split}"
    write_scores(target, confusion, loaded.label_set)
    print(semantic_scores(confusion.vertex, loaded.label_set).table())
    print(f"\nper vertex, {split}; saved in {target}")
