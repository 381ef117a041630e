"""The training loop: epochs of accumulated micro-batches, validation, checkpoints, exact resume.

Accelerate brings processes, devices, precision and gradient synchronisation. Every random choice is a function of
(seed, epoch, scene) or of (seed, update, process), so a resumed run needs no random-number state: weights,
optimiser, schedule and epoch are all there is to restore.
"""

import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from lground.data import Batch, SceneDataset, build_loader, training_transforms
from lground.errors import InputError
from lground.labels import LabelSet, load_labels
from lground.metrics import sum_over_processes
from lground.models import save_model
from lground.progress import Progress, say
from lground.scannet import list_scenes
from lground.training.recipe import Recipe
from lground.training.run import Run
from lground.training.schedules import Scheduler, build_optimizer
from lground.training.score import Confusion, score, summarize
from lground.training.stages import build_stage


def train(recipe: Recipe, out: str | Path, *, resume: bool = False) -> dict:
    """Run one stage into the run folder `out`; returns what `metrics.json` holds.

    The folder receives `recipe.yaml`, `log.csv`, TensorBoard events (when tensorboard is installed), `last.ckpt`
    (to resume from), `last.safetensors`, `best.safetensors` (highest validation mIoU) and `metrics.json`.
    Raises `InputError` when the recipe does not fit the data or `out` holds another run.
    """
    return Trainer(recipe, Path(out), resume=resume).run()


class Trainer:
    """One stage of training, from its recipe to its run folder."""

    def __init__(self, recipe: Recipe, out: Path, *, resume: bool) -> None:
        if recipe.data.root is None:
            raise InputError("data.root is not set: give the folder of prepared scenes, data.root=FOLDER")
        self.recipe = recipe
        AcceleratorState._reset_state()  # a run before this one in the process may have used another precision
        self.accelerator = Accelerator(mixed_precision=recipe.precision)
        self.folder = Run(out, recipe, resume=resume, main=self.accelerator.is_main_process)
        self.label_set: LabelSet = load_labels(recipe.data.label_set)
        self.train_set, self.val_set = _datasets(recipe)
        torch.manual_seed(recipe.seed)
        stage = build_stage(recipe, self.label_set, self.train_set)
        if self.accelerator.num_processes > 1 and self.accelerator.device.type == "cuda":
            stage = nn.SyncBatchNorm.convert_sync_batchnorm(stage)
        optimizer = build_optimizer([p for p in stage.parameters() if p.requires_grad], recipe.optimizer)
        self.stage, self.optimizer = self.accelerator.prepare(stage, optimizer)
        self.steps = len(self._loader(self.train_set, 0, train=True))
        self.scheduler = Scheduler(optimizer, recipe, self.steps)
        self.epoch, self.best = 0, -1.0
        if resume and (state := self.folder.load()):
            self._restore(state)
        self.folder.start(recipe)

    @property
    def bare_stage(self) -> nn.Module:
        """The stage without the wrapper that synchronises gradients."""
        return self.accelerator.unwrap_model(self.stage)

    def run(self) -> dict:
        recipe = self.recipe
        total = recipe.epochs * self.steps
        with Progress(recipe.stage, total, self.epoch * self.steps) as bar:
            while self.epoch < recipe.epochs:
                start = time.monotonic()
                loss, metrics = self._train_epoch(bar), {}
                self.epoch += 1
                row = {"epoch": self.epoch, "loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
                last = self.epoch == recipe.epochs
                if self.val_set is not None and (last or self.epoch % recipe.validate_every == 0):
                    metrics = self._validate()
                    row |= _log_entries(metrics)
                self.scheduler.after_epoch(row.get("val_miou"))
                self._finish_epoch(row | {"seconds": round(time.monotonic() - start, 2)}, metrics, last)
        return self.folder.read_metrics()

    def _train_epoch(self, bar: Progress) -> float:
        self.stage.train()
        losses = []
        for step, batches in enumerate(self._loader(self.train_set, self.epoch, train=True)):
            losses.append(self._update(batches, self.epoch * self.steps + step))
            bar.advance(f"loss {losses[-1]:.3f}")
        mean = torch.tensor(losses, dtype=torch.float64).mean()
        return float(self.accelerator.reduce(mean.to(self.accelerator.device).float(), "mean"))

    def _update(self, batches: list[Batch], update: int) -> float:
        """One optimiser step over the micro-batches of all processes, each weighted by its share of labelled voxels."""
        generator = self._generator(update)
        labelled = [int((batch.labels >= 0).sum()) for batch in batches]
        total = sum_over_processes(torch.tensor(sum(labelled))).clamp(min=1).item()
        total /= self.accelerator.num_processes  # gradients are averaged over processes
        mean = 0.0
        for batch, count in zip(batches, labelled, strict=True):
            last = batch is batches[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.stage):
                loss = self.stage(batch.to(self.accelerator.device), generator) * (count / total)
                self.accelerator.backward(loss)
            mean += float(loss.detach())
        if not np.isfinite(mean):
            raise InputError(f"the loss is {mean} at update {update}: training diverged; lower optimizer.lr")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.after_update()
        return mean

    def _validate(self) -> dict:
        model = self.bare_stage.eval().model
        confusion = score(model, self._loader(self.val_set, 0, train=False), self.accelerator.device)
        return summarize(Confusion(*map(sum_over_processes, confusion)), self.label_set)

    def _finish_epoch(self, row: dict, metrics: dict, last: bool) -> None:
        better = row.get("val_miou", -1.0) > self.best
        self.best = max(self.best, row.get("val_miou", -1.0))
        due = last or self.epoch % self.recipe.checkpoint_every == 0
        if self.folder.main:
            self.folder.log(row)
            if better or (last and self.best < 0):  # without validation the last epoch is the best
                self._export("best")
                self.folder.write_metrics({"epoch": self.epoch, **metrics})
            if due:
                self._export("last")
                self.folder.save(self._state())
        self.accelerator.wait_for_everyone()

    def _export(self, name: str) -> None:
        save_model(self.bare_stage.model, self.folder.path / f"{name}.safetensors")

    def _state(self) -> dict:
        return {
            "epoch": self.epoch,
            "best": self.best,
            "stage": self.bare_stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.inner.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
        }

    def _restore(self, state: dict) -> None:
        self.bare_stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.inner.load_state_dict(state["scheduler"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best = state["epoch"], state["best"]
        say(f"{self.folder.path}: going on after epoch {self.epoch}")

    def _generator(self, update: int) -> torch.Generator:
        """Random numbers of one update: the same after a resume, different on every process."""
        seed = np.random.SeedSequence([self.recipe.seed, update, self.accelerator.process_index])
        return torch.Generator(self.accelerator.device).manual_seed(int(seed.generate_state(1)[0]))

    def _loader(self, dataset: SceneDataset, epoch: int, *, train: bool):
        data = self.recipe.data
        return build_loader(
            dataset,
            data.batch_size if train else 1,
            point_limit=data.point_limit if train else None,
            shuffle=train,
            workers=data.workers,
            seed=self.recipe.seed,
            epoch=epoch,
            num_replicas=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
        )


def _datasets(recipe: Recipe) -> tuple[SceneDataset, SceneDataset | None]:
    data = recipe.data
    common = dict(label_set=data.label_set, voxel_size=data.voxel_size, reduce=data.reduce, cache=data.cache)
    transforms = training_transforms(**asdict(recipe.augment))
    train_set = SceneDataset(
        data.root, "train", annotation=data.annotation, transforms=transforms, seed=recipe.seed, **common
    )
    try:
        list_scenes(data.root, "val")
    except InputError as error:
        say(f"training without validation: {error}")
        return train_set, None
    return train_set, SceneDataset(data.root, "val", **common)


def _log_entries(metrics: dict) -> dict[str, float]:
    """The means per vertex as columns of the log: val_miou, val_miou_head, ..."""
    means = metrics["vertex"]["means"]
    columns = {
        "val_miou" if name == "all" else f"val_miou_{name}": mean["mean_iou"] for name, mean in means.items()
    }
    return {column: value for column, value in columns.items() if value is not None}
