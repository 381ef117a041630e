import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lground.errors import InputError
from lground.labels import load_labels
from lground.models import build, load_model
from lground.scannet import build_bank, limit_annotation, list_scenes
from lground.text import Anchors, save_anchors
from lground.training import load_recipe, shipped, train
from lground.training.datasets import open_datasets

STAGES = ("pretrain", "finetune", "instances")
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


LIMITED = [f"object-{r}" for r in ("0.01", "0.05", "0.10", "0.25", "0.50")]
LIMITED += [f"scene-{n}" for n in (20, 50, 100, 200)]
LIMITED += [f"scenes-{r}" for r in ("0.01", "0.05", "0.10", "0.20")]


@pytest.mark.parametrize("setting", LIMITED)
def test_a_recipe_by_its_limited_annotation(setting):
    """The whole chain works on it; the command line still has the last word."""
    recipe = load_recipe(f"ours-34D@{setting}", "finetune")
    plain = load_recipe("ours-34D", "finetune", [f"data.annotation={setting}"])
    assert recipe == plain
    assert recipe.data.annotation == recipe.before.data.annotation == setting
    other = load_recipe(f"scratch-34D@{setting}", "finetune", ["data.annotation=object-0.3"])
    assert other.data.annotation == "object-0.3"
    assert load_recipe(f"34D@{setting}", "pretrain").data.annotation == setting


@pytest.mark.parametrize("name", ["ours-34D@5%", "ours-34D@", "ours-34D@object-0", "ours-34D@scenes-3"])
def test_wrong_limited_annotation_names_the_recipe(name):
    with pytest.raises(InputError, match=f"^{name}: .*object-0.05"):
        load_recipe(name, "finetune")


def test_a_file_may_have_an_at_in_its_name(tmp_path):
    path = tmp_path / "mine@home.yaml"
    path.write_text("epochs: 3")
    assert load_recipe(str(path), "pretrain").epochs == 3


PRETRAINED = [name for name in shipped("finetune") if load_recipe(name, "finetune").before]


def test_recipes_on_pretrained_weights_never_start_from_scratch():
    """All but scratch and its variants (and the demo, which is given weights) bring their pretraining."""
    others = {"scratch-34C", "scratch-34D", "sampling-34D", "focal-34D", "demo"}
    assert set(shipped("finetune")) - set(PRETRAINED) == others


@pytest.mark.parametrize("name", PRETRAINED)
def test_given_weights_take_the_place_of_the_pretraining(name):
    given = load_recipe(name, "finetune", ["network.weights=runs/mine"])
    assert given.before is None and given.network.weights == "runs/mine"
    changed = load_recipe(name, "finetune", ["before.epochs=7", "data.root=here", "network.weights=null"])
    assert (changed.before.epochs, changed.before.data.root) == (7, "here")
    assert changed.network.weights is None
    assert load_recipe(name, "finetune", ["before=null"]).before is None


@pytest.mark.parametrize("change", ["before=34D", "before.epochs=7"])
def test_weights_and_a_pretraining_on_the_command_line_contradict(change):
    with pytest.raises(InputError, match=r"network\.weights; give one"):
        load_recipe("ours-34D", "finetune", ["network.weights=runs/mine", change])


@pytest.mark.parametrize("name", PRETRAINED)
def test_weights_of_the_pretraining_fit_its_fine_tuning(name):
    """Every tensor but the classifier comes from there, at full size (without allocating it)."""
    recipe = load_recipe(name, "finetune")
    with torch.device("meta"):
        old = build(recipe.before.network.name, representation_only=True).state_dict()
        new = build(recipe.network.name).state_dict()
    for key, tensor in new.items():
        assert key.startswith("final.") or old[key].shape == tensor.shape
    assert all(key in new or key.startswith("projection_layer.") for key in old)


@pytest.mark.parametrize(
    ("name", "weights"), [("clip-only-34D", "bert-34D"), ("clip-only-34D", "l1-34D"), ("ours-34D", "34D")]
)
def test_another_pretraining_on_the_command_line(name, weights):
    recipe = load_recipe(name, "finetune", [f"before={weights}", "text.anchors=a.safetensors"])
    expected = load_recipe(weights, "pretrain", ["text.anchors=a.safetensors"])
    assert recipe.before == expected


def test_every_command_of_the_documentation_is_one():
    """docs/recipes.md names all shipped recipes, and load_recipe takes all that it names."""
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    commands = re.findall(r"lground (pretrain|finetune|instances) ([\w@.-]+)((?: [\w.]+=[\w.-]+)*)", page)
    named = set()
    for stage, name, overrides in commands:
        if name != "nope":
            recipe = load_recipe(name, stage, overrides.split())
            named |= {(stage, name.partition("@")[0])}
            named |= {
                ("pretrain", change[7:]) for change in overrides.split() if change.startswith("before=")
            }
            alone = name.startswith(("scratch", "sampling", "focal", "csc", "34"))
            assert (recipe.before is None) == (alone or "network.weights=" in overrides)
    assert len(commands) > 40 and {pair for pair in ALL if pair[1] != "demo"} <= named | {
        ("pretrain", "34C"),
        ("pretrain", "supcon-34D"),
        ("pretrain", "best"),
        *(
            ("pretrain", f"{row}-34D") for row in ("gpt2", "bert", "l1", "l2")
        ),  # named by the finetuning after them
    }


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_header_says_what_the_recipe_is(stage, name):
    from importlib.resources import files

    text = (files("lground.training") / "recipes" / stage / f"{name}.yaml").read_text()
    assert text.startswith("# ") and all(len(line) <= 120 for line in text.splitlines())


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
        ("epochs=0", "epochs is at least 1, not 0"),
        ("validate_every=0", "validate_every is at least 1"),
        ("checkpoint_every=0", "checkpoint_every is at least 1"),
        ("data.workers=-1", "data.workers is at least 0"),
        ("data.point_limit=0", "data.point_limit is at least 1"),
        ("schedule.warmup=1.0", "schedule.warmup is from 0 to below 1"),
        ("seed=-1", "seed is at least 0"),
        ("loss.lovasz=-1", "loss.lovasz is at least 0"),
        ("optimizer.lr=0", "optimizer.lr is above 0"),
        ("optimizer.lr=.nan", "optimizer.lr is above 0"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("optimizer.betas=[0.9, 1.5]", "optimizer.betas is two numbers from 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay is at least 0"),
        ("augment.shift=-1", "augment.shift is at least 0"),
        ("augment.dropout=1.5", "augment.dropout is from 0"),
        ("attributes.latent_probability=7", "attributes.latent_probability is from 0 to 1"),
        ("schedule.exp_step_size=0", "schedule.exp_step_size is above 0"),
        ("network.bn_momentum=5", "network.bn_momentum is above 0, up to 1"),
        ("network.stem_kernel_size=2", "network.stem_kernel_size is an odd number"),
        ("loss.logit_adjustment=.nan", "loss.logit_adjustment is at least 0"),
        ("data.annotation=objekt-0.05", "such as object-0.05, scene-20"),
        ("data.annotation=scenes-x", "such as object-0.05, scene-20"),
        ("augment.scale=[]", "augment.scale"),
        ("augment.scale=[1.1,0.9]", "the least and the largest"),
        ("data.root=@scratch/store", "quotes"),
        ("data.hold_out=[chair", "quotes"),
    ],
)
def test_wrong_override_says_what_is_meant(override, words):
    with pytest.raises(InputError) as error:
        load_recipe("34D", "pretrain", [override])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("before.epoch=1", "unknown key before.epoch; did you mean before.epochs?"),
        ("before.lr=1", "unknown key before.lr; did you mean before.optimizer.lr?"),
        ("before.epochs=many", "before.epochs is int"),
        ("before.epochs=0", "before.epochs is at least 1"),
        ("before.before=34C", "nothing comes before a pretraining"),
        ("before.devices=3", "before.devices=3, but devices=1"),
        ("before.num_nodes=2", "before.num_nodes=2, but num_nodes=1"),
    ],
)
def test_wrong_override_of_what_comes_before_says_what_is_meant(override, words):
    with pytest.raises(InputError) as error:
        load_recipe("ours-34D", "finetune", [override])
    assert words in str(error.value) and str(error.value).startswith("command line: ")


@pytest.mark.parametrize("text", [b"- a\n- b\n", b"a: [1\n", b"network:\n  nam: x\n", b"\xff\xfe\x00"])
def test_wrong_recipe_file_names_the_file(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
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


SMALLEST = {  # as the network of the recipe: signed or rectified, projecting or not
    "Res16UNet34D": "Res16UNet14AR",
    "Res16UNet34C": "Res16UNet14A",
    "Res16UNet34D_Proj": "Res16UNet14AR_Proj",
    "Res16UNet34CR_Proj": "Res16UNet14AR_Proj",
    "insseg_Res16UNet34C": "insseg_Res16UNet14A",
    "insseg_Res16UNet34D": "insseg_Res16UNet14A",
}
QUICK = ["data.voxel_size=0.1", "data.workers=0", "epochs=1", "data.batch_size=2"]


@pytest.fixture(scope="module")
def rare_store(store, tmp_path_factory):
    """Two training scenes and one for validation whose chair is of a tail class; with its bank of objects."""
    root = tmp_path_factory.mktemp("rare")
    labels = load_labels("scannet200")
    for split, names in (("train", ("scene0000_00", "scene0001_00")), ("val", ("scene0006_00",))):
        for name in names:
            folder = root / split / name
            shutil.copytree(store / split / name, folder)
            label = np.load(folder / "segment200.npy")
            label[label == labels.names.index("chair")] = labels.splits["tail"][0]
            np.save(folder / "segment200.npy", label)
    build_bank(root, workers=1)
    return root


@pytest.fixture(scope="module")
def fitting_anchors(tmp_path_factory):
    """As wide as the features of the smallest networks."""
    path = tmp_path_factory.mktemp("anchors") / "anchors.safetensors"
    names = load_labels("scannet200").names
    save_anchors(
        Anchors(torch.randn(200, 96, generator=torch.Generator().manual_seed(0)), names, "", ""), path
    )
    return path


@pytest.mark.parametrize(("stage", "name"), [pair for pair in ALL if pair[1] != "demo"])
def test_every_recipe_trains(rare_store, fitting_anchors, tmp_path, stage, name):
    """As it is but for the size of network and voxels; a pretraining that comes before really does."""
    recipe = load_recipe(name, stage)
    overrides = [*QUICK, f"data.root={rare_store}", f"text.anchors={fitting_anchors}"]
    overrides.append(f"network.name={SMALLEST[recipe.network.name]}")
    if recipe.before:
        network = SMALLEST[recipe.before.network.name]
        overrides += [f"before.network.name={network}", "before.epochs=1", "before.data.batch_size=2"]
    recipe = load_recipe(name, stage, overrides)
    train(recipe, tmp_path / "run")
    with open(tmp_path / "run" / "log.csv") as file:
        (row,) = csv.DictReader(file)
    parts = {key: float(value) for key, value in row.items() if key.startswith("loss_")}
    assert float(row["loss"]) == pytest.approx(sum(parts.values()), rel=1e-4) and float(row["loss"]) > 0
    model = load_model(tmp_path / "run")
    assert model.name == recipe.network.name and model.has_classifier == (stage != "pretrain")
    assert ((tmp_path / "run" / "class_weights.csv").exists()) == (recipe.loss.class_weights != "none")


@pytest.mark.parametrize("mode", ["raw", "latent"])
def test_attributed_names_train(rare_store, tmp_path, mode):
    """From the objects that the data changes, or the features that the loss does, to the forms of the anchors."""
    names = load_labels("scannet200").names
    vectors = torch.randn(200, 9, 96, generator=torch.Generator().manual_seed(0))
    save_anchors(Anchors(vectors, names, "", ""), tmp_path / "forms.safetensors")
    overrides = [f"data.root={rare_store}", f"text.anchors={tmp_path / 'forms.safetensors'}"]
    overrides += ["network.name=Res16UNet14AR", f"attributes.mode={mode}"]
    train(load_recipe("34D", "pretrain", [*QUICK, *overrides]), tmp_path / "run")
    assert load_model(tmp_path / "run").anchors.shape == (200, 96)


def test_the_overlap_is_of_plain_names_whatever_the_features_are_changed_to(rare_store, tmp_path):
    names = load_labels("scannet200").names
    vectors = torch.randn(200, 9, 96, generator=torch.Generator().manual_seed(0))
    save_anchors(Anchors(vectors, names, "", ""), tmp_path / "forms.safetensors")
    overrides = [*QUICK, f"data.root={rare_store}", f"text.anchors={tmp_path / 'forms.safetensors'}"]
    overrides += ["network.name=Res16UNet14AR", "loss.lovasz=1", "attributes.latent_probability=1"]
    parts = {}
    for mode in ("none", "latent"):
        train(load_recipe("34D", "pretrain", [*overrides, f"attributes.mode={mode}"]), tmp_path / mode)
        with open(tmp_path / mode / "log.csv") as file:
            (parts[mode],) = csv.DictReader(file)
    assert parts["none"]["loss_contrastive"] != parts["latent"]["loss_contrastive"]
    assert float(parts["none"]["loss_lovasz"]) == pytest.approx(
        float(parts["latent"]["loss_lovasz"]), rel=1e-5
    )


@pytest.mark.parametrize("setting", LIMITED)
def test_a_recipe_with_its_limited_annotation_trains_on_those_labels(rare_store, tmp_path, setting):
    """By the counts that its class weights were made of."""
    limit_annotation(rare_store, [setting], workers=1)
    overrides = [*QUICK, f"data.root={rare_store}", "network.name=Res16UNet14AR"]
    train(load_recipe(f"focal-34D@{setting}", "finetune", overrides), tmp_path / "run")
    with open(tmp_path / "run" / "class_weights.csv") as file:
        points = sum(int(row["points"]) for row in csv.DictReader(file))
    by_scene = setting.startswith("scenes-")
    folders = list_scenes(rare_store, "train", subset=setting if by_scene else None)
    seen = [np.load(folder / "segment200.npy") >= 0 for folder in folders]
    if not by_scene:
        seen = [s & np.load(f / f"annotated.{setting}.npy") for s, f in zip(seen, folders, strict=True)]
    assert points == sum(int(s.sum()) for s in seen) > 0
    kind, _, amount = setting.partition("-")
    assert kind != "scene" or points == 2 * int(amount)


def test_hidden_labels_have_no_say_in_what_a_voxel_is(rare_store):
    """Where all vertices of a voxel must agree, those hidden by limited annotation would not."""
    limit_annotation(rare_store, ["object-0.05"], workers=1)
    changes = [f"data.root={rare_store}", "data.voxel_size=0.1", "network.weights=none"]
    recipe = load_recipe("ours-34C@object-0.05", "instances", changes)
    assert recipe.data.reduce == "agreed"
    for scene in (open_datasets(recipe)[0][0, i] for i in range(2)):
        seen = {voxel for voxel, label in zip(scene.inverse, scene.vertex_labels, strict=True) if label >= 0}
        assert 20 < len(seen - {-1}) == np.count_nonzero(scene.labels >= 0)
