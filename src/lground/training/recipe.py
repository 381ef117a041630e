"""Recipes: everything that decides a training run, as typed data.

The defaults are the original system's (its command-line defaults and scripts), but for those that docs/recipes.md
names. A recipe file holds only what differs from them; `key=value` on the command line changes it once more; the
resolved recipe is saved with the run.
"""

import difflib
import math
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from lground.errors import InputError
from lground.scannet.limited import parse_setting

SHARED = (  # with the pretraining that comes before
    "data.root", "data.label_set", "data.annotation", "data.hold_out", "data.voxel_size", "data.workers",
    "text.anchors", "precision", "devices", "num_nodes", "wandb", "seed",
)  # fmt: skip
RULES = (  # what the values of some keys must be: in words, and whether one is
    ("at least 1", lambda v: v >= 1, (
        "epochs", "validate_every", "checkpoint_every", "data.batch_size", "data.point_limit", "data.accumulate",
        "paste.tries", "loss.negatives", "schedule.step_size",
    )),
    ("at least 0", lambda v: 0 <= v < math.inf, (
        "images_every", "data.workers", "paste.count", "seed", "augment.shift", "augment.color_jitter",
        "augment.color_translation", "augment.color_scale", "loss.gamma", "loss.negative_weight", "loss.lovasz",
        "loss.language", "loss.logit_adjustment", "loss.offset_norm", "loss.offset_direction",
        "optimizer.weight_decay", "schedule.patience", "schedule.min_lr", "schedule.power",
    )),
    ("above 0", lambda v: 0 < v < math.inf, (
        "optimizer.lr", "data.voxel_size", "loss.temperature", "schedule.exp_step_size",
    )),
    ("above 0, up to 1", lambda v: 0 < v <= 1, ("network.bn_momentum", "schedule.gamma", "schedule.exp_gamma")),
    ("from 0 to 1", lambda v: 0 <= v <= 1, (
        "data.mix", "augment.auto_contrast", "augment.color_drop", "optimizer.dampening",
        "attributes.color_probability", "attributes.scale_probability", "attributes.latent_probability",
    )),
    ("from 0 to below 1", lambda v: 0 <= v < 1, ("schedule.warmup", "optimizer.momentum", "augment.dropout")),
    ("two numbers from 0 to below 1", lambda v: 0 <= min(v) <= max(v) < 1, ("optimizer.betas",)),
    ("an odd number, at least 1", lambda v: v > 0 and v % 2, ("network.stem_kernel_size",)),
    ("the least and the largest factor", lambda v: 0 < v[0] <= v[1] < math.inf, ("augment.scale",)),
)  # fmt: skip
ANNOTATION = (
    "a share of the points of each object, a number of points per scene or a share of the scenes, such as "
    "object-0.05, scene-20 or scenes-0.10"
)
FIRST_LOSS = {"pretrain": "contrastive", "finetune": "cross_entropy", "instances": "cross_entropy"}


@dataclass
class Network:
    name: str = "Res16UNet34D"
    stem_kernel_size: int = 3
    bn_momentum: float = 0.02
    weights: str | None = None  # start from these (a run folder, .safetensors or .ckpt)
    classifier_only: bool = False  # freeze all but the classifier
    classifier: Literal["random", "anchors"] = (
        "random"  # start it at random, or at the anchors of the weights
    )


@dataclass
class Data:
    root: str | None = None  # prepared scenes: <root>/{train,val}/<scene>/
    label_set: str = "scannet200"  # "scannet20" too
    annotation: str | None = None  # limited annotation: object-0.05, scene-20, scenes-0.10
    hold_out: tuple[
        str, ...
    ] = ()  # classes to train without: unlabelled, and no text to draw points to or from
    voxel_size: float = 0.02  # metres
    reduce: Literal["first", "majority", "agreed"] = "first"  # which vertex speaks for a voxel in training
    batch_size: int = 8  # scenes per process and step
    point_limit: int | None = 1_800_000  # voxels per forward pass; a larger step is accumulated over several
    accumulate: int = 1  # steps of batch_size scenes per update of the weights
    mix: float = 0.0  # share of scenes into which another one is laid (Mix3D)
    workers: int = 4
    cache: bool = False  # keep the raw scenes in memory


@dataclass
class Paste:
    """Instance sampling (section 4.2 of the paper): rare objects set into training scenes."""

    count: int = 0  # objects per scene; 0: none
    tries: int = 50  # places tried for each, then it is given up
    classes: Literal["tail", "common_tail"] = "tail"
    weights: Literal["inverse", "uniform"] = "inverse"  # a class is drawn by 1 / its points, or all alike


@dataclass
class Attributes:
    """Objects that look otherwise, and are named so: "a red chair" (the anchors need these forms)."""

    mode: Literal["none", "raw", "latent"] = "none"  # change colours and sizes, or features
    color_probability: float = 0.5  # raw
    scale_probability: float = 0.2  # raw, of what kept its colour
    latent_probability: float = 0.5  # latent, per class and batch


@dataclass
class Augment:
    """The keywords of `lground.data.training_transforms`."""

    elastic: bool = True
    rotation: bool = True
    scale: tuple[float, float] = (0.9, 1.1)
    flip: bool = True
    auto_contrast: float = 0.2
    color_translation: float = 0.10
    color_jitter: float = 0.05
    color_scale: float = 1.0
    color_drop: float = 0.0
    dropout: float = 0.0
    shift: int = 99


@dataclass
class Loss:
    name: Literal["contrastive", "contrastive_ce", "l2", "supcon", "cross_entropy", "focal"] = "contrastive"
    distance: Literal["cos", "l2", "l1"] = "cos"
    positive_threshold: float = 0.0
    negative_threshold: float = 0.6
    negative_weight: float = 1.0
    negatives: int = 3  # classes (points for supcon) drawn per point and step
    hinge: Literal["each", "mean"] = "each"  # of every negative, or of their mean as the original's code
    reduction: Literal["mean", "mean_all"] = (
        "mean"  # over labelled voxels, or over all as the original's code
    )
    temperature: float = 0.07  # contrastive_ce; the original's code has none, that is 1
    temperature_learned: bool = False  # it only starts there, as CLIP's does
    gamma: float = 2.0  # focal
    logit_adjustment: float = 0.0  # how far logits are lowered by how rare their class is, while training
    lovasz: float = 0.0  # weight of the Lovász-softmax loss beside it
    language: float = (
        0.0  # weight of the language loss, kept in fine-tuning; its temperature is the one above
    )
    class_weights: Literal["none", "inverse_log", "log"] = (
        "none"  # by the frequency in the training labels; focal's alpha
    )
    offset_norm: float = 1.0  # instances: weight of the L1 error of offsets
    offset_direction: float = 1.0  # instances: weight of minus their cosine


@dataclass
class Text:
    anchors: str | None = None  # made by `lground anchors`
    projection: Literal["learned", "pca"] = "learned"  # of networks that project anchors: trained, or fixed


@dataclass
class Optimizer:
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    dampening: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4


@dataclass
class Schedule:
    name: Literal[
        "constant", "step", "multistep", "poly", "exp", "squared", "plateau", "onecycle", "cosine"
    ] = "multistep"
    milestones: tuple[int, ...] = (120, 150)  # epochs
    gamma: float = 0.3
    step_size: int = 50  # epochs
    power: float = 0.9
    exp_gamma: float = 0.95
    exp_step_size: float = 1.0  # epochs
    patience: int = 20  # epochs without a better val mIoU
    min_lr: float = 1e-3
    warmup: float = 0.3  # onecycle, cosine: share of the run


@dataclass
class Recipe:
    stage: Literal["pretrain", "finetune", "instances"] = "pretrain"
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    paste: Paste = field(default_factory=Paste)
    attributes: Attributes = field(default_factory=Attributes)
    loss: Loss = field(default_factory=Loss)
    text: Text = field(default_factory=Text)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    epochs: int = 400
    validate_every: int = 1  # epochs
    checkpoint_every: int = 1  # epochs
    images_every: int = 20  # epochs between pictures of a validation room; 0: none
    precision: Literal["no", "bf16", "fp16"] = "no"
    devices: int = 1  # processes per node
    num_nodes: int = 1
    wandb: str | None = None  # project of Weights & Biases to log to as well
    seed: int = 42
    before: "Recipe | None" = None  # the pretraining whose best weights this training starts from

    def to_yaml(self) -> str:
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False)


def shipped(stage: str) -> list[str]:
    """Names of the recipes in the package for one stage."""
    return sorted(
        p.name.removesuffix(".yaml") for p in _shipped_folder(stage).iterdir() if p.name.endswith(".yaml")
    )


def load_recipe(name: str, stage: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by shipped name or path, apply `key=value` overrides.

    "ours-34D@object-0.05" is ours-34D with data.annotation=object-0.05. Weights that are given
    (network.weights) take the place of a pretraining that the recipe says comes before.
    Raises `InputError` for an unknown recipe or key (naming the nearest) and for a value of the wrong type.
    """
    recipe = Recipe(stage=stage, loss=Loss(name=FIRST_LOSS[stage]))  # type: ignore[arg-type]
    name, annotation = _split_annotation(name)
    source, text = _recipe_text(name, stage)
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{source}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{source}: a recipe is a mapping of keys to values")
    changes = [(source, *pair) for pair in flatten(values)]
    if annotation is not None:
        changes.append((f"recipe {name}@{annotation}", "data.annotation", annotation))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise InputError(f"{override!r}: overrides are written key=value, for example optimizer.lr=0.01")
        try:
            changes.append(("command line", key, yaml.safe_load(value)))
        except yaml.YAMLError:
            raise InputError(f"command line: {override}: not valid YAML; put the value in quotes") from None
    first = [change for change in changes if change[1] == "before" or change[1].startswith("before.")]
    for where, key, value in changes:
        if (where, key, value) not in first:
            _assign(recipe, key, value, where)
    if recipe.stage != stage:
        raise InputError(f"{source}: this recipe is for `lground {recipe.stage}`, not `lground {stage}`")
    if recipe.network.weights is None:
        recipe.before = _load_before(recipe, first)
    elif command := [key for where, key, value in first if where == "command line" and value is not None]:
        raise InputError(
            f"command line: {command[0]} does nothing beside network.weights; give one of the two"
        )
    return recipe


def _split_annotation(name: str) -> tuple[str, str | None]:
    """A recipe's name, and the limited annotation that it may carry behind an @."""
    base, separator, annotation = name.partition("@")
    if not separator or Path(name).is_file():
        return name, None
    try:
        return base, parse_setting(annotation).text
    except InputError:
        raise InputError(f"{name}: behind the @ goes {ANNOTATION}") from None


def _load_before(recipe: Recipe, changes: list[tuple[str, str, Any]]) -> Recipe | None:
    """The pretraining before another stage, from what `before` and `before.*` say; it works on the same data."""
    values = {key.removeprefix("before").removeprefix("."): value for _, key, value in changes}
    if all(value is None for value in values.values()):
        return None
    where = changes[-1][0]
    if recipe.stage == "pretrain":
        raise InputError(f"{where}: before is for fine-tuning: nothing comes before {recipe.stage}")
    name = values.pop("recipe", None) or values.pop("", None)
    if name is None and "stage" not in values:  # a resolved recipe spells out all of it
        raise InputError(f"{where}: say which pretraining comes before: before=RECIPE")
    before = Recipe() if name is None else load_recipe(str(name), "pretrain")
    for key in SHARED:
        if key not in values:
            _set(before, key, _get(recipe, key))
    for where, key, value in changes:
        if key == "before.before" and value is not None:
            raise InputError(f"{where}: before.before={value}: nothing comes before a pretraining")
        if key.startswith("before.") and key not in ("before.recipe", "before.before"):
            _assign(before, key.removeprefix("before."), value, where, "before.")
    for key in ("devices", "num_nodes"):
        if (own := _get(before, key)) != (wanted := _get(recipe, key)):
            raise InputError(
                f"{where}: before.{key}={own}, but {key}={wanted}: one command runs both with the same processes; "
                "give both the same"
            )
    return before


def _get(recipe: Recipe, key: str) -> Any:
    return reduce(getattr, key.split("."), recipe)


def _set(recipe: Recipe, key: str, value: Any) -> None:
    *path, name = key.split(".")
    setattr(reduce(getattr, path, recipe), name, value)


def _shipped_folder(stage: str):
    return resources.files("lground.training") / "recipes" / stage


def _recipe_text(name: str, stage: str) -> tuple[str, str]:
    if name in shipped(stage):
        return f"recipe {name}", (_shipped_folder(stage) / f"{name}.yaml").read_text()
    path = Path(name)
    if path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: is no text; a recipe is a YAML file") from None
    raise InputError(
        f"{name}: no such recipe; shipped for {stage}: {', '.join(shipped(stage))}; or give a YAML file"
    )


def flatten(values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _keys(recipe: Any, prefix: str = "") -> Iterator[str]:
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{f.name}.")
        elif f.name != "before":  # read apart
            yield prefix + f.name


def _assign(recipe: Recipe, key: str, value: Any, source: str, prefix: str = "") -> None:
    """Set a key of a recipe; `prefix` is what messages have before the key."""
    known = list(_keys(recipe))
    if key not in known:
        leaf = {k.rsplit(".", 1)[-1]: k for k in reversed(known)}  # "lr" should find "optimizer.lr"
        near = difflib.get_close_matches(key, known, 1, 0.5)
        near = near or [leaf[n] for n in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaf, 1)]
        hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known keys: {', '.join(known)}"
        raise InputError(f"{source}: unknown key {prefix}{key}{hint}")
    *path, name = key.split(".")
    kind = typing.get_type_hints(type(reduce(getattr, path, recipe)))[name]
    try:
        converted = _convert(value, kind)
    except (TypeError, ValueError):
        raise InputError(f"{source}: {prefix}{key} is {_describe(kind)}, not {value!r}") from None
    for words, holds, keys in RULES:
        if key in keys and converted is not None and not holds(converted):
            raise InputError(f"{source}: {prefix}{key} is {words}, not {value!r}")
    if key == "data.annotation" and converted is not None:
        try:
            parse_setting(converted)
        except InputError:
            raise InputError(f"{source}: {prefix}{key} is {ANNOTATION}, not {value!r}") from None
    _set(recipe, key, converted)


def _convert(value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        return None if value is None else _convert(value, next(a for a in arguments if a is not type(None)))
    if origin is Literal:
        if value is False and "no" in arguments:  # YAML reads a bare `no` as false
            value = "no"
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        if Ellipsis not in arguments and len(value) != len(arguments):
            raise ValueError
        return tuple(_convert(v, arguments[0]) for v in value)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return float(value)  # YAML reads 1e-4 as a string
    if kind is str and isinstance(value, str | int | float):
        return str(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
