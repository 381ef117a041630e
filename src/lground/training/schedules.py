"""Learning-rate schedules: the original system's, stepped per epoch; one-cycle and cosine, stepped per update."""

import math

from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR

from lground.training.recipe import Optimizer as OptimizerRecipe
from lground.training.recipe import Recipe, Schedule


def build_optimizer(parameters: list[Parameter], recipe: OptimizerRecipe) -> Optimizer:
    """The optimiser of parameters that lie where they will be trained."""
    common = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    # One pass over weights, gradients and moments instead of a dozen.
    fused = all(p.device.type == "cuda" for p in parameters) or None
    if scalars := [p for p in parameters if p.ndim == 0]:  # temperatures: decay would draw them to 1
        parameters = [{"params": [p for p in parameters if p.ndim]}, {"params": scalars, "weight_decay": 0.0}]
    if recipe.name == "sgd":
        # Not fused: torch's takes uninitialised memory for momentum where fp16 skips the first step.
        return SGD(parameters, momentum=recipe.momentum, dampening=recipe.dampening, **common)
    return {"adam": Adam, "adamw": AdamW}[recipe.name](parameters, betas=recipe.betas, fused=fused, **common)


class Scheduler:
    """One learning-rate schedule behind two calls: `after_update` and `after_epoch`."""

    def __init__(self, optimizer: Optimizer, recipe: Recipe, steps_per_epoch: int) -> None:
        self.per_update = recipe.schedule.name in ("onecycle", "cosine")
        self.inner = _build(optimizer, recipe.schedule, recipe.epochs, steps_per_epoch)

    def state_dict(self) -> dict:
        """How far the schedule is; its shape, one-cycle's too, is the recipe's (a resumed run may be longer)."""
        shape = ("total_steps", "_schedule_phases")
        return {key: value for key, value in self.inner.state_dict().items() if key not in shape}

    def load_state_dict(self, state: dict) -> None:
        self.inner.load_state_dict(state)

    def after_update(self) -> None:
        if self.per_update:
            self.inner.step()

    def after_epoch(self, validation_miou: float | None) -> None:
        if isinstance(self.inner, ReduceLROnPlateau):
            if validation_miou is not None:
                self.inner.step(validation_miou)
        elif not self.per_update:
            self.inner.step()


def _build(optimizer: Optimizer, schedule: Schedule, epochs: int, steps: int) -> LRScheduler:
    s = schedule
    if s.name == "constant":
        return LambdaLR(optimizer, lambda epoch: 1.0)
    if s.name == "step":
        return StepLR(optimizer, s.step_size, s.gamma)
    if s.name == "multistep":
        return MultiStepLR(optimizer, list(s.milestones), s.gamma)
    if s.name == "exp":
        return LambdaLR(optimizer, lambda epoch: s.exp_gamma ** (epoch / s.exp_step_size))
    if s.name == "poly":  # clamped: the bare formula turns complex past the last epoch
        return LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / (epochs + 1)) ** s.power)
    if s.name == "squared":
        return LambdaLR(optimizer, lambda epoch: max(0.0, 1 - epoch / (epochs + 1)) ** 2)
    if s.name == "plateau":
        return ReduceLROnPlateau(optimizer, "max", s.gamma, s.patience, min_lr=s.min_lr)
    if s.name == "cosine":
        return LambdaLR(optimizer, lambda update: _cosine(update, epochs * steps, s.warmup))
    peak, updates = [group["lr"] for group in optimizer.param_groups], max(1, epochs * steps)
    longer = 1 + 1e-9  # where the rise has one update torch's divides by its length, nothing
    return OneCycleLR(optimizer, peak, total_steps=updates, pct_start=s.warmup * longer)


def _cosine(update: int, updates: int, warmup: float) -> float:
    """Linearly up over the first share `warmup` of all updates, then half a cosine down to nothing."""
    rising = warmup * updates
    if update < rising:
        return (update + 1) / (rising + 1)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (update - rising) / max(updates - rising, 1)))
