"""The forward passes of one update: as many on every process."""

from dataclasses import replace

import torch

from lground.data import Batch


def split_evenly(batches: list[Batch], count: int) -> list[Batch]:
    """`count` micro-batches (at least as many as given) with the scenes of `batches`, each scene once.

    Synchronised batch norm and gradients need as many passes on every process. The largest micro-batches are
    halved at a scene. Where there are too few scenes for that, the smallest is repeated without its labels:
    a pass that adds nothing to the loss (but counts in the statistics of batch norm).
    """
    batches = list(batches)
    while len(batches) < count:
        parts = [i for i, batch in enumerate(batches) if len(batch.names) > 1]
        if not parts:
            smallest = min(batches, key=lambda batch: len(batch.labels))
            blank = replace(smallest, labels=torch.full_like(smallest.labels, -1))
            return batches + [blank] * (count - len(batches))
        largest = max(parts, key=lambda i: len(batches[i].labels))
        batches[largest : largest + 1] = batches[largest].halves()
    return batches
