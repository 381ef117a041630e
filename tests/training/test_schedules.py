import math

import pytest
import torch

from lground.training import load_recipe
from lground.training.schedules import Scheduler, build_optimizer


def rates(*overrides: str, epochs: int = 10, steps: int = 3, miou=lambda epoch: 0.1) -> list[float]:
    """The learning rate during each epoch (at its first update)."""
    recipe = load_recipe("34D", "pretrain", ["optimizer.lr=1.0", f"epochs={epochs}", *overrides])
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], recipe.optimizer)
    scheduler = Scheduler(optimizer, recipe, steps)
    seen = []
    for epoch in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps):
            optimizer.step()
            scheduler.after_update()
        scheduler.after_epoch(miou(epoch))
    return seen


def test_multistep_drops_at_the_milestones():
    expected = [1.0] * 3 + [0.3] * 4 + [0.09] * 3
    assert rates("schedule.name=multistep", "schedule.milestones=[3, 7]") == pytest.approx(expected)


def test_poly_follows_its_formula_and_never_turns_complex():
    expected = [(1 - epoch / 11) ** 0.9 for epoch in range(10)]
    assert rates("schedule.name=poly") == pytest.approx(expected)


def test_squared_step_exp():
    assert rates("schedule.name=squared") == pytest.approx([(1 - e / 11) ** 2 for e in range(10)])
    assert rates("schedule.name=step", "schedule.step_size=4") == pytest.approx(
        [0.3 ** (e // 4) for e in range(10)]
    )
    assert rates("schedule.name=exp") == pytest.approx([0.95**e for e in range(10)])


def test_plateau_waits_for_patience_then_drops_to_its_floor():
    seen = rates("schedule.name=plateau", "schedule.patience=2", "schedule.min_lr=0.2", epochs=12)
    assert seen[0] == 1.0 and seen[-1] == pytest.approx(0.2) and sorted(seen, reverse=True) == seen
    rising = rates("schedule.name=plateau", "schedule.patience=2", miou=lambda epoch: epoch / 100)
    assert rising == [1.0] * 10


def test_cosine_rises_in_a_line_and_falls_as_half_a_cosine():
    """Of 30 updates 6 rise; what is past the end stays there."""
    seen = rates("schedule.name=cosine", "schedule.warmup=0.2", steps=1, epochs=30)
    falling = [0.5 + 0.5 * math.cos(math.pi * k / 24) for k in range(24)]
    assert seen == pytest.approx([(k + 1) / 7 for k in range(6)] + falling)


@pytest.mark.parametrize(("warmup", "updates"), [(0.1, 10), (0.05, 20), (0.25, 4), (0.5, 2)])
def test_onecycle_with_a_rise_of_one_update(warmup, updates):
    seen = rates("schedule.name=onecycle", f"schedule.warmup={warmup}", epochs=updates, steps=1)
    assert seen[0] == pytest.approx(0.04) and seen[1:] == sorted(seen[1:], reverse=True)
    assert seen[-1] < 1e-5


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_temperature_does_not_decay(name):
    recipe = load_recipe("34D", "pretrain", [f"optimizer.name={name}", "optimizer.weight_decay=0.1"])
    weight, temperature = torch.nn.Parameter(torch.full((3,), -2.0)), torch.nn.Parameter(torch.tensor(-2.0))
    optimizer = build_optimizer([weight, temperature], recipe.optimizer)
    weight.grad, temperature.grad = torch.zeros(3), torch.tensor(0.0)
    optimizer.step()
    assert temperature == -2 and (weight > -2).all()


def test_onecycle_rises_and_ends_near_zero():
    seen = rates("schedule.name=onecycle", "schedule.warmup=0.3")
    assert max(seen) == pytest.approx(1.0, abs=0.05) and seen[0] < 0.1 and seen[-1] < 0.1
    assert math.isclose(seen.index(max(seen)), 3, abs_tol=1)
