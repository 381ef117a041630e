"""`lground evaluate`: IoU per class, by head, common and tail, and scores of objects, on prepared scenes."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.outputs import check_folder

Weights = Annotated[Path, typer.Argument(help="Run folder, .safetensors or published .ckpt.")]
Data = Annotated[Path, typer.Argument(help="Prepared scenes (from `lground prepare`).")]
Anchors = Annotated[Path | None, typer.Option(help="Text anchors, for a published pretraining checkpoint.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 [default: cuda when there is one].")]
Workers = Annotated[int, typer.Option(help="Loading processes.", min=0)]
Views = Annotated[int, typer.Option(help="Average over this many views of each scene, such as 8.")]
Superpoints = Annotated[
    bool, typer.Option("--superpoints", help="One class for all vertices of a superpoint of the store.")
]


def evaluate(
    model: Weights,
    data: Data,
    split: Annotated[str, typer.Option(help="train or val.")] = "val",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Result folder [default: beside the model].")
    ] = None,
    anchors: Anchors = None,
    device: Device = None,
    workers: Workers = 0,
    views: Views = 1,
    superpoints: Superpoints = False,
    instances: Annotated[
        bool, typer.Option("--instances", help="Score objects, too: average precision, panoptic quality.")
    ] = False,
):
    """Print and save the scores of a model: table, metrics.json, classes.csv and a bar chart per class.

    With --instances there are tables of AP, AP50 and AP25 and of panoptic quality, objects.csv and objects.png, too.
    """
    from lground import predict
    from lground.report import write_scores

    target = out or (model if model.is_dir() else model.parent) / f"evaluation-{split}"
    check_folder(target)
    evaluation = predict.evaluate(
        predict.load_model(model, anchors),
        data,
        split,
        predict.choose_device(device),
        workers,
        views=views,
        superpoints=superpoints,
        instances=instances,
    )
    write_scores(target, evaluation)
    print(evaluation.text())
    print(f"\nper vertex, {split}; saved in {target}")
