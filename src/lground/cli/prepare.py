"""`lground prepare`: raw ScanNet to a prepared store; limited annotation and the bank of rare objects beside it."""

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    raw: Annotated[
        Path, typer.Argument(help="ScanNet's folder (with scans/), or without OUT a prepared store.")
    ],
    out: Annotated[Path | None, typer.Argument(help="Folder of the prepared store.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Label table [default: RAW/scannetv2-labels.combined.tsv].")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="List of training scenes [default: RAW/scannetv2_train.txt or the official]."),
    ] = None,
    val: Annotated[Path | None, typer.Option(help="List of validation scenes.")] = None,
    test: Annotated[Path | None, typer.Option(help="List of test scenes.")] = None,
    limited: Annotated[
        list[str] | None,
        typer.Option(help="Limited annotation: object-0.05, scene-20 or scenes-0.10; may be repeated."),
    ] = None,
    bank: Annotated[
        bool, typer.Option("--bank", help="Index the rare objects of a store given alone (else always done).")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: one per processor].")
    ] = None,
    align: Annotated[bool, typer.Option(help="Apply each scene's axis alignment.")] = True,
) -> int:
    """Turn raw ScanNet scenes into training data; repeat it to go on after a stop.

    Give --limited or --bank with a prepared store alone to add to it what it lacks.
    """
    from lground import scannet
    from lground.errors import InputError
    from lground.progress import say
    from lground.scannet.limited import parse_setting

    for setting in limited or ():
        parse_setting(setting)  # a misspelt setting is told before the work, not after
    failed = {}
    if out is not None:
        report = scannet.prepare(
            raw, out, labels=labels, train=train, val=val, test=test, workers=workers, align=align
        )
        failed = report.failed
        print(report)
        for line in failed.values():
            say(f"lground: {line}")
    elif not (limited or bank):
        raise InputError(f"{raw}: say where to write the prepared scenes: lground prepare {raw} OUT")
    if bank or (out is not None and report.scenes["train"]):
        print(scannet.build_bank(out or raw, workers=workers))
    if limited:
        for setting, line in scannet.limit_annotation(out or raw, limited, workers=workers).items():
            print(f"{setting}: {line}")
    return 2 if failed else 0
