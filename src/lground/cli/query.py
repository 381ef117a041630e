"""`lground query`: where in a scan is what a text says."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.outputs import check_outputs
from lground.cli.segment import Anchors, Device, Scan, Units, VoxelSize, Weights


def query(
    scan: Scan,
    texts: Annotated[list[str], typer.Argument(help='What to look for, such as "somewhere to sit".')],
    model: Weights,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="[default: SCAN.query.ply]")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the heat of each text, .png.")] = None,
    units: Units = "m",
    anchors: Anchors = None,
    voxel_size: VoxelSize = None,
    device: Device = None,
):
    """Score every vertex for each text: a PLY in the heat of the first, with `score_0`, `score_1`, ..."""
    from lground import predict, report
    from lground.scans import read_scan, write_scan

    out = out or scan.with_name(f"{scan.stem}.query.ply")
    check_outputs(scan, (out, (".ply", ".npz")), (picture, (".png",)))
    chosen = predict.choose_device(device)
    room, loaded = read_scan(scan, units), predict.load_model(model, anchors)
    scores = predict.query(loaded, room, texts, voxel_size=voxel_size, device=chosen)
    if picture is not None:
        report.draw_answers(picture, room, texts, scores)
    write_scan(report.paint_answers(room, scores), out)
    for k, text in enumerate(texts):
        spot = predict.best_spot(room, scores[:, k])
        place = ", ".join(f"{value:.2f}" for value in spot.center)
        region = f"score {spot.score:.3f}, {len(spot.vertices)} vertices"
        print(f'"{text}" (score_{k}): best at ({place}) m, {region}')
    print(f"\n{len(room)} vertices scored: {out}")
