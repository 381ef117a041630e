"""Lovász-Softmax against its definition stated slowly, and the laws it must obey."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lground import losses


def case(seed: int, points: int = 30, classes: int = 5, ignored: float = 0.2):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(points, classes, generator=g, dtype=torch.float64)
    labels = torch.randint(classes, (points,), generator=g)
    labels[torch.rand(points, generator=g) < ignored] = -1
    return logits, labels


def jaccard_loss(mistaken: set[int], members: set[int]) -> float:
    """1 - intersection over union of a class when exactly the points `mistaken` are wrong about it."""
    predicted = members ^ mistaken
    return 1 - len(predicted & members) / len(predicted | members)


def slowly(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The definition: the Lovász extension of `jaccard_loss`, one set of mistakes at a time."""
    points = [i for i in range(len(labels)) if labels[i] >= 0]
    p = logits.softmax(1)
    of_classes = []
    for c in sorted({int(labels[i]) for i in points}):
        members = {i for i in points if labels[i] == c}
        error = {i: float(1 - p[i, c] if i in members else p[i, c]) for i in points}
        mistaken, value, before = set(), 0.0, 0.0
        for i in sorted(points, key=error.get, reverse=True):
            mistaken.add(i)
            now = jaccard_loss(mistaken, members)
            value += error[i] * (now - before)
            before = now
        of_classes.append(value)
    return sum(of_classes) / len(of_classes) if of_classes else 0.0


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
@settings(max_examples=60)
def test_it_is_the_extension_of_the_jaccard_loss(seed, points, classes):
    logits, labels = case(seed, points, classes)
    assert losses.lovasz_softmax(logits, labels).item() == pytest.approx(slowly(logits, labels), abs=1e-12)


def test_gradient_is_that_of_finite_differences():
    logits, labels = case(1)
    assert gradcheck(lambda x: losses.lovasz_softmax(x, labels), logits.requires_grad_())


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_order_and_ignored_points_do_not_matter(seed):
    logits, labels = case(seed)
    value = losses.lovasz_softmax(logits, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(losses.lovasz_softmax(logits[order], labels[order]), value)
    labelled = labels >= 0
    torch.testing.assert_close(losses.lovasz_softmax(logits[labelled], labels[labelled]), value)
    names = torch.randperm(5, generator=torch.Generator().manual_seed(seed))  # classes in another order
    renamed = torch.where(labelled, names.argsort()[labels.clamp(min=0)], -1)
    torch.testing.assert_close(losses.lovasz_softmax(logits[:, names], renamed), value)


def test_certain_predictions_give_one_minus_the_mean_iou():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, -1])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2, 0])
    certain = 200 * torch.nn.functional.one_hot(predicted, 4).double()
    assert losses.lovasz_softmax(certain, labels).item() == pytest.approx(1 - (2 / 3 + 1 / 3 + 1 / 2) / 3)
    perfect = 200 * torch.nn.functional.one_hot(labels.clamp(min=0), 4).double()
    assert losses.lovasz_softmax(perfect, labels).item() == pytest.approx(0, abs=1e-9)


def test_ignored_points_and_empty_batches_have_no_gradient():
    logits, labels = case(2)
    for of in (labels, torch.full_like(labels, -1)):
        x = logits.clone().requires_grad_()
        losses.lovasz_softmax(x, of).backward()
        assert x.grad.isfinite().all() and not x.grad[of < 0].any()
        assert x.grad.any() == (of >= 0).any()


def test_single_precision_keeps_its_digits_on_many_points():
    """Steps of the Jaccard loss are of the order 1 / N: as differences of float32 they would be noise."""
    g = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (300_000,), generator=g)
    logits = torch.randn(len(labels), 3, generator=g)
    fine = logits.double().requires_grad_()
    coarse = logits.clone().requires_grad_()
    losses.lovasz_softmax(fine, labels).backward()
    losses.lovasz_softmax(coarse, labels).backward()
    assert (coarse.grad - fine.grad).norm() < 1e-4 * fine.grad.norm()
    half = losses.lovasz_softmax(logits.bfloat16(), labels)
    assert half.dtype == torch.float32
