"""What is compared: each method as a shipped recipe and what a short run changes in it, the same for all.

The total number of updates is the same for every method: one without pretraining spends all of them on fine-tuning.
"""

from dataclasses import dataclass

from lground.errors import InputError
from lground.training import load_recipe
from lground.training.recipe import Recipe

COMMON = (  # to all methods and both stages: a schedule that is whole in short runs, and no time spent on the way
    "optimizer.name=adamw", "optimizer.lr=0.003", "optimizer.weight_decay=0.01", "schedule.name=onecycle",
    "network.bn_momentum=0.1", "data.accumulate=1", "data.point_limit=null", "data.cache=true",
    "validate_every=100000", "checkpoint_every=100000", "images_every=0",
)  # fmt: skip
OWN = ("before.", "loss.", "paste.", "attributes.")  # of what is added by --set: for the stage it names alone


@dataclass(frozen=True)
class Method:
    recipe: str  # of `lground finetune`
    before: str | None  # of `lground pretrain`
    changes: tuple[str, ...] = ()


# The hinge of the paper with a learned projection needs hundreds of epochs; in short runs all anchors are drawn to
# one place. These take all classes at once, and anchors that stay where they are.
SHORT = ("before.loss.name=contrastive_ce", "before.loss.temperature=0.04", "before.text.projection=pca")

METHODS = {
    "scratch": Method("scratch-34C", None),
    "supcon": Method("clip-only-34C", "supcon-34C"),
    "language": Method("clip-only-34C", "34C", SHORT),
    "ours": Method("ours-34C", "34C", SHORT),
    "best": Method("best", "34C", SHORT),
}
EXTRA = {
    "hinge": Method("clip-only-34C", "34C")
}  # not run unless asked for: the paper's pretraining to the letter
BEFORE = {
    "scratch": "none",
    "supcon": "points to points of their class",
    "language": "points to words",
    "ours": "points to words; then focal loss, tail objects set into scenes",
    "best": "points to words; then what the field has learned since",
    "hinge": "points to words with the paper's hinge and learned projection",
}


def method(name: str) -> Method:
    """The method `name`; "best~ema=0~loss.lovasz=0" is `best` with changes of its own."""
    base, *changes = name.split("~")
    known = METHODS | EXTRA
    if base not in known:
        raise InputError(f"--methods {name}: choose of {', '.join(known)}, with changes as in best~ema=0")
    found = known[base]
    return Method(found.recipe, found.before, (*found.changes, *changes))


def recipe_of(job: dict, settings: dict) -> Recipe:
    """The resolved recipe of one run, with its pretraining."""
    chosen = method(job["method"])
    first = round(settings["pretrain_share"] * settings["epochs"]) if chosen.before else 0
    finetuning, pretraining = settings["networks"]
    shared = [*COMMON, f"data.batch_size={settings['batch']}", *settings["changes"]]
    changes = [
        f"network.name={finetuning}",
        f"epochs={settings['epochs'] - first}",
        f"seed={job['seed']}",
        f"data.root={settings['data']}",
        f"text.anchors={settings['anchors']}",
        f"data.annotation={'null' if job['annotation'] == 'full' else job['annotation']}",
        f"data.voxel_size={settings['voxel_size']}",
        f"data.workers={settings['workers']}",
        f"precision={settings['precision']}",
        *shared,
    ]
    if chosen.before:
        changes += [f"before.recipe={chosen.before}", f"before.network.name={pretraining}"]
        changes += [f"before.epochs={first}"]
        changes += [f"before.{change}" for change in shared if not change.startswith(OWN)]
    return load_recipe(chosen.recipe, "finetune", [*changes, *chosen.changes])
