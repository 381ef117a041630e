"""Stages as modules: what their loss is made of, what they learn, what they refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lground import losses
from lground.data import SceneDataset, collate
from lground.errors import InputError
from lground.labels import load_labels
from lground.models import TEMPERATURE, Model, load_model, save_model
from lground.text import Anchors, load_anchors, save_anchors
from lground.training.recipe import load_recipe
from lground.training.score import sparse_input
from lground.training.stages import build_stage
from lground.training.stages.finetuning import fitting_temperature

LABELS = load_labels("scannet200")
SMALL = ["data.voxel_size=0.1", "network.bn_momentum=0.1"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes(store):
    return SceneDataset(store, "train", voxel_size=0.1)


@pytest.fixture(scope="module")
def batch(scenes):
    """Two scenes, their classes renamed: floor and wall stay, chair and table become two tail classes."""
    (made,) = collate([scenes[0, 0], scenes[0, 1]])
    tail = LABELS.splits["tail"]
    names = torch.arange(len(LABELS))
    names[[LABELS.names.index("chair"), LABELS.names.index("table")]] = torch.tensor([tail[0], tail[1]])
    labels = torch.where(made.labels < 0, -1, names[made.labels.clamp(min=0)])
    made.labels.copy_(labels)
    return made


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Anchors (200, 9, 96) with attributed forms that are near their names."""
    path = tmp_path_factory.mktemp("forms") / "forms.safetensors"
    names = torch.randn(200, 1, 96, generator=seeded())
    shifts = 0.5 * torch.randn(1, 8, 96, generator=seeded(1))
    vectors = torch.cat([names, names + shifts + 0.1 * torch.randn(200, 8, 96, generator=seeded(2))], 1)
    save_anchors(Anchors(vectors, LABELS.names, "random", "{}"), path)
    return path


@pytest.fixture(scope="module")
def wide(forms, tmp_path_factory):
    """Anchors (200, 24): another width."""
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    vectors = torch.randn(200, 24, generator=seeded(3))
    save_anchors(Anchors(vectors, LABELS.names, "random", "{}"), path)
    return path


def stage(which: str, name: str, scenes=None, *changes: str):
    torch.manual_seed(0)
    recipe = load_recipe("demo", which, [*SMALL, f"network.name={name}", *changes])
    return build_stage(recipe, LABELS, scenes)


def pretraining(anchors, *changes: str, name: str = "Res16UNet14AR"):
    return stage("pretrain", name, None, f"text.anchors={anchors}", "text.projection=learned", *changes)


@pytest.fixture(scope="module")
def weights(wide, tmp_path_factory):
    """Pretrained with a projection to 96 of anchors that are 24 wide; weights as they were drawn."""
    path = tmp_path_factory.mktemp("weights") / "pretrained.safetensors"
    save_model(pretraining(wide, name="Res16UNet14AR_Proj").model, path)
    return path


LANGUAGE = ("contrastive", "contrastive_ce", "l2")


@pytest.mark.parametrize("mode", ["none", "raw", "latent"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_every_language_loss_with_every_kind_of_attribute(batch, forms, name, mode):
    """The loss is the sum of its parts and goes down a step along its gradient."""
    made = pretraining(forms, f"loss.name={name}", f"attributes.mode={mode}")
    batch = with_attributes(batch, torch.randint(0, 9, batch.labels.shape, generator=seeded()))
    first = made(batch, seeded(7))
    assert made.parts == {name: pytest.approx(first.item())}
    first.backward()
    used = [p for p in made.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used)
    norm = torch.sqrt(sum(p.grad.square().sum() for p in used))
    with torch.no_grad():
        for p in used:
            p -= 0.05 * p.grad / norm
    assert made(batch, seeded(7)) < first


@pytest.mark.parametrize("name", ["Res16UNet14AR", "Res16UNet14AR_Proj"])
def test_points_against_points_leave_nothing_without_a_gradient(batch, forms, name):
    """Parameters without one would stop training on several GPUs."""
    made = pretraining(forms, "loss.name=supcon", name=name)
    loss = made(batch, seeded())
    loss.backward()
    assert made.parts == {"supcon": pytest.approx(loss.item())}
    assert all((p.grad is not None) == p.requires_grad for p in made.parameters())
    labelled = int((batch.labels >= 0).sum())
    assert made.confusion.sum() == labelled
    made.confusion.fill_(2**30)  # single precision would count no further
    made(batch, seeded())
    assert made.confusion.sum() == 200**2 * 2**30 + labelled


def with_attributes(batch, attributes):
    """The batch with the field that attribute augmentation adds to it."""
    copied = collate(batch.scenes)[0]
    copied.labels.copy_(batch.labels)
    object.__setattr__(copied, "attributes", attributes)
    return copied


def test_raw_attributes_choose_the_form(batch, forms):
    made = pretraining(forms, "attributes.mode=raw", "loss.name=contrastive_ce").eval()
    plain = pretraining(forms, "loss.name=contrastive_ce").eval()
    assert plain.anchors.shape == (200, 9, 96) and torch.equal(made.model.anchors, plain.model.anchors)
    zeros = torch.zeros_like(batch.labels)
    same = made(with_attributes(batch, zeros), seeded())
    torch.testing.assert_close(same, plain(batch, seeded()))
    features = made.model.network(sparse_input(batch)).features
    big = losses.language_cross_entropy(
        features, torch.stack([batch.labels, zeros + 7], 1), made.anchors, made.loss.temperature
    )
    torch.testing.assert_close(made(with_attributes(batch, zeros + 7), seeded()), big)


def test_latent_attributes_change_tail_classes_alone(batch, forms):
    """Maps fitted on the anchors bring a name to its form; head classes keep feature and name."""
    made = pretraining(forms, "attributes.mode=latent", "attributes.latent_probability=1")
    own = batch.labels.clamp(min=0)
    tail = torch.isin(batch.labels, torch.tensor(LABELS.splits["tail"]))
    assert tail.any() and (~tail).any()
    features, labels = made._attributed(made.anchors[own, 0], batch.labels, seeded())
    assert torch.equal(labels[:, 0], batch.labels)
    assert (labels[tail, 1] > 0).all() and not labels[~tail, 1].any()
    assert torch.equal(features[~tail], made.anchors[own[~tail], 0])
    at_form = torch.cosine_similarity(features[tail], made.anchors[own[tail], labels[tail, 1]])
    at_name = torch.cosine_similarity(features[tail], made.anchors[own[tail], 0])
    assert at_form.min() > 0.97 > at_name.max()
    assert not [p for p in made.attribute_maps.parameters() if p.requires_grad]
    never = pretraining(forms, "attributes.mode=latent", "attributes.latent_probability=0")
    assert not never._attributed(made.anchors[own, 0], batch.labels, seeded())[1][:, 1].any()


def test_latent_attributes_live_where_a_fixed_projection_puts_them(batch, tmp_path):
    vectors = torch.randn(200, 9, 24, generator=seeded())
    save_anchors(Anchors(vectors, LABELS.names, "random", "{}"), tmp_path / "a.safetensors")
    arguments = (tmp_path / "a.safetensors", "attributes.mode=latent")
    made = pretraining(*arguments, "text.projection=pca", name="Res16UNet14AR_Proj")
    assert made(batch, seeded()).isfinite()
    with pytest.raises(InputError, match=r"text\.projection=pca"):
        pretraining(*arguments, name="Res16UNet14AR_Proj")


def test_a_learned_temperature_starts_where_the_fixed_one_is(batch, forms):
    changes = "loss.name=contrastive_ce", "loss.temperature=0.05"
    fixed = pretraining(forms, *changes)
    made = pretraining(forms, *changes, "loss.temperature_learned=true")
    loss = made(batch, seeded())
    torch.testing.assert_close(loss, fixed(batch, seeded()))
    loss.backward()
    assert made.log_scale.grad.abs() > 0 and "log_scale" in made.state_dict() and fixed.log_scale is None
    with torch.no_grad():
        made.log_scale.fill_(9.0)
    made.after_update()
    assert made.temperature.item() == pytest.approx(0.01)  # the coldest
    made.zero_grad()
    made(batch, seeded()).backward()
    assert made.log_scale.grad.abs() > 0  # from there, too, it can be led back


@pytest.mark.parametrize("mode", ["none", "raw", "latent"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_overlap_of_cosines_is_learned_beside_every_language_loss(batch, forms, name, mode):
    changes = f"loss.name={name}", f"attributes.mode={mode}", "attributes.latent_probability=0"
    made = pretraining(forms, *changes, "loss.temperature=0.05", "loss.lovasz=0.4").eval()
    batch = with_attributes(batch, torch.randint(0, 9, batch.labels.shape, generator=seeded()))
    loss = made(batch, seeded())
    features = made.model.network(sparse_input(batch)).features
    names = load_anchors(forms).plain
    expected = 0.4 * losses.lovasz_softmax(losses.anchor_similarity(features, names) / 0.05, batch.labels)
    assert made.parts["lovasz"] == pytest.approx(expected.item(), rel=1e-5)
    assert list(made.parts) == [name, "lovasz"] and loss.item() == pytest.approx(sum(made.parts.values()))


def test_the_temperature_that_fits_is_found():
    """Labels drawn from the soft-max of cosines at a temperature are likeliest near it."""
    anchors = torch.randn(12, 8, generator=seeded(1))
    features = torch.randn(4000, 8, generator=seeded(2))
    cosines = losses.anchor_similarity(features, anchors)
    for wanted in (0.02, 0.1):
        labels = torch.multinomial((cosines / wanted).softmax(1), 1, generator=seeded(3))[:, 0]
        labels[::3] = -1
        assert wanted / 1.3 < fitting_temperature(features, labels, anchors) < wanted * 1.3
    few = torch.full((4000,), -1)
    assert fitting_temperature(features, few, anchors) == TEMPERATURE
    few[:11] = cosines[:11].argmax(1)
    assert fitting_temperature(features, few, anchors) == TEMPERATURE


def finetuning(scenes, *changes: str, name: str = "Res16UNet14AR"):
    return stage("finetune", name, scenes, *changes)


def test_a_held_out_name_takes_no_part(batch, wide, tmp_path):
    """Neither in the projection nor in any loss; all other names do."""
    held_out = LABELS.names.index("lamp")
    line = "data.hold_out=[lamp]", "text.projection=pca"

    def losses_of(anchors, name):
        made = pretraining(anchors, *line, f"loss.name={name}", name="Res16UNet14AR_Proj").eval()
        return float(made(batch, seeded()).detach())

    plain = load_anchors(wide)
    for changed, same in ((held_out, True), (0, False)):
        vectors = plain.vectors.clone()
        vectors[changed] = -3 * vectors[changed].flip(0)
        save_anchors(replace(plain, vectors=vectors), tmp_path / "changed.safetensors")
        for name in ("contrastive_ce", "contrastive"):
            assert (losses_of(wide, name) == losses_of(tmp_path / "changed.safetensors", name)) == same


def test_terms_of_fine_tuning_add_up(batch, scenes, weights):
    changes = f"network.weights={weights}", "loss.lovasz=0.7", "loss.language=0.3"
    made = finetuning(scenes, *changes).eval()
    loss = made(batch, seeded())
    logits, features = made.model(sparse_input(batch))
    pretrained = load_model(weights)
    anchors = pretrained.project(pretrained.anchors)
    expected = {
        "cross_entropy": losses.cross_entropy(logits, batch.labels),
        "lovasz": 0.7 * losses.lovasz_softmax(logits, batch.labels),
        "language": 0.3 * losses.language_cross_entropy(features, batch.labels, anchors),
    }
    assert made.parts == {name: pytest.approx(term.item(), rel=1e-5) for name, term in expected.items()}
    assert loss.item() == pytest.approx(sum(made.parts.values()), rel=1e-5)


def test_rectified_features_meet_rectified_anchors(scenes, batch, weights):
    """A feature that pretraining put exactly on its anchor is at cosine 1 after the ReLU of fine-tuning, too."""
    made = finetuning(scenes, f"network.weights={weights}", "loss.language=1", name="Res16UNet14A")
    pretrained = load_model(weights)
    signed = pretrained.project(pretrained.anchors)
    torch.testing.assert_close(losses.anchor_similarity(signed.relu(), made.anchors).diag(), torch.ones(200))
    assert made.anchors.any(1).all() and not made.anchors.requires_grad
    made(batch, seeded()).backward()
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["Res16UNet14A", "Res16UNet14AR"])
def test_a_classifier_started_at_the_anchors_says_what_pretraining_says(scenes, weights, name):
    """Features on the anchors, signed or rectified, are told apart by their direction alone."""
    made = finetuning(scenes, f"network.weights={weights}", "network.classifier=anchors", name=name)
    pretrained = load_model(weights)
    features = pretrained.project(pretrained.anchors)
    features = features.relu() if name == "Res16UNet14A" else features
    assert torch.equal((features @ made.model.network.final.kernel).argmax(1), torch.arange(200))
    own = torch.nn.functional.normalize(features, dim=1)
    cosines = own @ torch.nn.functional.normalize(made.model.network.final.kernel, dim=0)
    torch.testing.assert_close(cosines.diag(), torch.ones(200))


@pytest.mark.parametrize("name", LANGUAGE)
def test_reduction_over_all_voxels_holds_for_every_loss(batch, scenes, forms, weights, name):
    """What the original's trainer minimises: the fewer voxels are labelled, the smaller the loss."""
    share = (batch.labels >= 0).float().mean().item()
    assert share < 1
    changes = [f"loss.name={name}"], [f"loss.name={name}", "loss.reduction=mean_all"]
    labelled, everywhere = (pretraining(forms, *c)(batch, seeded()).item() for c in changes)
    assert everywhere == pytest.approx(share * labelled, rel=1e-5)
    changes = f"network.weights={weights}", "loss.language=1"
    first, second = (finetuning(scenes, *changes, f"loss.reduction={r}") for r in ("mean", "mean_all"))
    second.load_state_dict(first.state_dict())
    assert second(batch, seeded()).item() == pytest.approx(share * first(batch, seeded()).item(), rel=1e-5)


def test_a_network_that_keeps_its_projection_answers_questions_after_fine_tuning(
    scenes, batch, weights, tmp_path
):
    """Nothing trains the projection; the saved model compares its features to texts as pretraining did."""
    changes = (f"network.weights={weights}", "loss.language=1", "network.classifier=anchors")
    without = finetuning(scenes, changes[0], name="Res16UNet14AR_Proj").model  # of the language loss
    assert torch.equal(without.anchors, load_model(weights).anchors) and without.grounding["encoder"]
    made = finetuning(scenes, *changes, name="Res16UNet14AR_Proj")
    made(batch, seeded()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in made.parameters())
    save_model(made.model, tmp_path / "model.safetensors")
    loaded, pretrained = load_model(tmp_path / "model.safetensors"), load_model(weights)
    assert loaded.has_classifier and torch.equal(loaded.anchors, pretrained.anchors)
    assert loaded.grounding == pretrained.grounding
    torch.testing.assert_close(loaded.project(loaded.anchors), made.anchors)
    assert (
        finetuning(scenes, *changes[:2]).model.anchors is None
    )  # texts of 24, features of 96, no projection


def test_language_from_scratch_takes_the_anchors_of_the_recipe(scenes, batch, forms, wide):
    made = finetuning(scenes, "loss.language=1", f"text.anchors={forms}")
    assert made(batch, seeded()).isfinite() and made.model.anchors.shape == (200, 96)
    projecting = finetuning(scenes, "loss.language=1", f"text.anchors={wide}", name="Res16UNet14AR_Proj")
    centred = torch.nn.functional.normalize(
        projecting.model.anchors - projecting.model.anchors.mean(0), dim=1
    )
    kept = torch.nn.functional.normalize(projecting.anchors, dim=1)
    torch.testing.assert_close(kept @ kept.T, centred @ centred.T, rtol=1e-3, atol=1e-4)


def test_the_table_of_class_weights_is_counted_in_the_training_labels(scenes, store):
    made = finetuning(scenes, "loss.name=focal", "loss.class_weights=inverse_log")
    table = made.class_weight_table()
    counts = np.zeros(len(LABELS), dtype=int)
    for folder in sorted((store / "train").iterdir()):
        label = np.load(folder / "segment200.npy")
        counts += np.bincount(label[label >= 0], minlength=len(LABELS))
    assert [row["points"] for row in table] == counts.tolist()
    assert [(row["id"], row["name"]) for row in table] == list(
        zip(LABELS.ids.tolist(), LABELS.names, strict=True)
    )
    assert [row["weight"] for row in table] == losses.inverse_log_frequency(torch.tensor(counts)).tolist()
    assert table == json.loads(json.dumps(table))  # plain numbers
    assert finetuning(scenes).class_weight_table() == []


def test_logits_are_adjusted_in_training_alone(scenes, batch):
    plain = finetuning(scenes).eval()
    made = finetuning(scenes, "loss.logit_adjustment=0.5", "loss.lovasz=1").eval()
    logits, _ = made.model(sparse_input(batch))
    torch.testing.assert_close(logits, plain.model(sparse_input(batch))[0])
    made(batch, seeded())
    prior = losses.log_prior(torch.from_numpy(scenes.class_counts(200)))
    expected = (
        losses.cross_entropy(logits + 0.5 * prior, batch.labels),
        losses.lovasz_softmax(logits, batch.labels),
    )
    assert list(made.parts.values()) == pytest.approx([term.item() for term in expected], rel=1e-5)
    assert made.class_weight_table() == []


@pytest.fixture(scope="module")
def of_other_classes(tmp_path_factory):
    """Weights with a classifier, and weights with anchors, of ScanNet20."""
    folder = tmp_path_factory.mktemp("other")
    labels = load_labels("scannet20")
    classifier = Model.fresh("Res16UNet14AR", labels, 0.1)
    grounded = Model.fresh("Res16UNet14AR", labels, 0.1, representation_only=True)
    grounded.anchors = torch.randn(20, 96, generator=seeded())
    save_model(classifier, folder / "classifier.safetensors")
    save_model(grounded, folder / "grounded.safetensors")
    return folder


def test_a_classifier_of_other_classes_is_left_behind(scenes, of_other_classes, tmp_path, capsys):
    """Also where it has the same shape: 200 classes under other names."""
    rows = [{"name": f"thing {i}"} for i in range(200)]
    (tmp_path / "things.json").write_text(json.dumps(rows))
    things = Model.fresh("Res16UNet14AR", load_labels(tmp_path / "things.json"), 0.1)
    save_model(things, tmp_path / "things.safetensors")
    for path in (of_other_classes / "classifier.safetensors", tmp_path / "things.safetensors"):
        made = finetuning(scenes, f"network.weights={path}")
        kernel = load_model(path).network
        assert torch.equal(made.model.network.conv0p1s1.kernel, kernel.conv0p1s1.kernel)
        assert not torch.equal(made.model.network.final.kernel[:, :20], kernel.final.kernel[:, :20])
        assert "a new classifier learns scannet200" in capsys.readouterr().err


def test_what_does_not_fit_is_said_in_one_line(scenes, weights, forms, wide, of_other_classes, tmp_path):
    grounded = f"network.weights={of_other_classes / 'grounded.safetensors'}"
    classifier = f"network.weights={of_other_classes / 'classifier.safetensors'}"
    proj = "Res16UNet14AR_Proj"
    wrong = [
        (lambda: pretraining(wide, "attributes.mode=raw", name=proj), r"--attributes"),
        (lambda: pretraining(wide, "attributes.mode=latent", name=proj), r"--attributes"),
        (lambda: pretraining(forms, "attributes.mode=raw", "loss.name=supcon"), "supcon uses no text"),
        (lambda: pretraining(wide), "96 wide but the anchors 24"),
        (lambda: pretraining(forms, f"network.weights={weights}", name=proj), "24 wide, but those of .* 96"),
        (lambda: pretraining(tmp_path / "none.safetensors"), r"none\.safetensors"),
        (lambda: finetuning(scenes, f"network.weights={tmp_path / 'none'}"), "none: no such file"),
        (lambda: finetuning(scenes, "loss.language=1"), "needs text anchors"),
        (lambda: finetuning(scenes, "loss.language=1", classifier), "needs text anchors"),
        (lambda: finetuning(scenes, "loss.language=1", f"text.anchors={wide}"), "24 wide, .* takes 96"),
        (
            lambda: finetuning(scenes, "loss.language=1", grounded),
            "other classes .*scannet20, not scannet200",
        ),
        (lambda: finetuning(scenes, "network.classifier=anchors", grounded), "other classes"),
        (lambda: finetuning(scenes, "network.classifier=anchors", classifier), "no anchors"),
        (lambda: finetuning(scenes, "network.classifier_only=true"), "network.weights"),
        (lambda: finetuning(scenes, "network.classifier_only=true", "loss.language=1", grounded), "freezes"),
        (lambda: finetuning(scenes, "attributes.mode=raw"), "pretraining"),
        (lambda: finetuning(scenes, "loss.temperature_learned=true"), r"loss\.language"),
        (lambda: pretraining(forms, "loss.temperature_learned=true", "loss.name=l2"), "no temperature"),
        (lambda: pretraining(forms, "loss.lovasz=1", "loss.name=supcon"), r"loss\.lovasz"),
        (lambda: pretraining(forms, "loss.language=1"), r"loss\.language is for fine-tuning"),
        (lambda: pretraining(forms, "network.classifier_only=true"), "no classifier"),
    ]
    for make, words in wrong:
        with pytest.raises(InputError, match=words) as error:
            make()
        assert "\n" not in str(error.value)
