import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.models import build
from lground.training import load_recipe, shipped

STAGES = ("pretrain", "finetune")
ALL = [(stage, name) for stage in STAGES for name in shipped(stage)]


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_shipped_recipe_loads_and_its_network_exists(stage, name):
    recipe = load_recipe(name, stage)
    with torch.device("meta"):
        build(recipe.network.name, representation_only=stage == "pretrain")


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_saved_recipe_reads_back_the_same(stage, name, tmp_path):
    recipe = load_recipe(name, stage, ["optimizer.lr=1e-4", "data.root=here"])
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(str(path), stage) == recipe


def test_defaults_are_the_original_system():
    recipe = load_recipe("34D", "pretrain")
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.optimizer.dampening) == (0.05, 0.9, 0.1)
    assert (recipe.schedule.name, recipe.schedule.milestones, recipe.schedule.gamma) == (
        "multistep",
        (120, 150),
        0.3,
    )
    assert (recipe.loss.negatives, recipe.loss.negative_threshold, recipe.loss.positive_threshold) == (
        3,
        0.6,
        0.0,
    )
    assert (recipe.data.voxel_size, recipe.data.point_limit, recipe.epochs, recipe.seed) == (
        0.02,
        1_400_000,
        400,
        42,
    )


@given(lr=st.floats(1e-6, 1.0), epochs=st.integers(1, 1000), cache=st.booleans())
def test_overrides_arrive_with_their_type(lr, epochs, cache):
    recipe = load_recipe(
        "34D", "pretrain", [f"optimizer.lr={lr!r}", f"epochs={epochs}", f"data.cache={str(cache).lower()}"]
    )
    assert (recipe.optimizer.lr, recipe.epochs, recipe.data.cache) == (lr, epochs, cache)


def test_tuples_none_and_precision_from_the_command_line():
    recipe = load_recipe(
        "34D", "pretrain", ["schedule.milestones=[3, 5]", "data.point_limit=null", "precision=no"]
    )
    assert (recipe.schedule.milestones, recipe.data.point_limit, recipe.precision) == ((3, 5), None, "no")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.rl=1", "optimizer.lr"),
        ("lr=1", "optimizer.lr"),
        ("data.voxelsize=1", "data.voxel_size"),
        ("epochs=many", "epochs is int"),
        ("epochs=1.5", "epochs is int"),
        ("data.cache=1", "data.cache is bool"),
        ("loss.distance=cosine", "one of cos, l2, l1"),
        ("schedule.milestones=120", "schedule.milestones"),
        ("optimizer.lr", "key=value"),
        ("stage=finetune", "lground finetune"),
    ],
)
def test_wrong_override_says_what_is_meant(override, words):
    with pytest.raises(InputError) as error:
        load_recipe("34D", "pretrain", [override])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "network:\n  nam: x\n"])
def test_wrong_recipe_file_names_the_file(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.yaml"):
        load_recipe(str(path), "pretrain")


def test_unknown_recipe_lists_those_shipped():
    with pytest.raises(InputError, match="scratch-34D"):
        load_recipe("nope", "finetune")


def test_files_hold_only_differences_from_the_defaults():
    from importlib.resources import files

    for stage, name in ALL:
        values = yaml.safe_load((files("lground.training") / "recipes" / stage / f"{name}.yaml").read_text())
        assert values, f"{stage}/{name} says nothing"
