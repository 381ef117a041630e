"""`lground instances`: objects and classes, from pretrained or fine-tuned weights or from scratch."""

from pathlib import Path

from lground.cli.pretrain import Out, Overrides, Recipe, Resume, run_stage


def instances(
    recipe: Recipe, overrides: Overrides = None, out: Out = Path("runs/instances"), resume: Resume = False
):
    """Train a network that tells objects apart (data.root=FOLDER, network.weights=RUN to start from a training)."""
    run_stage("instances", recipe, overrides or [], out, resume)
