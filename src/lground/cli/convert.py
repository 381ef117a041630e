"""`lground convert`: a published checkpoint as a model file."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.outputs import check_outputs

Source = Annotated[Path, typer.Argument(help="Published checkpoint: .ckpt, .pth or .safetensors.")]
Target = Annotated[Path, typer.Argument(help="The model file to write, .safetensors.")]
Network = Annotated[
    str | None, typer.Option("--model", help="Network, e.g. Res16UNet34CR [default: told from the tensors].")
]
Labels = Annotated[
    str | None, typer.Option(help="Classes: a label set or file [default: ScanNet's 20 or 200].")
]


def convert(source: Source, target: Target, model: Network = None, labels: Labels = None):
    """Turn a published checkpoint into a .safetensors model, strictly: every tensor is used or named."""
    from lground.labels import load_labels
    from lground.models import load_published, save_model

    check_outputs(source, (target, (".safetensors",)), what="checkpoint")
    converted = load_published(source, model, load_labels(labels) if labels else None)
    save_model(converted, target)
    network = converted.network
    parameters = sum(p.numel() for p in network.parameters())
    head = f"{len(converted.label_set)} classes" if converted.has_classifier else "no classifier (pretrained)"
    print(
        f"{target}: {converted.name}, {head}, {network.feature_channels} features, {parameters:,} parameters"
    )
