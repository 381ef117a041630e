"""The training loop: epochs of accumulated micro-batches, validation, checkpoints, exact resume.

Accelerate brings processes, devices, precision and gradient synchronisation. Every random choice is a function of
(seed, epoch, scene) or of (seed, update, process), so a resumed run needs no random-number state: weights,
optimiser, schedule and the place in the epoch are all there is to restore.
"""

import hashlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn.utils import get_total_norm

from lground.data import Batch, SceneDataset, SceneLoader, build_loader
from lground.errors import InputError
from lground.labels import LabelSet, load_labels
from lground.models import Model, load_model
from lground.models.model import describe, described
from lground.progress import Progress, say
from lground.scannet.store import scene_name
from lground.training.arriving import Arriving
from lground.training.datasets import open_datasets
from lground.training.failure import check_weights, stop_with_reproduction
from lground.training.logs import check_logs, epoch_row
from lground.training.micro_batches import split_evenly
from lground.training.recipe import Recipe
from lground.training.run import STATE, Run, State, has_weights, read_metrics
from lground.training.schedules import Scheduler, build_optimizer
from lground.training.stages import Stage, build_stage
from lground.training.stopping import StopSignal, Terminated
from lground.training.synchronized import synchronize_batch_norm

ON_CPU = {
    "bf16": "many processors compute it ten times slower than precision=no",
    "fp16": "is for GPUs; on this CPU the same as precision=no",
}


class Trainer:
    """One stage of training, from its recipe to its run folder; `weights`: what it starts from."""

    def __init__(
        self, recipe: Recipe, out: Path, *, resume: bool, weights: str | None, stop: StopSignal
    ) -> None:
        check_logs(recipe)
        self.recipe, self.stop = recipe, stop
        AcceleratorState._reset_state()  # a run before this one in the process may have used another precision
        self.accelerator = Accelerator(mixed_precision=recipe.precision)
        self.main = self.accelerator.is_main_process
        if recipe.precision != "no" and self.accelerator.device.type == "cpu":
            say(f"precision={recipe.precision}: {ON_CPU[recipe.precision]}")
        self.folder = Run(out, recipe)
        self.label_set: LabelSet = load_labels(recipe.data.label_set)
        self.train_set, self.val_set = open_datasets(recipe)
        state = self.folder.load() if resume else None
        if state:
            self._check_files(state)
            weights = None  # its own take their place
        self.anchors = state["anchors"] if state else _digest(recipe.text.anchors)
        torch.manual_seed(recipe.seed)
        pretrained = _pretrained(state, weights)
        self.pretrained = pretrained and (describe(pretrained), pretrained.anchors)
        started = replace(recipe, network=replace(recipe.network, weights=weights))
        stage = build_stage(started, self.label_set, self.train_set, pretrained)
        stage.model.recipe = recipe.to_yaml()
        table = stage.class_weight_table()
        device = self.accelerator.device
        stage = synchronize_batch_norm(stage, device).to(device)
        optimizer = build_optimizer([p for p in stage.parameters() if p.requires_grad], recipe.optimizer)
        self.stage, self.optimizer = self.accelerator.prepare(stage, optimizer)
        self.steps = len(self._loader(self.train_set, train=True))
        self.scheduler = Scheduler(optimizer, recipe, self.steps)
        self.epoch, self.step = 0, 0  # finished epochs; updates done in the present one
        self.best: list[float] | None = None  # rank of the best weights (see `Evaluation.rank`)
        self.sums: Counter[str] = Counter()  # over the present epoch
        # An update whose gradients were not looked at yet: their norm, its number, batches and losses.
        self.unseen: tuple[Arriving, int, list[Batch], list[float]] | None = None
        if state:
            self._restore(state)
        self._check_agreement()
        if self.main:
            self.folder.start(table)

    @property
    def bare_stage(self) -> Stage:
        """The stage without the wrapper that synchronises gradients."""
        return self.accelerator.unwrap_model(self.stage)

    def run(self) -> dict:
        recipe = self.recipe
        total, done = recipe.epochs * self.steps, self.epoch * self.steps + self.step
        left = recipe.epochs - self.epoch
        # One loader for all epochs: its workers start once, and load the next epoch while this one ends.
        loader = self._loader(self.train_set, train=True, epoch=self.epoch, epochs=left, start=self.step)
        with Progress(recipe.stage, total, done) as bar, closing(iter(loader)) as loaded:
            while self.epoch < recipe.epochs:
                self._train_epoch(loaded, bar)
                start = time.monotonic()
                number, metrics, rank = self.epoch + 1, {}, None
                last = number == recipe.epochs
                if self.val_set is not None and (last or number % recipe.validate_every == 0):
                    metrics, rank = self._validate()
                if self.val_set is not None and recipe.images_every and number % recipe.images_every == 0:
                    self._draw(number)
                self.sums["seconds"] += time.monotonic() - start
                self._finish_epoch(metrics, rank, last)
        if self.main:
            self.folder.finish()
        return read_metrics(self.folder.path)

    def _train_epoch(self, loaded: Iterator[list[Batch]], bar: Progress) -> None:
        self.stage.train()
        while self.step < self.steps:
            start = time.monotonic()
            batches = next(loaded)
            waiting = time.monotonic() - start
            losses = self._update(batches)
            self.step += 1
            seconds = time.monotonic() - start
            self.sums.update(
                losses | {"updates": 1, "training": seconds, "seconds": seconds, "waiting": waiting}
            )
            bar.advance(f"loss {losses['loss']:.3f}")
        self._check_gradients()

    def _update(self, batches: list[Batch]) -> dict[str, float]:
        """One optimiser step over the micro-batches of all processes, each weighted by its share of the voxels that its
        loss is a mean of (see `Stage.counted`).

        Returns the loss and its parts, over all processes.
        """
        update, stage = self.epoch * self.steps + self.step, self.bare_stage
        scenes = sum(len(batch.names) for batch in batches)
        counts = sum(stage.counted(batch) for batch in batches).tolist()
        # (processes, 3 + K): whoever is asked to stop, all stop before the same update
        table = self._gather([len(batches), scenes, int(self.stop.asked), *counts])
        if table[:, 2].any():
            self._leave()
        totals = table[:, 3:].sum(0).clamp(min=1) / len(table)  # gradients are averaged over processes
        batches = split_evenly(batches, int(table[:, 0].max()))
        generator, arriving = self._generator(update), []
        for k, batch in enumerate(batches, 1):
            shares = stage.counted(batch) / totals
            with nullcontext() if k == len(batches) else self.accelerator.no_sync(self.stage):
                loss = self._loss(batch, generator)
                arriving.append((Arriving(stage.values), shares))
                self.accelerator.backward((loss * shares.to(loss)).sum())
        sums, losses = Counter(), []
        for terms, shares in arriving:
            values = terms.tolist()
            losses.append(sum(values))
            parts = stage.weighted_parts(values, shares)
            sums["loss"] += sum(parts.values())
            sums.update({f"loss_{name}": value for name, value in parts.items()})
        self._check_gradients()
        means = dict(zip(sums, self._gather(list(sums.values())).mean(0).tolist(), strict=True))
        if not np.isfinite(means["loss"]):
            self._stop(update, batches, losses)
        if self.accelerator.scaler is None:  # with one, such steps are skipped
            self.unseen = self._gradient_norm(), update, batches, losses
            if self.accelerator.device.type != "cuda":
                self._check_gradients()
        self.sums["lr"] = self.optimizer.param_groups[0]["lr"]  # the last one counts
        self.optimizer.step()
        self.bare_stage.after_update()
        self.optimizer.zero_grad()
        self.scheduler.after_update()
        return means | {"scenes": float(table[:, 1].sum())}

    def _loss(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        try:
            return self.stage(batch.to(self.accelerator.device), generator)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                f"{', '.join(batch.names)}: one voxel is left at the network's coarsest level, too few for batch norm; "
                f"use smaller voxels than data.voxel_size={self.recipe.data.voxel_size}, a larger data.batch_size or "
                "data.point_limit"
            ) from None

    def _gradient_norm(self) -> Arriving:
        """The sum of magnitudes: finite where all are, cheap on CPUs, too, and slow to overflow."""
        gradients = [p.grad for p in self.stage.parameters() if p.grad is not None]
        return Arriving(get_total_norm(gradients, norm_type=1))

    def _check_gradients(self) -> None:
        """Stop if those of the last update are not finite: before its step, or after it on a GPU, which never waits."""
        unseen, self.unseen = self.unseen, None
        if unseen and not math.isfinite(unseen[0].tolist()):
            self._stop(*unseen[1:])

    def _stop(self, update: int, batches: list[Batch], losses: list[float]) -> NoReturn:
        folder = self.folder.path / f"nan-{update}"
        place = {"seed": self.recipe.seed, "epoch": update // self.steps, "update": update}
        stop_with_reproduction(folder, self.recipe.to_yaml(), self.bare_stage, batches, losses, **place)

    def _validate(self) -> tuple[dict, list[float] | None]:
        """Scores of the validation scenes and how good they are; broken off where a process is asked to stop."""
        some = self.accelerator.process_index < len(self.val_set)  # there may be fewer scenes than processes
        evaluation = self.bare_stage.evaluation()
        if some:
            with closing(iter(self._loader(self.val_set, train=False))) as loaded:
                heard = itertools.takewhile(lambda _: not self.stop.asked, loaded)
                evaluation.run(self.bare_stage.model.eval(), heard, self.accelerator.device)
        if self._gather([int(self.stop.asked)]).any():
            self._leave()
        metrics = evaluation.metrics()
        return metrics, evaluation.rank(metrics)

    def _draw(self, epoch: int) -> None:
        from lground.report.rooms import draw_room  # a later room of the house, visited for the picture alone

        if self.main:
            model, device = self.bare_stage.model.eval(), self.accelerator.device
            self.folder.add_picture(epoch, lambda path: draw_room(path, model, self.val_set, device))

    def _finish_epoch(self, metrics: dict, rank: list[float] | None, last: bool) -> None:
        check_weights(self.folder.path, self.bare_stage, self.epoch + 1)
        row = epoch_row(self.epoch + 1, self.sums, metrics)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, Counter()
        self.scheduler.after_epoch(row.get("val_miou"))
        better = rank is not None and (self.best is None or rank > self.best)
        self.best = rank if better else self.best
        due = last or self.epoch % self.recipe.checkpoint_every == 0
        if self.main:
            self.folder.log(row)
            if better or (last and self.best is None):  # without validation the last epoch is the best
                self.folder.write_metrics({"epoch": self.epoch, **metrics})  # first: `_restore` looks there
                self.folder.save_model(self.bare_stage.model, "best")
            if due:
                self.folder.save_model(self.bare_stage.model, "last")
                self.folder.save(self._state())
        self.accelerator.wait_for_everyone()

    def _leave(self) -> None:
        """Save where training stands, in mid-epoch, and end."""
        self._check_gradients()
        check_weights(self.folder.path, self.bare_stage, self.epoch + 1)
        if self.main:
            self.folder.save(self._state())
        self.accelerator.wait_for_everyone()
        say(
            f"{self.folder.path}: terminated, saved after update {self.step} of {self.steps} in epoch "
            f"{self.epoch + 1}; --resume goes on from there"
        )
        raise Terminated

    def _state(self) -> State:
        return {
            "recipe": self.recipe.to_yaml(),
            "scenes": self._scenes(),
            "anchors": self.anchors,
            "pretrained": self.pretrained,
            "epoch": self.epoch,
            "step": self.step,
            "sums": dict(self.sums),
            "best": self.best,
            "stage": self.bare_stage.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
        }

    def _scenes(self) -> list[str]:
        return [scene_name(folder) for folder in self.train_set.folders]

    def _check_files(self, state: State) -> None:
        """The scenes and the anchors may have moved, but they are those that the run started with."""
        if self._scenes() != state["scenes"]:
            other = sorted({*self._scenes()} ^ {*state["scenes"]})
            raise InputError(
                f"{self.recipe.data.root}: not the training scenes that {self.folder.path} started with: they differ "
                f"in {', '.join(other[:4]) or 'their order'}{', ...' if other[4:] else ''}; resume with those"
            )
        anchors = self.recipe.text.anchors
        if _digest(anchors) not in (None, state["anchors"]):
            raise InputError(
                f"{anchors}: not the anchors that {self.folder.path} started with; resume with those"
            )

    def _restore(self, state: State) -> None:
        self.bare_stage.load_state_dict(state["stage"])
        # How updates are computed is this machine's matter, not that of the one that saved them.
        for group, ours in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group["fused"] = ours.get("fused")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler and state["scaler"]:  # a CPU scales nothing
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.best = state["epoch"], state["step"], state["best"]
        self.sums = Counter(state["sums"])
        if not has_weights(self.folder.path, self.epoch):
            self.best = None  # it was killed after a better epoch, which is done again, or done without
            if self.epoch >= self.recipe.epochs:
                raise InputError(
                    f"{self.folder.path}: no weights are kept of its first {self.epoch} epochs; resume it with "
                    f"epochs={self.epoch + 1} or more"
                )
        say(f"{self.folder.path}: going on after epoch {self.epoch}, update {self.step}")

    def _check_agreement(self) -> None:
        """All processes stand at the same place: each reads the run folder itself."""
        places = self._gather([self.epoch, self.step])
        if (places != places[0]).any():
            raise InputError(
                f"{self.folder.path}: the processes found different states in it; give a folder that every "
                "node shares"
            )

    def _gather(self, row: list[float]) -> torch.Tensor:
        """(processes, values) float64: the row of every process, on every one."""
        if self.accelerator.num_processes == 1:
            return torch.tensor([row], dtype=torch.float64)  # the device is not waited for
        kind = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
        rows = torch.tensor([row], dtype=kind, device=self.accelerator.device)
        return self.accelerator.gather(rows).cpu()

    def _generator(self, update: int) -> torch.Generator:
        """Random numbers of one update: the same after a resume, different on every process."""
        seed = np.random.SeedSequence([self.recipe.seed, update, self.accelerator.process_index])
        return torch.Generator(self.accelerator.device).manual_seed(int(seed.generate_state(1)[0]))

    def _loader(
        self, dataset: SceneDataset, *, train: bool, epoch: int = 0, epochs: int = 1, start: int = 0
    ) -> SceneLoader:
        data, processes = self.recipe.data, self.accelerator.num_processes
        return build_loader(
            dataset,
            data.batch_size if train else 1,
            accumulate=data.accumulate if train else 1,
            point_limit=data.point_limit if train else None,
            shuffle=train,
            workers=data.workers,
            seed=self.recipe.seed,
            epoch=epoch,
            epochs=epochs,
            start_batch=start,
            num_replicas=processes if train else min(processes, len(dataset)),
            rank=self.accelerator.process_index,
            whole=not train,
        )


def _pretrained(state: State | None, weights: str | None) -> Model | None:
    """What training starts from; of a run that goes on, what it had started from, but for the weights."""
    if state:
        return state["pretrained"] and described(*state["pretrained"], source=STATE)
    return load_model(weights) if weights else None


def _digest(path: str | None) -> str | None:
    """SHA-256 of a file; None where there is none."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else None
