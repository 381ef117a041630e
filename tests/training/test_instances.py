"""The instance stage: its labels and targets, its loss, its weights, its scores, and whole runs."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from lground import losses
from lground.cli import main
from lground.data import Sample, SceneDataset, build_loader, collate
from lground.data.mixing import mix
from lground.data.scenes import voxelize_sample
from lground.errors import InputError
from lground.instances import Grouping, find_objects, panoptic
from lground.labels import load_labels
from lground.metrics import PanopticEvaluator, instance_ap
from lground.models import Model, build, load_model, save_model
from lground.predict import evaluate
from lground.scannet import list_scenes, open_scene
from lground.scannet.benchmark import ground_truth_ids
from lground.training import Evaluation, ObjectEvaluation, load_recipe, shipped
from lground.training.score import sparse_input
from lground.training.stages import build_stage

LABELS = load_labels("scannet200")
NETWORK = "network.name=insseg_Res16UNet14A"


def sample(points: np.ndarray, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    n = len(points)
    colors = rng.integers(0, 256, (n, 3)).astype(np.uint8)
    return Sample(f"room{seed}", points, colors, rng.integers(-1, 2, n), rng.integers(-1, 3, n))


clouds = arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-1, 1, width=32))


@given(clouds, st.integers(0, 2**32))
def test_a_voxel_whose_vertices_disagree_is_ignored(points, seed):
    """In the very voxel where they do, and there alone; a mixed instance costs the instance, not the label."""
    made = sample(points, seed)
    first, agreed = (voxelize_sample(made, 0.5, reduce) for reduce in ("first", "agreed"))
    for name in ("coordinates", "colors", "attributes", "inverse", "vertex_labels", "vertex_instances"):
        assert np.array_equal(getattr(agreed, name), getattr(first, name))
    for voxel in range(len(agreed)):
        inside = agreed.inverse == voxel
        labels, instances = set(made.labels[inside].tolist()), set(made.instances[inside].tolist())
        label = labels.pop() if len(labels) == 1 else -1
        assert agreed.labels[voxel] == label
        assert agreed.instances[voxel] == (instances.pop() if label >= 0 and len(instances) == 1 else -1)


@given(clouds, clouds, st.integers(0, 2**32))
def test_instances_of_vertices_go_along_when_scenes_are_mixed(points, others, seed):
    """Of both scenes, and no two objects share a number; a voxel has the number of its first vertex."""
    one, other = (
        voxelize_sample(sample(p, s), 0.3, "first") for p, s in ((points, seed), (others, seed + 1))
    )
    mixed, count = mix(one, other), len(one.vertex_instances)
    assert np.array_equal(mixed.vertex_instances[:count], one.vertex_instances)
    moved = mixed.vertex_instances[count:]
    assert np.array_equal(moved < 0, other.vertex_instances < 0)
    shift = (moved - other.vertex_instances)[moved >= 0]
    assert len(set(shift.tolist())) <= 1 and (shift > one.vertex_instances.max(initial=-1)).all()
    vertices = np.unique(mixed.inverse, return_index=True)[1]
    assert np.array_equal(mixed.instances, mixed.vertex_instances[vertices])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stage(scenes=None, *changes: str):
    torch.manual_seed(0)
    return build_stage(load_recipe("demo", "instances", changes), LABELS, scenes)


@pytest.fixture(scope="module")
def scenes(store):
    return SceneDataset(store, "train", voxel_size=0.1)


@pytest.fixture(scope="module")
def batch(scenes):
    """Three scenes; the numbers of their objects are the same, their places are not."""
    return collate([scenes[0, k] for k in range(3)])[0]


@pytest.fixture(scope="module")
def made():
    return stage()


@given(st.data())
def test_targets_point_at_the_mean_voxel_of_the_object_in_its_scene(made, data):
    """Against a slow statement: several scenes, any numbers of objects, unlabelled voxels, floors and walls."""
    size = data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    coordinates = np.c_[np.sort(rng.integers(0, 3, size)), rng.integers(-900, 900, (size, 3))]
    classes = [LABELS.names.index(name) for name in ("floor", "wall", "chair", "table")]
    labels = rng.choice([-1, *classes], size)
    instances = rng.choice([-1, 0, 1, 7, 2**40], size)
    batch = collate([voxelize_sample(sample(np.zeros((1, 3)), 0), 1.0, "first")])[0]
    for name, values in (("labels", labels), ("instances", instances)):
        object.__setattr__(batch, name, torch.from_numpy(values))

    objects = made.objects(batch)
    centers = losses.object_centers(torch.from_numpy(coordinates.astype(np.int32)), objects)
    assert centers.dtype == torch.float32
    counted = 0
    for row in range(size):
        if labels[row] < 0 or not LABELS.instance_class[labels[row]] or instances[row] < 0:
            assert objects[row] == -1
            continue
        counted += 1
        same = [
            coordinates[other, 1:]
            for other in range(size)
            if coordinates[other, 0] == coordinates[row, 0]
            and instances[other] == instances[row]
            and labels[other] >= 0
            and LABELS.instance_class[labels[other]]
        ]
        np.testing.assert_allclose(centers[row], np.mean(same, axis=0), rtol=1e-6)
        assert objects[row] == instances[row]
    assert made.counted(batch).tolist() == [int((labels >= 0).sum()), counted]


def test_terms_of_the_loss_are_those_of_the_published_definition(made, batch):
    """Cross-entropy and both losses of offsets in metres; twice the weight is twice the term."""
    made.train()
    loss = made(batch, seeded())
    offsets, logits, _ = made.model.with_offsets(sparse_input(batch))
    terms = [losses.cross_entropy(logits, batch.labels)]
    objects = made.objects(batch)
    numbers, true = batch.coordinates[:, 0] * 10 + objects, objects >= 0
    places = batch.coordinates[:, 1:].float()
    centers = torch.stack([places[(numbers == n) & true].mean(0) for n in numbers])
    target = (centers - places)[true] * 0.1
    terms.append((offsets[true] - target).abs().sum(1).mean())
    terms.append(-torch.cosine_similarity(offsets[true], target).mean())
    names = "cross_entropy", "offset_norm", "offset_direction"
    expected = {name: pytest.approx(term.item(), rel=1e-4) for name, term in zip(names, terms, strict=True)}
    assert made.parts == expected
    assert loss.tolist() == pytest.approx([terms[0].item(), (terms[1] + terms[2]).item()], rel=1e-4)
    twice = stage(None, "loss.offset_norm=2", "loss.offset_direction=0.5")
    twice(batch, seeded())
    ratios = {name: twice.parts[name] / made.parts[name] for name in names}
    assert ratios == {names[0]: pytest.approx(1), names[1]: pytest.approx(2), names[2]: pytest.approx(0.5)}


def test_every_parameter_learns_even_without_an_object(batch):
    """Parameters without a gradient would stop training on several GPUs."""
    bare = collate(batch.scenes)[0]
    bare.instances.fill_(-1)
    for one, learns in ((batch, True), (bare, False)):
        made = stage()
        made(one, seeded()).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
        assert made.model.network.offsets.kernel.grad.any() == learns
        assert made.model.network.final.kernel.grad.any()
    assert made.parts["offset_norm"] == made.parts["offset_direction"] == 0


@pytest.fixture(scope="module")
def trained(store, anchors, tmp_path_factory):
    """Weights of every kind to start from: run folders of a pretraining and a fine-tuning, and a network's own."""
    out = tmp_path_factory.mktemp("trained")
    quick = [f"data.root={store}", "data.voxel_size=0.15", "epochs=1", "validate_every=1", "--out"]
    line = ["pretrain", "demo", f"text.anchors={anchors}", *quick, str(out / "pretrained")]
    assert main(line) == 0
    assert main(["finetune", "demo", *quick, str(out / "finetuned")]) == 0
    assert main(["instances", "demo", *quick, str(out / "instances")]) == 0
    save_model(Model.fresh("Res16UNet14AR", load_labels("scannet20"), 0.1), out / "other.safetensors")
    return out


@pytest.mark.parametrize(
    ("weights", "fresh"),
    [
        ("pretrained", ("final.", "offsets", "bntr_offset.")),
        ("finetuned", ("offsets", "bntr_offset.")),
        ("instances", ()),
        ("other.safetensors", ("final.", "offsets", "bntr_offset.")),
    ],
)
def test_weights_are_loaded_and_only_the_heads_they_lack_are_fresh(scenes, trained, weights, fresh, capsys):
    started = stage(scenes, f"network.weights={trained / weights}").model.network.state_dict()
    said = capsys.readouterr().err
    old = load_model(trained / weights).network.state_dict()
    for name, tensor in started.items():
        if fresh and name.startswith(fresh):
            assert name not in old or old[name].shape != tensor.shape
        else:
            assert torch.equal(tensor, old[name]), name
    assert f"{trained / weights}: loaded, all but" in said
    assert ("a new classifier" in said) == (weights == "other.safetensors")


def test_a_classifier_may_start_at_the_anchors(scenes, trained):
    changes = f"network.weights={trained / 'pretrained'}", "network.classifier=anchors", "loss.language=0.5"
    made, pretrained = stage(scenes, *changes), load_model(trained / "pretrained")
    anchors = pretrained.project(pretrained.anchors).relu()
    cosines = torch.cosine_similarity(anchors.T, made.model.network.final.kernel, dim=0)
    torch.testing.assert_close(cosines, torch.ones(200))
    made(collate([scenes[0, 0]])[0], seeded())
    assert list(made.parts) == ["cross_entropy", "language", "offset_norm", "offset_direction"]


BEFORE = [name for name in shipped("instances") if load_recipe(name, "instances").before]


@pytest.mark.parametrize("name", BEFORE)
def test_weights_of_the_pretraining_fit(name):
    """At full size, without allocating it; a fine-tuned network of the same width fits, too."""
    recipe = load_recipe(name, "instances")
    with torch.device("meta"):
        new = build(recipe.network.name).state_dict()
        pretrained = build(recipe.before.network.name, representation_only=True).state_dict()
        finetuned = build(recipe.network.name.removeprefix("insseg_")).state_dict()
    heads = "offsets_pre.", "bntr_offset.", "offsets."
    for old, fresh in ((pretrained, ("final.", *heads)), (finetuned, heads)):
        assert all(key.startswith(fresh) or old[key].shape == tensor.shape for key, tensor in new.items())
        assert all(key in new or key.startswith("projection_layer.") for key in old)


def test_recipes_on_pretrained_weights_bring_their_pretraining():
    assert set(shipped("instances")) - set(BEFORE) == {"scratch-34C", "scratch-34D", "csc-34C", "demo"}
    changed = load_recipe("ours-34C@object-0.05", "instances", ["before.epochs=7", "data.root=here"])
    assert (changed.before.epochs, changed.before.data.annotation) == (7, "object-0.05")
    assert changed.before.stage == "pretrain" and changed.before.data.root == "here"


@pytest.mark.parametrize(
    ("verb", "change", "words"),
    [
        ("instances", "network.name=Res16UNet34C", "Res16UNet34C.*insseg_.*head for offsets"),
        ("finetune", "network.name=insseg_Res16UNet34C", "insseg_Res16UNet34C.*lground instances"),
        ("instances", "network.classifier_only=true", "classifier_only"),
        ("instances", "network.classifier=anchors", "network.weights=FILE"),
        ("instances", "network.weights=nowhere.ckpt", "nowhere.ckpt: no such file"),
        ("instances", "loss.name=contrastive", "cross_entropy, focal"),
        ("instances", "loss.language=1", "text anchors"),
        ("instances", "attributes.mode=raw", "attributes.mode"),
        ("instances", "data.reduce=last", "first, majority, agreed"),
        ("instances", "stage=finetune", "lground finetune"),
    ],
)
def test_a_wrong_recipe_is_one_line(store, tmp_path, capsys, verb, change, words):
    line = [verb, "demo", f"data.root={store}", change, "--out", str(tmp_path / "run")]
    assert main(line) == 2
    said = capsys.readouterr().err.strip().splitlines()
    with pytest.raises(InputError, match=words):
        raise InputError(said[-1])
    assert len(said) == 1 and not (tmp_path / "run").exists()


def test_weights_of_another_width_are_one_line(scenes, tmp_path):
    save_model(Model.fresh("Res16UNet14", LABELS, 0.1), tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"wide\.safetensors: weights of another network"):
        stage(scenes, f"network.weights={tmp_path / 'wide.safetensors'}")


def weights_of(run, name: str = "last.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run / name)


def log_of(run) -> list[dict[str, str]]:
    with open(run / "log.csv") as file:
        return list(csv.DictReader(file))


def metrics_of(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def uneven(store, tmp_path_factory):
    """Scenes whose shares of voxels of objects differ: every other one has lost its table and its floor's label."""
    root = tmp_path_factory.mktemp("uneven")
    for number, source in enumerate(sorted(store.glob("*/*"))):
        target = root / source.parent.name / source.name
        target.mkdir(parents=True)
        arrays = {path.name: np.load(path) for path in source.glob("*.npy")}
        if number % 2:
            keep = arrays["instance.npy"] != 3
            arrays = {name: array[keep] for name, array in arrays.items()}
            arrays["segment200.npy"][arrays["instance.npy"] == 0] = -1
        for name, array in arrays.items():
            np.save(target / name, array)
        (target / "scene.json").write_text((source / "scene.json").read_text())
    return root


PLAIN = ["optimizer.name=sgd", "optimizer.lr=0.05", "optimizer.momentum=0", "optimizer.dampening=0"]
PLAIN += ["schedule.name=constant", "epochs=1", "validate_every=1"]


def test_two_processes_give_the_update_of_one(uneven, trained, tmp_path):
    """Offsets are averaged over the voxels of objects of both, which have different shares of them; so is AP."""
    start = trained / "instances"
    # Voxels of 10 cm leave so few at the coarsest level that a ReLU which rounding decides moves weights by a percent.
    line = ["instances", "demo", f"data.root={uneven}", "data.voxel_size=0.05", *PLAIN]
    line += [f"network.weights={start}", "--out"]
    assert main([*line, str(tmp_path / "one"), "data.batch_size=2"]) == 0
    assert main([*line, str(tmp_path / "two"), "data.batch_size=1", "devices=2"]) == 0
    start, one, two = (weights_of(run) for run in (start, tmp_path / "one", tmp_path / "two"))
    learned = [name for name in one if name.endswith(("kernel", "weight", "bias"))]
    moved, apart = (
        torch.cat([(one[name] - other[name]).flatten() for name in learned]).norm() for other in (start, two)
    )
    assert apart < 0.01 * moved
    for first, second in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for key in first:
            if key.startswith("loss"):
                assert float(first[key]) == pytest.approx(float(second[key]), rel=1e-4)
    objects = [metrics_of(tmp_path / run)["objects"] for run in ("one", "two")]
    assert objects[0]["objects"] == objects[1]["objects"] == 3
    assert [c["objects"] for c in objects[0]["classes"]] == [c["objects"] for c in objects[1]["classes"]]


def test_one_pass_and_several_have_the_same_gradient(scenes):
    """The part of `_update` that weighs passes, as arithmetic: shares of each kind of voxel."""
    batches = [collate([scenes[0, k]])[0] for k in range(3)]
    batches[1].labels[batches[1].labels == LABELS.names.index("floor")] = -1
    batches[2].instances.fill_(-1)
    made = stage().eval()  # without batch statistics, which see the whole batch only in one pass
    counts = [made.counted(batch) for batch in batches]
    totals = torch.stack(counts).sum(0)
    parts = sum(((made(b, seeded()) * c / totals).sum() for b, c in zip(batches, counts, strict=True)))
    whole = collate([batch.scenes[0] for batch in batches])[0]
    whole.labels.copy_(torch.cat([batch.labels for batch in batches]))
    whole.instances.copy_(torch.cat([batch.instances for batch in batches]))
    together = made(whole, seeded()).sum()
    assert parts.item() == pytest.approx(together.item(), rel=1e-5)
    first, second = (torch.autograd.grad(x, made.model.network.offsets.kernel)[0] for x in (parts, together))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_a_terminated_run_goes_on_bit_for_bit(store, tmp_path, forked):
    line = ["instances", "demo", f"data.root={store}", NETWORK, "data.voxel_size=0.15", "data.mix=0.5"]
    line += ["epochs=3", "validate_every=1", "augment.dropout=0.5", "checkpoint_every=1", "--out"]
    assert forked([*line, str(tmp_path / "whole")])[0] == 0
    out = tmp_path / "ended"
    code, said = forked([*line, str(out)], 15, 0.2, out / "recipe.yaml")
    assert code == 143 and "terminated, saved after update" in said, said
    assert forked([*line, str(out), "--resume"])[0] == 0
    for name in ("best.safetensors", "last.safetensors"):
        one, two = weights_of(tmp_path / "whole", name), weights_of(out, name)
        assert all(torch.equal(one[key], two[key]) for key in one)
    timed = ("seconds", "scenes_per_second", "waiting")
    rows = [
        [{k: v for k, v in r.items() if k not in timed} for r in log_of(run)]
        for run in (tmp_path / "whole", out)
    ]
    assert rows[0] == rows[1]
    assert metrics_of(tmp_path / "whole") == metrics_of(out)


def write_room(folder, seed: int) -> None:
    """Floor, wall, a table and two chairs of one colour, a gap of 20 cm between them."""
    rng = np.random.default_rng(seed)
    parts = [
        ("floor", rng.uniform((0, 0, 0), (2, 2, 0.01), (900, 3)), (120, 90, 60)),
        ("wall", rng.uniform((0, 0, 0), (2, 0.01, 1.5), (900, 3)), (200, 200, 190)),
        ("chair", rng.uniform((0.2, 0.8, 0.1), (0.6, 1.2, 0.5), (400, 3)), (200, 40, 40)),
        ("chair", rng.uniform((0.8, 0.8, 0.1), (1.2, 1.2, 0.5), (400, 3)), (200, 40, 40)),
        ("table", rng.uniform((1.4, 1.2, 0.4), (1.9, 1.8, 0.5), (400, 3)), (40, 60, 200)),
    ]
    sizes = [len(points) for _, points, _ in parts]
    label = np.repeat([LABELS.names.index(name) for name, _, _ in parts], sizes).astype(np.int16)
    color = np.repeat([color for _, _, color in parts], sizes, axis=0)
    folder.mkdir(parents=True)
    arrays = {
        "coord": np.concatenate([points for _, points, _ in parts]).astype(np.float32),
        "color": (color + rng.integers(-10, 10, color.shape)).astype(np.uint8),
        "segment200": label,
        "segment20": np.minimum(label, 19),
        "instance": np.repeat(np.arange(5), sizes).astype(np.int32),
        "superpoint": np.zeros(len(label), np.int32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "scene.json").write_text(json.dumps({"name": folder.name}))


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """The demo recipe's run on copies of one room, which it is validated on, too; and the store."""
    root = tmp_path_factory.mktemp("room")
    for number in range(4):
        write_room(root / "train" / f"scene000{number}_00", 0)
    write_room(root / "val" / "scene0004_00", 0)
    line = [
        "instances",
        "demo",
        f"data.root={root}",
        "data.voxel_size=0.08",
        "data.batch_size=2",
        "epochs=20",
    ]
    line += ["augment.rotation=false", "augment.scale=[1,1]", "validate_every=5"]
    assert main([*line, "--out", str(root / "run")]) == 0
    return root


def test_a_room_that_is_learned_by_heart_is_found_again(overfitted):
    """Forty updates: an untrained network finds no object at an IoU of 0.5, this one most of them."""
    objects = metrics_of(overfitted / "run")["objects"]
    means = objects["means"]["all"]
    assert objects["objects"] == 3 and means["classes_present"] == 2
    assert means["ap50"] >= 0.75, means
    first, *_, last = log_of(overfitted / "run")
    assert float(last["loss_offset_norm"]) < 0.4 * float(first["loss_offset_norm"])
    assert float(last["loss_offset_direction"]) < -0.7
    untrained = ObjectEvaluation(LABELS)
    torch.manual_seed(0)
    val = SceneDataset(overfitted, "val", voxel_size=0.08)
    model = Model.fresh("insseg_Res16UNet14A", LABELS, 0.08)
    untrained.run(model.eval(), build_loader(val, 1), "cpu")
    assert untrained.metrics()["objects"]["means"]["all"]["ap50"] < 0.25


def test_scores_are_ap_and_pq_of_found_objects_on_vertices(overfitted):
    """Against the parts, one after another; and what training wrote is the score of its best weights."""
    model = load_model(overfitted / "run")
    val = SceneDataset(overfitted, "val", voxel_size=0.08)
    (folder,) = list_scenes(overfitted, "val")
    scene, (voxels,) = open_scene(folder), [val[0, 0]]
    with torch.no_grad():
        offsets, logits, _ = model.with_offsets(sparse_input(collate([voxels])[0]))
    centers = (voxels.coordinates + 0.5).astype(np.float32) * 0.08
    labels = logits.argmax(1).numpy()[voxels.inverse]
    for grouping in (None, Grouping(radius=0.12, min_points=3, max_objects=1)):
        found = find_objects(
            centers,
            offsets.numpy(),
            logits.softmax(1).numpy(),
            LABELS.instance_class,
            grouping or Grouping.for_voxels(0.08),
        ).on_vertices(voxels.inverse)
        truth = ground_truth_ids(scene.segment("scannet200"), scene.instance, LABELS)
        expected = instance_ap(
            [(truth, found.masks, LABELS.ids[found.labels], found.scores)], LABELS.ids[LABELS.instance_class]
        )
        segments = PanopticEvaluator(LABELS)
        each_once = panoptic(found, labels, LABELS.instance_class)
        segments.add(scene.segment("scannet200"), scene.instance, *each_once)
        scored = evaluate(model, overfitted, "val", instances=True, grouping=grouping)
        np.testing.assert_array_equal(scored.objects.scores().table, expected.table)
        assert scored.metrics()["panoptic"] == segments.scores().as_dict()
        assert np.nanmax(expected.table) > 0 and segments.scores().mean("things").pq > 0
        if grouping is None:
            trained = metrics_of(overfitted / "run")
            assert scored.metrics() == {key: trained[key] for key in trained if key != "epoch"}
        else:  # one of three objects
            assert np.nanmean(expected.ap50) <= 0.5
    plain = evaluate(model, overfitted, "val")
    assert all(torch.equal(a, b) for a, b in zip(plain.confusion, scored.confusion, strict=True))


def test_objects_of_several_scenes_in_one_batch_stay_apart(overfitted):
    """As many scenes as a batch has, with the scores of one after another."""
    model, train = load_model(overfitted / "run"), SceneDataset(overfitted, "train", voxel_size=0.08)
    one, three = ObjectEvaluation(LABELS), ObjectEvaluation(LABELS)
    for evaluation, size in ((one, 1), (three, 3)):
        evaluation.run(model, build_loader(train, size), "cpu")
    assert one.metrics() == three.metrics()
    assert one.objects.scores().objects.sum() == 12


def scored(ap50: float | None, miou: float | None) -> dict:
    return {"objects": {"means": {"all": {"ap50": ap50}}}, "vertex": {"means": {"all": {"mean_iou": miou}}}}


def test_the_best_weights_have_the_highest_ap50_and_among_equals_the_highest_miou():
    rank = ObjectEvaluation(LABELS).rank
    order = [(None, 0.9), (0.0, None), (0.0, 0.2), (0.1, 0.1), (0.1, 0.3), (0.2, 0.0)]  # worst first
    ranks = [rank(scored(*pair)) for pair in order]
    assert ranks == sorted(ranks) and len(set(map(tuple, ranks))) == len(order)
    assert rank(scored(None, None)) is None
    plain = Evaluation(LABELS).rank
    assert plain(scored(0.9, 0.2)) < plain(scored(0.1, 0.3)) and plain(scored(0.9, None)) is None


def test_training_keeps_the_weights_of_the_highest_ap50(overfitted):
    rows = [row for row in log_of(overfitted / "run") if row["val_ap50"]]
    best = max(rows, key=lambda row: (float(row["val_ap50"]), float(row["val_miou"])))
    metrics = metrics_of(overfitted / "run")
    assert metrics["epoch"] == int(best["epoch"])
    assert metrics["objects"]["means"]["all"]["ap50"] == float(best["val_ap50"])
    assert metrics["objects"]["means"]["all"]["ap"] == float(best["val_ap"])
    assert metrics["vertex"]["means"]["all"]["mean_iou"] == float(best["val_miou"])


def test_the_demo_on_made_up_rooms_as_a_user_runs_it(tmp_path, capsys):
    """Rooms, their preparation, training from fine-tuned weights in bf16, and scores: all by command."""
    rooms, store, runs = (str(tmp_path / name) for name in ("rooms", "store", "runs"))
    assert (
        main(
            [
                "synth",
                rooms,
                "--train",
                "2",
                "--val",
                "1",
                "--test",
                "0",
                "--size",
                "small",
                "--spacing",
                "0.04",
            ]
        )
        == 0
    )
    assert main(["prepare", rooms, store]) == 0
    common = [f"data.root={store}", "data.voxel_size=0.15", "epochs=2"]
    assert main(["finetune", "demo", *common, "--out", f"{runs}/classes"]) == 0
    capsys.readouterr()
    line = ["instances", "demo", *common, f"network.weights={runs}/classes", "precision=bf16"]
    assert main([*line, "data.reduce=agreed", "augment.elastic=true", "--out", f"{runs}/objects"]) == 0
    said = capsys.readouterr()
    assert "instances: epoch 2 is the best" in said.out and "val AP all: " in said.out
    assert main([*line, "--out", f"{runs}/objects"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    model = load_model(f"{runs}/objects")
    assert model.has_offsets and model.has_classifier and "insseg_Res16UNet14A" in model.recipe
    assert metrics_of(tmp_path / "runs" / "objects")["objects"]["objects"] > 0
