"""The scenes of a recipe, for training and for validation.

`data.reduce` is of training alone: validation sees scenes as `segment` and `evaluate` do.
"""

from dataclasses import asdict

from lground import data
from lground.data import SceneDataset, training_transforms
from lground.errors import InputError
from lground.progress import say
from lground.scannet import list_scenes
from lground.training.recipe import Recipe


def open_datasets(recipe: Recipe) -> tuple[SceneDataset, SceneDataset | None]:
    """Training and validation scenes; None for the latter where the store has none."""
    if recipe.data.root is None:
        raise InputError("data.root is not set: give the folder of prepared scenes, data.root=FOLDER")
    d = recipe.data
    common = dict(label_set=d.label_set, voxel_size=d.voxel_size, cache=d.cache)
    added: dict = {"mix": d.mix} if d.mix else {}
    if recipe.paste.count:
        added["paste"] = data.Paste(**asdict(recipe.paste))
    if recipe.attributes.mode == "raw":
        chances = recipe.attributes.color_probability, recipe.attributes.scale_probability
        added["attributes"] = data.Attributes(color_probability=chances[0], scale_probability=chances[1])
    reduce = d.reduce
    if d.annotation and reduce == "agreed":  # vertices whose label is hidden agree with nobody
        say(
            f"data.annotation={d.annotation}: a voxel's label is the most frequent one seen, not what all agree on"
        )
        reduce = "majority"
    train_set = SceneDataset(
        d.root,
        "train",
        annotation=d.annotation,
        hold_out=d.hold_out,
        transforms=training_transforms(**asdict(recipe.augment)),
        reduce=reduce,
        seed=recipe.seed,
        **common,
        **added,
    )
    try:
        list_scenes(d.root, "val")
    except InputError as error:
        say(f"training without validation: {error}")
        return train_set, None
    return train_set, SceneDataset(d.root, "val", **common)
