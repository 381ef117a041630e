"""Which scenes, in which order, on which process; and the workers that load them."""

import atexit
import gc
import itertools
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lground.data.batches import collate
from lground.data.dataset import SceneDataset
from lground.errors import InputError, input_error

T = TypeVar("T")


class EpochSampler:
    """The batches of one process, epoch after epoch: lists of (epoch, index) pairs.

    The scenes, shuffled by seed and epoch, are cut into steps of num_replicas * batch_size; in each step the
    replicas take turns, so that together they see what one process with the whole batch would see. Every
    replica has the same number of steps and within the epoch no scene is repeated or dropped: the last step
    is smaller, and if it holds fewer scenes than there are replicas, its scenes join the step before
    (at most one more scene for a replica). Fewer scenes than replicas is an InputError.

    epoch, epochs: the first, and how many. start_batch: skip that many steps of the first epoch, to go on exactly
    where an interrupted one stopped.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        epoch: int,
        epochs: int = 1,
        start_batch: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1 scene per step is needed")
        if size < num_replicas:
            raise InputError(f"{size} scenes for {num_replicas} processes: use at most {size} processes")
        self.size, self.shuffle, self.seed = size, shuffle, seed
        self.epochs, self.start_batch = range(epoch, epoch + epochs), start_batch
        self.num_replicas, self.rank = num_replicas, rank
        step = num_replicas * batch_size
        self.cuts = list(range(step, size, step))
        if self.cuts and size - self.cuts[-1] < num_replicas:
            self.cuts.pop()

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        order = np.arange(self.size)
        if self.shuffle:  # `size` is no index, so this stream is not that of any scene (see SceneDataset)
            order = np.random.default_rng([self.seed, epoch, self.size]).permutation(self.size)
        shares = [part[self.rank :: self.num_replicas].tolist() for part in np.split(order, self.cuts)]
        return [[(epoch, index) for index in share] for share in shares]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = itertools.chain.from_iterable(map(self._batches, self.epochs))
        return itertools.islice(batches, self.start_batch, None)

    def __len__(self) -> int:
        return max(0, len(self.epochs) * (len(self.cuts) + 1) - self.start_batch)


class SceneLoader(DataLoader):
    """A DataLoader that tells in one line why a worker failed: its InputError, or its death."""

    def __iter__(self) -> Iterator:
        steps = self._start()
        if self.num_workers:
            atexit.unregister(_end_workers)
            atexit.register(_end_workers)  # the latest is called first: before torch waits for each worker
        try:
            yield from steps
        except InputError as error:  # torch wraps it in the worker's traceback
            raise InputError(str(error).strip().splitlines()[-1].split("InputError: ")[-1]) from None
        except RuntimeError as error:
            if (told := input_error(error)) is None:
                raise
            raise told from None
        finally:
            if self.num_workers:
                steps._shutdown_workers()  # an error that somebody keeps would keep them alive

    def _start(self) -> Iterator:
        """Start the workers; a SIGTERM that comes before they ignore it (see `_start_worker`) must not end them.

        They inherit what this process has, garbage too, and must not collect it: what lies on a GPU, graphs and
        page-locked memory can only be freed by the process that made them.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # they inherit this as well
        gc.freeze()
        try:
            return super().__iter__()
        finally:
            gc.unfreeze()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def build_loader(
    dataset: SceneDataset,
    batch_size: int,
    *,
    accumulate: int = 1,
    point_limit: int | None = None,
    shuffle: bool = False,
    workers: int = 0,
    seed: int = 0,
    epoch: int = 0,
    epochs: int = 1,
    start_batch: int = 0,
    num_replicas: int = 1,
    rank: int = 0,
    whole: bool = True,
) -> SceneLoader:
    """The loader of some epochs; each item is one step of one process, a list of micro-batches.

    batch_size: most scenes per micro-batch. accumulate: that many times batch_size scenes make a step of one
    process. point_limit: most voxels per micro-batch. workers: loading processes (0: load in this one); the
    items are the same whatever their number. whole: whether batches carry their scenes, as evaluation needs them; at
    2 cm that is as much again as twice the batch, all through a pipe. The rest: `EpochSampler`.
    Already sharded: not to be sharded again by an engine.
    """
    return SceneLoader(
        dataset,
        batch_sampler=EpochSampler(
            len(dataset),
            batch_size * accumulate,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            epochs=epochs,
            start_batch=start_batch,
            num_replicas=num_replicas,
            rank=rank,
        ),
        collate_fn=partial(
            collate,
            point_limit=point_limit,
            scene_limit=batch_size if accumulate > 1 else None,
            whole=whole,
        ),
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
    )


def build_reader(items: Dataset[T], workers: int = 0) -> Iterable[T]:
    """The items of a data set one after another, as they are, made by `workers` processes (0: by this one)."""
    return SceneLoader(
        items, batch_size=None, collate_fn=_as_it_is, num_workers=workers, worker_init_fn=_start_worker
    )


def _as_it_is(item: T) -> T:
    return item


def _end_workers() -> None:
    """At exit, of loaders left in mid-epoch: workers do not heed the SIGTERM with which Python would end them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for each
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A scheduler that ends a job tells every process; the one that trains still needs these to save and end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Tensors travel by name, not by descriptor: several large steps in flight do not exhaust the open files.
    torch.multiprocessing.set_sharing_strategy("file_system")
