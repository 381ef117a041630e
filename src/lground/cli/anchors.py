"""`lground anchors`: class names to text vectors."""

from pathlib import Path
from typing import Annotated

import typer

from lground.cli.outputs import check_outputs


def anchors(
    out: Annotated[Path, typer.Argument(help="The file to write (.safetensors).", metavar="OUT.safetensors")],
    labels: Annotated[
        str, typer.Option(help="scannet200, scannet20, nyu40, or a .txt or .json list of your own names.")
    ] = "scannet200",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="minilm (default, needs no download), clip (the paper's), a CLIP, SigLIP or "
            "sentence-transformers model of the Hugging Face hub, or a folder with one. "
            "With --from: what made the table."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help='Template, such as "a {} in a room"; several are averaged.')
    ] = None,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Also the eight attributed forms: red, green ... big, small.")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Take the vectors from a table instead (.npy, .npz, .safetensors, .pkl)."
        ),
    ] = None,
) -> None:
    """Put class names where a language model puts them: the anchors that training draws features to."""
    from dataclasses import replace

    from lground.errors import InputError
    from lground.labels import load_labels
    from lground.text import build_anchors, load_anchors, save_anchors

    check_outputs(table, (out, (".safetensors",)), what="table")
    names = load_labels(labels).names
    if table is None:
        made = build_anchors(names, encoder or "minilm", prompt or "{}", attributes)
    elif prompt or attributes:
        raise InputError("--from takes the vectors as they are: leave out --prompt and --attributes")
    else:
        made = load_anchors(table, names)
        made = replace(made, encoder=encoder or made.encoder)
    save_anchors(made, out)
    shape = " x ".join(map(str, made.vectors.shape))
    print(f"{out}: {shape}, encoder {made.encoder or 'not known'}, prompt {made.prompt or 'not known'}")
    _print_neighbours(made)


def _print_neighbours(made) -> None:
    """A look at whether the vectors make sense: the nearest names of a few classes, and the closest pair."""
    if len(made.names) < 2:
        return
    nearest = dict(zip(made.names, made.nearest(), strict=True))
    for name in made.names[:5]:
        print(f"  {name} -> " + ", ".join(f"{other} {cosine:.2f}" for other, cosine in nearest[name]))
    closest = max(nearest, key=lambda name: nearest[name][0][1])
    other, cosine = nearest[closest][0]
    print(f"  closest pair: {closest} and {other} {cosine:.3f}")
