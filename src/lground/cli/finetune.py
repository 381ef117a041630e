"""`lground finetune`: a classifier, from pretrained weights or from scratch."""

from pathlib import Path

from lground.cli.pretrain import Out, Overrides, Recipe, Resume, run_stage


def finetune(
    recipe: Recipe, overrides: Overrides = None, out: Out = Path("runs/finetune"), resume: Resume = False
):
    """Train a segmenter on prepared scenes (data.root=FOLDER, network.weights=RUN to start from pretrained weights)."""
    run_stage("finetune", recipe, overrides or [], out, resume)
