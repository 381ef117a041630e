"""What the losses promise beyond the golden values: gradients, sampling, precision, degenerate batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lground import losses

N, C, D, K = 12, 5, 6, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """Features, labels (two ignored), anchors, negatives, logits; float64 for finite differences."""
    g = seeded()
    labels = torch.randint(C, (N,), generator=g)
    labels[[2, 7]] = -1
    return {
        "features": torch.randn(N, D, generator=g, dtype=torch.float64),
        "labels": labels,
        "anchors": torch.randn(C, D, generator=g, dtype=torch.float64),
        "negatives": losses.draw_negatives(labels, C, K, generator=g),
        "logits": torch.randn(N, C, generator=g, dtype=torch.float64),
    }


def differentiates(function, *inputs: torch.Tensor) -> bool:
    return gradcheck(function, tuple(i.detach().clone().requires_grad_() for i in inputs))


@pytest.mark.parametrize("distance", ["cos", "l2", "l1", "l1_signed"])
@pytest.mark.parametrize("hinge", ["each", "mean"])
def test_gradients_of_language_contrastive_for_features_and_anchors(batch, distance, hinge):
    def loss(features, anchors):
        return losses.language_contrastive_loss(
            *(features, batch["labels"], anchors, batch["negatives"]),
            **dict(distance=distance, hinge=hinge, positive_threshold=0.05, negative_threshold=0.95),
        )

    assert differentiates(loss, batch["features"], batch["anchors"])


def test_gradients_of_the_other_losses(batch):
    labels, anchors = batch["labels"], batch["anchors"]
    same = losses.draw_same_class(labels, 2, generator=seeded())
    other = losses.draw_confused(labels, torch.ones(C, C), 3, generator=seeded())
    references = batch["features"].clone()

    def against_points(f):  # finite differences must not move the detached references: append them
        both = torch.cat([f, references])
        shift = lambda index: torch.where(index >= 0, index + N, -1)  # noqa: E731
        nobody = torch.full_like(same, -1)
        return losses.point_supervised_contrastive(
            both,
            torch.cat([labels, torch.full_like(labels, -1)]),
            torch.cat([shift(same), nobody]),
            torch.cat([shift(other), torch.full_like(other, -1)]),
        )

    for similarity in ("cos", "l2", "l2_inverted"):
        assert differentiates(
            lambda f, a, s=similarity: losses.language_cross_entropy(f, labels, a, 0.5, similarity=s),
            *(batch["features"], anchors),
        )
    told = torch.stack([labels, torch.arange(N) % 9], 1)
    forms = torch.randn(C, 9, D, generator=seeded(3), dtype=torch.float64)
    assert differentiates(lambda f, a: losses.language_cross_entropy(f, told, a), batch["features"], forms)
    assert differentiates(against_points, batch["features"])
    assert differentiates(lambda f: losses.embedding_regression(f, labels, anchors), batch["features"])
    assert differentiates(losses.feature_norm_loss, batch["features"])
    for distance in ("cos", "l2", "l1"):
        assert differentiates(
            lambda f, a, d=distance: losses.anchor_similarity(f, a, d), batch["features"], anchors
        )
    weights = torch.rand(C, generator=seeded(), dtype=torch.float64)
    for gamma in (0.0, 0.5, 2.0):
        assert differentiates(
            lambda x, g=gamma: losses.focal_loss(x, labels, gamma=g, weights=weights), batch["logits"]
        )
    assert differentiates(lambda x: losses.soft_iou_loss(x, labels), batch["logits"])
    assert differentiates(lambda x: losses.cross_entropy(x, labels, weights=weights), batch["logits"])
    assert differentiates(lambda x: losses.recall_cross_entropy(x, labels), batch["logits"])
    offsets, targets = batch["features"][:, :3], batch["features"][:, 3:]
    instances = torch.arange(N) % 4 - 1
    assert differentiates(lambda o: losses.offset_norm_loss(o, targets, instances), offsets)
    assert differentiates(lambda o: losses.offset_direction_loss(o, targets, instances), offsets)


def test_contrastive_loss_is_the_formula_said_in_words(batch):
    """One point at a time, straight from the docstring."""
    f, a = batch["features"], batch["anchors"]
    d = 1 - torch.nn.functional.cosine_similarity(f[:, None], a[None], dim=-1)
    expected = []
    for i, y in enumerate(batch["labels"].tolist()):
        if y >= 0:
            push = [max(0.0, 0.9 - d[i, k].item()) for k in batch["negatives"][i]]
            expected.append(max(0.0, d[i, y].item() - 0.1) + 0.7 * sum(push) / K)
    value = losses.language_contrastive_loss(
        *(f, batch["labels"], a, batch["negatives"]),
        **dict(positive_threshold=0.1, negative_threshold=0.9, negative_weight=0.7),
    )
    assert value.item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_original_names_change_what_they_say(batch):
    arguments = (batch["features"], batch["labels"], batch["anchors"], batch["negatives"])
    each = losses.language_contrastive_loss(*arguments, negative_threshold=1.0)
    mean = losses.language_contrastive_loss(*arguments, negative_threshold=1.0, hinge="mean")
    assert mean < each  # a mean of hinges is never below the hinge of the mean
    labelled = (batch["labels"] >= 0).sum()
    mean_all = losses.language_contrastive_loss(*arguments, reduction="mean_all")
    torch.testing.assert_close(mean_all * N / labelled, losses.language_contrastive_loss(*arguments))
    none = losses.language_contrastive_loss(*arguments, reduction="none")
    assert none.shape == (N,) and not none[batch["labels"] < 0].any()
    signed = losses.language_contrastive_loss(*arguments, distance="l1_signed", reduction="none")
    true = losses.language_contrastive_loss(*arguments, distance="l1", reduction="none")
    assert (signed != true).any()
    for wrong in ({"hinge": "x"}, {"ignored": "x"}, {"reduction": "x"}, {"distance": "x"}):
        with pytest.raises(ValueError, match="not one of"):
            losses.language_contrastive_loss(*arguments, **wrong)


def test_attributed_labels_use_the_attributed_anchor(batch):
    anchors = torch.randn(C, 9, D, generator=seeded(3), dtype=torch.float64)
    plain = torch.stack([batch["labels"], torch.zeros(N, dtype=torch.long)], 1)
    arguments = (anchors, batch["negatives"])
    torch.testing.assert_close(
        losses.language_contrastive_loss(batch["features"], plain, *arguments),
        losses.language_contrastive_loss(batch["features"], batch["labels"], *arguments),
    )
    at_red = torch.nn.functional.normalize(anchors[batch["labels"].clamp(min=0), 1], dim=1)
    red = torch.stack([batch["labels"], torch.ones(N, dtype=torch.long)], 1)
    value = losses.language_contrastive_loss(at_red, red, *arguments, negative_weight=0.0)
    assert value.item() == pytest.approx(0, abs=1e-12)


def every_language_loss(features, labels, anchors):
    negatives = losses.draw_negatives(labels, C, K, generator=seeded(9))
    return {
        "contrastive": losses.language_contrastive_loss(features, labels, anchors, negatives),
        "cross_entropy": losses.language_cross_entropy(features, labels, anchors),
        "regression": losses.embedding_regression(features, labels, anchors),
    }


def test_every_language_loss_takes_the_form_that_the_label_says(batch):
    """All plain: as labels (N,). A feature at "red": best told red, and no other class's forms matter."""
    anchors = torch.randn(C, 9, D, generator=seeded(3), dtype=torch.float64)
    labels, plain = batch["labels"], torch.zeros(N, dtype=torch.long)
    expected = every_language_loss(batch["features"], labels, anchors[:, 0])
    for as_given in (labels, torch.stack([labels, plain], 1)):
        for name, value in every_language_loss(batch["features"], as_given, anchors).items():
            torch.testing.assert_close(value, expected[name], msg=name)
    at_red = anchors[labels.clamp(min=0), 1]
    red, blue = (torch.stack([labels, plain + k], 1) for k in (1, 3))
    told_blue, told_red = (every_language_loss(at_red, form, anchors) for form in (blue, red))
    assert all(told_red[name] < told_blue[name] for name in told_red)
    others = anchors.clone()
    others[:, 4:] = 0  # forms that no label names
    for name, value in every_language_loss(at_red, red, others).items():
        torch.testing.assert_close(value, told_red[name], msg=name)


def test_attributes_are_drawn_by_class():
    labels = torch.randint(-1, 6, (5000,), generator=seeded())
    classes = torch.tensor([1, 3, 4])
    drawn = torch.stack(
        [losses.draw_attributes(labels, classes, 6, 0.4, generator=seeded(i)) for i in range(800)]
    )
    assert not drawn[:, ~torch.isin(labels, classes)].any()  # other classes, ignored points
    for c in classes:
        of_class = drawn[:, labels == c]
        assert (of_class == of_class[:, :1]).all()  # one attribute for the whole class
        share = torch.bincount(of_class[:, 0], minlength=9) / len(drawn)
        torch.testing.assert_close(share, torch.tensor([0.6] + [0.05] * 8), atol=0.07, rtol=0)
    assert torch.equal(drawn[3], losses.draw_attributes(labels, classes, 6, 0.4, generator=seeded(3)))


def test_attributed_features_go_through_the_map_of_their_attribute(batch):
    maps = losses.AttributeProjections(D, 3).double()
    attributes = torch.tensor([0, 1, 2, 3] * 3)
    mapped = maps.attribute(batch["features"], attributes)
    assert torch.equal(mapped[::4], batch["features"][::4])
    for i in range(N):
        if attributes[i]:
            linear = maps.attr_linears[attributes[i] - 1]
            torch.testing.assert_close(mapped[i], linear(batch["features"][i]))
    assert differentiates(lambda f: maps.attribute(f, attributes), batch["features"])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_also_under_autocast(batch, kind):
    f, x = batch["features"].to(kind), batch["logits"].to(kind)
    arguments = (batch["labels"], batch["anchors"].float(), batch["negatives"])
    with torch.autocast("cpu", torch.bfloat16):
        values = [
            losses.language_contrastive_loss(f, *arguments),
            losses.language_cross_entropy(f, *arguments[:2]),
            losses.focal_loss(x, batch["labels"]),
            losses.cross_entropy(x, batch["labels"]),
            losses.soft_iou_loss(x, batch["labels"]),
        ]
    expected = [
        losses.language_contrastive_loss(f.float(), *arguments),
        losses.language_cross_entropy(f.float(), *arguments[:2]),
        losses.focal_loss(x.float(), batch["labels"]),
        losses.cross_entropy(x.float(), batch["labels"]),
        losses.soft_iou_loss(x.float(), batch["labels"]),
    ]
    assert all(v.dtype == torch.float32 for v in values)
    assert values == expected


def test_batches_without_a_label_give_zero_and_zero_gradients(batch):
    nobody = torch.full((N,), -1)
    f = batch["features"].clone().requires_grad_()
    x = batch["logits"].clone().requires_grad_()
    negatives = losses.draw_negatives(nobody, C, K)
    assert (negatives == -1).all()
    pairs = losses.draw_same_class(nobody, 2), losses.draw_confused(nobody, torch.ones(C, C), 3)
    assert all((p == -1).all() for p in pairs)
    kept = losses.sample_for_balancing(nobody, torch.ones(C))
    total = (
        losses.language_contrastive_loss(f, nobody, batch["anchors"], negatives)
        + losses.language_cross_entropy(f, nobody, batch["anchors"])
        + losses.point_supervised_contrastive(f, nobody, *pairs)
        + losses.embedding_regression(f, nobody, batch["anchors"])
        + losses.cross_entropy(x, nobody, kept=kept)
        + losses.focal_loss(x, nobody)
        + losses.recall_cross_entropy(x, nobody)
        + losses.soft_iou_loss(x, nobody)
        + losses.offset_norm_loss(f[:, :3], f[:, 3:].detach(), nobody)
        + losses.offset_direction_loss(f[:, :3], f[:, 3:].detach(), nobody)
    )
    total.backward()
    assert total.item() == 0
    assert not f.grad.any() and not x.grad.any()


def test_zero_features_and_certain_points_keep_finite_gradients(batch):
    f = batch["features"].clone()
    f[0] = 0
    f.requires_grad_()
    for loss in (
        losses.language_contrastive_loss(f, batch["labels"], batch["anchors"], batch["negatives"]),
        losses.language_cross_entropy(f, batch["labels"], batch["anchors"]),
        losses.feature_norm_loss(f),
    ):
        (grad,) = torch.autograd.grad(loss, f)
        assert grad.isfinite().all() and not grad[0].any()
    certain = (100 * torch.nn.functional.one_hot(batch["labels"].clamp(min=0), C).float()).requires_grad_()
    for gamma in (0.0, 0.5, 2.0):
        (grad,) = torch.autograd.grad(losses.focal_loss(certain, batch["labels"], gamma=gamma), certain)
        assert grad.isfinite().all()


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 8), st.booleans())
@settings(max_examples=60)
def test_negatives_are_other_classes(seed, classes, count, present_only):
    g = seeded(seed)
    labels = torch.randint(-1, classes, (40,), generator=g)
    drawn = losses.draw_negatives(labels, classes, count, present_only=present_only, generator=g)
    assert drawn.shape == (40, count) and drawn.dtype == torch.int64
    present = torch.unique(labels[labels >= 0])
    possible = (labels >= 0) & ((len(present) if present_only else classes) > 1)
    assert (drawn[~possible] == -1).all()
    assert ((drawn[possible] >= 0) & (drawn[possible] < classes)).all()
    assert (drawn[possible] != labels[possible, None]).all()
    if present_only:
        assert torch.isin(drawn[possible], present).all()


def test_negatives_are_uniform_and_repeatable():
    labels = torch.full((60_000,), 3)
    drawn = losses.draw_negatives(labels, 6, 3, generator=seeded(1))
    share = torch.bincount(drawn.flatten(), minlength=6) / drawn.numel()
    assert share[3] == 0
    torch.testing.assert_close(share[[0, 1, 2, 4, 5]], torch.full((5,), 0.2), atol=0.01, rtol=0)
    assert torch.equal(drawn, losses.draw_negatives(labels, 6, 3, generator=seeded(1)))


def test_points_are_drawn_by_class_and_confusion():
    g = seeded(5)
    labels = torch.randint(-1, 4, (400,), generator=g)
    labels[labels == 2] = 1  # class 2 is absent
    confusion = torch.tensor([[9, 5, 50, 1], [0, 9, 9, 0], [0, 0, 0, 0], [3, 0, 7, 9]])
    labelled = labels >= 0
    same = losses.draw_same_class(labels, 500, generator=g)
    other = losses.draw_confused(labels, confusion, 500, generator=g)
    assert (same[~labelled] == -1).all() and (other[~labelled] == -1).all()
    assert (labels[same[labelled]] == labels[labelled, None]).all()
    assert (labels[other[labelled]] != labels[labelled, None]).all()
    points = torch.bincount(labels[labelled], minlength=4)
    for y in (0, 1, 3):
        weight = (confusion[y] + 1.0) * points
        weight[y] = 0
        drawn = labels[other[labels == y]].flatten()
        share = torch.bincount(drawn, minlength=4) / drawn.numel()
        torch.testing.assert_close(share, weight / weight.sum(), atol=0.02, rtol=0)
        mine = torch.bincount(same[labels == y].flatten(), minlength=400)[labels == y].float()
        assert mine.min() > 0.6 * mine.mean()  # every point of the class, about equally often


@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(max_examples=40)
def test_balancing_keeps_the_share_of_every_class(seed, ratios):
    labels = torch.randint(-1, 3, (50,), generator=seeded(seed))
    kept = losses.sample_for_balancing(labels, torch.tensor(ratios), generator=seeded(seed))
    assert not kept[labels < 0].any()
    for c, ratio in enumerate(ratios):
        here = labels == c
        assert kept[here].sum() == round(float(torch.tensor(ratio)) * int(here.sum()))


def test_soft_iou_is_the_iou_of_certain_predictions():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, -1])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2, 0])
    logits = 200 * torch.nn.functional.one_hot(predicted, 4).double()
    expected = 1 - (2 / 3 + 1 / 3 + 1 / 2) / 3  # class 3 is absent, the last point ignored
    assert losses.soft_iou_loss(logits, labels).item() == pytest.approx(expected, abs=1e-6)
    perfect = 200 * torch.nn.functional.one_hot(labels.clamp(min=0), 4).double()
    assert losses.soft_iou_loss(perfect, labels).item() == pytest.approx(0, abs=1e-6)


def test_recall_weights_when_everything_is_right():
    labels = torch.tensor([0, 0, 1, -1])
    weights = losses.recall_weights(torch.nn.functional.one_hot(labels.clamp(min=0), 3).float(), labels)
    assert weights.tolist() == [0.5, 1.0, 1.0]


def test_cross_entropy_temperature_sharpens(batch):
    """At temperature 1 even a feature on its anchor is far from certain; at the default it is certain."""
    anchors = torch.eye(200, dtype=torch.float64)
    labels = torch.arange(200)
    dull = losses.language_cross_entropy(anchors, labels, anchors, temperature=1)
    assert dull.item() == pytest.approx(math.log(1 + 199 / math.e))
    assert losses.language_cross_entropy(anchors, labels, anchors) < 1e-3


def test_feature_norm_loss_rescaled_reads_constant_with_the_same_direction(batch):
    f = batch["features"].clone().requires_grad_()
    plain, fixed = losses.feature_norm_loss(f), losses.feature_norm_loss(f, rescale_to=0.2)
    assert fixed.item() == pytest.approx(0.2)
    (a,), (b,) = torch.autograd.grad(plain, f), torch.autograd.grad(fixed, f)
    torch.testing.assert_close(a / a.norm(), b / b.norm())


def test_simsiam_term_counts_unless_dropped(batch):
    f, labels = batch["features"], batch["labels"]
    views = ((f, f.flip(0)), (f, f.flip(0)), (torch.arange(N).flip(0),) * 2, (labels, labels.flip(0)))
    dropped = losses.supervised_simsiam(*views, batch["anchors"], simsiam_weight=0)
    torch.testing.assert_close(losses.supervised_simsiam(*views, batch["anchors"]), dropped)  # equal views
    apart = ((f, -f.flip(0)), *views[1:])
    assert losses.supervised_simsiam(*apart, batch["anchors"], simsiam_weight=0) < losses.supervised_simsiam(
        *apart, batch["anchors"]
    )


def test_class_weights():
    counts = torch.tensor([1_000_000, 10_000, 100, 0])
    weights = losses.inverse_log_frequency(counts)
    assert weights.dtype == torch.float32 and (weights.diff() > 0).all()
    share = counts.double() / counts.sum()
    assert (share * weights).sum().item() == pytest.approx(1, rel=1e-6)
    assert (weights[1] / weights[0]).item() == pytest.approx(
        math.log(1.02 + share[0]) / math.log(1.02 + share[1]), rel=1e-6
    )
    paper = losses.log_frequency(counts)
    assert paper.sum().item() == pytest.approx(1) and (paper.diff() < 0).all() and paper[3] == 0
    assert losses.inverse_log_frequency(torch.zeros(3)).isfinite().all()


def test_a_classifier_trained_with_the_prior_added_does_without_it():
    """On features that say nothing, plain cross-entropy learns the prior; adjusted by all of it, nothing is left."""
    counts = torch.tensor([700, 250, 50])
    labels, prior = torch.repeat_interleave(torch.arange(3), counts), losses.log_prior(counts)
    assert prior.exp().sum().item() == pytest.approx(1)
    assert losses.log_prior(torch.tensor([99, 0])).tolist() == pytest.approx([0.0, -math.log(99)])
    for tau, expected in ((0.0, prior), (1.0, torch.zeros(3)), (0.4, 0.6 * prior)):
        bias = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.LBFGS([bias], max_iter=50)

        def loss(bias=bias, optimizer=optimizer, tau=tau):
            optimizer.zero_grad()
            value = losses.cross_entropy((bias + tau * prior).expand(1000, 3), labels)
            value.backward()
            return value

        optimizer.step(loss)
        torch.testing.assert_close(bias - bias.mean(), expected - expected.mean(), rtol=1e-3, atol=1e-3)


def test_attribute_projections_fit_recovers_linear_maps():
    g = seeded(2)
    names = torch.randn(60, 1, 8, generator=g)
    truth = torch.randn(2, 8, 8, generator=g)
    forms = torch.einsum("nxd,ade->nae", names, truth) + torch.randn(2, 8, generator=g)
    model = losses.AttributeProjections(8, 2).fit(torch.cat([names, forms], 1), ridge=1e-9)
    torch.testing.assert_close(model(names[:, 0]), forms, rtol=1e-4, atol=1e-4)
    shifted = torch.cat([names, names + 1, names - 2], 1)  # a plain shift survives any ridge
    model.fit(shifted, ridge=10.0)
    torch.testing.assert_close(model(names[:, 0]), shifted[:, 1:], rtol=1e-4, atol=1e-4)
