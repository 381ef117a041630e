"""`lground pretrain`: place points where a language model places their names."""

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    str, typer.Argument(help="A shipped recipe or a YAML file; an unknown name lists those shipped.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]


def pretrain(
    recipe: Recipe, overrides: Overrides = None, out: Out = Path("runs/pretrain"), resume: Resume = False
):
    """Pretrain a network against text anchors, on prepared scenes (data.root=FOLDER text.anchors=FILE)."""
    run_stage("pretrain", recipe, overrides or [], out, resume)


def run_stage(stage: str, recipe: str, overrides: list[str], out: Path, resume: bool) -> None:
    from lground.cli.outputs import check_folder
    from lground.progress import speaks
    from lground.training import load_recipe, train
    from lground.training.together import ending_together

    with ending_together():
        loaded = load_recipe(recipe, stage, overrides)
        check_folder(out)
        metrics = train(loaded, out, resume=resume)
    if not speaks():
        return
    print(f"{stage}: epoch {metrics['epoch']} is the best; weights: {out / 'best.safetensors'}")
    for name, mean in metrics.get("vertex", {"means": {}})["means"].items():
        if mean["mean_iou"] is not None:
            print(
                f"  val mIoU {name}: {100 * mean['mean_iou']:.2f} ({mean['classes_present']} classes present)"
            )
    for name, mean in metrics.get("objects", {"means": {}})["means"].items():
        if mean["ap50"] is not None:
            print(f"  val AP {name}: {100 * mean['ap']:.2f}, AP50 {100 * mean['ap50']:.2f}")
