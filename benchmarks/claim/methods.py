"""What is compared: each method as a shipped recipe and what a short run changes in it, the same for all.

The total number of updates is the same for every method: one without pretraining spends all of them on fine-tuning.
"""

import json
from dataclasses import dataclass

from lground.errors import InputError
from lground.training import load_recipe
from lground.training.recipe import Recipe, flatten


@dataclass(frozen=True)
class Method:
    what: str  # in words, for the table
    recipe: str  # of `lground finetune`
    before: str | None = None  # of `lground pretrain`
    changes: tuple[str, ...] = ()


# The hinge of the paper with a learned projection needs hundreds of epochs; in short runs all anchors are drawn to
# one place. These take all classes at once, and anchors that stay where they are.
SHORT = ("before.loss.name=contrastive_ce", "before.loss.temperature=0.04", "before.text.projection=pca")

METHODS = {
    "scratch": Method("none", "scratch-34C"),
    "supcon": Method(
        "points to points of their class",
        "clip-only-34C",
        "supcon-34D",
        ("before.network.name=Res16UNet34CR_Proj",),
    ),
    "language": Method("points to words", "clip-only-34C", "34C", SHORT),
    "ours": Method("points to words; then focal loss, rare objects pasted", "ours-34C", "34C", SHORT),
    "best": Method("points to words; then what the field has learned since", "best", "best"),
}
EXTRA = {  # not run unless asked for
    "unpretrained": Method(
        "none; what follows it in best", "best", None, ("before=null", "network.classifier=random")
    ),
    "hinge": Method("points to words, by the paper's hinge and a learned projection", "clip-only-34C", "34C"),
}
COMMON = (  # to all methods: a schedule that is whole in short runs, and no time spent on the way
    "optimizer.name=adamw", "optimizer.lr=0.003", "optimizer.weight_decay=0.01",
    "schedule.name=onecycle", "schedule.warmup=0.1", "network.bn_momentum=0.1",
    "data.accumulate=1", "data.point_limit=null", "data.cache=true",
    "validate_every=100000", "checkpoint_every=100000", "images_every=0",
)  # fmt: skip
OWN = (
    "before.",
    "loss.",
    "paste.",
    "attributes.",
    "network.classifier",
)  # --set changes these in one stage alone
PLACES = ("data.root", "text.anchors", "data.workers")  # of either stage; they change nothing in the result


def method(name: str) -> Method:
    """The method `name`; "best~loss.language=0~loss.lovasz=0" is `best` with changes of its own."""
    base, *changes = name.split("~")
    known = METHODS | EXTRA
    if base not in known:
        raise InputError(
            f"--methods {name}: choose of {', '.join(known)}, with changes as in best~loss.lovasz=0"
        )
    found = known[base]
    return Method(found.what, found.recipe, found.before, (*found.changes, *changes))


def recipe_of(job: dict, settings: dict) -> Recipe:
    """The resolved recipe of one run, with its pretraining."""
    chosen = method(job["method"])
    first = round(settings["pretrain_share"] * settings["epochs"]) if chosen.before else 0
    shared = [*COMMON, f"data.batch_size={settings['batch']}"]
    changes = [
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
        changes += [f"before.recipe={chosen.before}", f"before.epochs={first}"]
        changes += [f"before.{change}" for change in shared]
        changes += [f"before.{change}" for change in settings["set"] if not change.startswith(OWN)]
    changes += settings["set"]
    recipe = load_recipe(chosen.recipe, "finetune", [*changes, *chosen.changes])
    for stage in filter(None, (recipe.before, recipe)):
        stage.network.name = stage.network.name.replace("34C", settings["network"])
    return recipe


def identity(recipe: dict) -> dict:
    """The keys and values, as JSON has them, that two runs must share for their results to be of the same method."""
    keys = flatten(json.loads(json.dumps(recipe)))
    return {key: value for key, value in keys if key.removeprefix("before.") not in PLACES}
