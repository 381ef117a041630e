"""`lground submit`: predictions for ScanNet's benchmark server."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.evaluate import Anchors, Data, Device, Superpoints, Views, Weights, Workers
from lground.cli.outputs import check_place


def submit(
    model: Weights,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .zip to write.")],
    task: Annotated[str, typer.Option(help="semantic or instance.")] = "semantic",
    split: Annotated[str, typer.Option(help="test, or val or train to score the zip yourself.")] = "test",
    anchors: Anchors = None,
    device: Device = None,
    workers: Workers = 0,
    views: Views = 1,
    superpoints: Superpoints = False,
):
    """Segment all scenes of a split; write, and check, the .zip that ScanNet's benchmark takes."""
    from lground import predict

    check_place(out)
    loaded = predict.load_model(model, anchors)
    done = predict.submit(
        loaded,
        data,
        out,
        task,
        split,
        predict.choose_device(device),
        workers,
        views=views,
        superpoints=superpoints,
    )
    objects = f"{done.objects} objects, " if task == "instance" else ""
    print(
        f"{task}, {loaded.label_set.name}, {split}: {done.scenes} scenes, {done.vertices} vertices, {objects}"
        f"{done.bytes / 1e6:.2f} MB; read again and right: {out}"
    )
