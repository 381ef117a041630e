"""A recipe as one command: the processes it needs, the pretraining that comes before, then the stage itself."""

from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

from lground.errors import InputError
from lground.labels import load_labels
from lground.progress import say
from lground.training.datasets import open_datasets
from lground.training.launch import join_processes, start_processes
from lground.training.logs import check_logs
from lground.training.recipe import Recipe
from lground.training.run import check_run, epochs_done, has_state, has_weights, read_metrics
from lground.training.schedules import Scheduler, build_optimizer
from lground.training.stages import build_stage
from lground.training.stopping import StopSignal
from lground.training.trainer import Trainer

BEFORE = "before"


def train(recipe: Recipe, out: str | Path, *, resume: bool = False) -> dict:
    """Run a recipe into the run folder `out`; returns what its `metrics.json` holds.

    The folder receives `recipe.yaml`, `log.csv`, TensorBoard events (when tensorboard is installed), `last.ckpt`
    (to resume from), `last.safetensors`, `best.safetensors` (highest validation mIoU) and `metrics.json`.
    With `recipe.before` that pretraining runs first, into `<out>/before`, unless it is there and finished; the
    stage starts from its best weights, once, and goes on without them. With `recipe.devices` above 1 and no launcher,
    processes are started.
    SIGTERM saves after the present update and raises `Terminated`, a SystemExit with code 143.
    Raises `InputError` when the recipe does not fit the data or `out` holds another run.
    """
    out = Path(out)
    if recipe.before is not None and recipe.network.weights is not None:
        raise InputError(
            f"network.weights={recipe.network.weights}: with before, the weights are those of the "
            "pretraining; give one of the two"
        )
    joined = join_processes(recipe)
    check_run(out, recipe, resume=resume)
    if not joined:
        start_processes(recipe, out, resume=resume)
        return read_metrics(out)
    with StopSignal() as stop:
        weights = recipe.network.weights
        if recipe.before is not None and not has_state(out):  # a run that has started needs it no more
            weights = str(_run_before(recipe, out / BEFORE, resume, stop))
        return Trainer(recipe, out, resume=resume, weights=weights, stop=stop).run()


def _run_before(recipe: Recipe, out: Path, resume: bool, stop: StopSignal) -> Path:
    """Have the weights of the pretraining before `recipe`; returns their file."""
    before = recipe.before
    done = epochs_done(out)
    finished = done >= before.epochs and has_weights(out, done)
    check_run(out, before, resume=resume or finished)
    if finished:
        say(f"{out}: finished, its weights are taken")
    else:
        say(f"{out}: comes first; looking whether {recipe.stage} can follow")
        _check_after(recipe)
        Trainer(before, out, resume=resume, weights=before.network.weights, stop=stop).run()
    return out / "best.safetensors"


def _check_after(recipe: Recipe) -> None:
    """Raise InputError where `recipe` could not start after its pretraining: not days later, when that is done."""
    check_logs(recipe)
    before, source = recipe.before, f"before.network.name={recipe.before.network.name}"
    uncached = replace(recipe, data=replace(recipe.data, cache=False))
    started = replace(recipe, network=replace(recipe.network, weights=source))
    with redirect_stderr(StringIO()):  # as nothing starts yet
        scenes, _ = open_datasets(uncached)
        pretrained = build_stage(before, load_labels(before.data.label_set), scenes).model.eval()
        stage = build_stage(started, load_labels(recipe.data.label_set), scenes, pretrained)
    Scheduler(build_optimizer(list(stage.parameters()), recipe.optimizer), recipe, steps_per_epoch=1)
