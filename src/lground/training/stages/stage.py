"""What the stages share.

A stage is one module whose forward pass is the loss, so that gradient synchronisation and autocast wrap all of it.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from lground import losses
from lground.data import Batch
from lground.data.reading import held_out
from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import Model
from lground.training.recipe import Recipe
from lground.training.score import Evaluation


class Stage(nn.Module):
    """forward(batch, generator) -> loss: a scalar, the mean over the labelled voxels of the batch.

    A loss whose terms are means over other voxels, too, is a vector (K,), one entry for each kind of voxel; `counted`
    says how many there are, so that an update over several batches and processes weighs every voxel alike.

    Attributes:
        model: what is evaluated and saved.
        parts: the terms that the last loss is the sum of, by name.
    """

    allowed_losses: tuple[str, ...]

    def __init__(self, recipe: Recipe, label_set: LabelSet, **arguments) -> None:
        super().__init__()
        if recipe.loss.name not in self.allowed_losses:
            raise InputError(
                f"loss.name={recipe.loss.name}: {recipe.stage} takes {', '.join(self.allowed_losses)}"
            )
        self.loss = recipe.loss
        self.log_scale = None
        if recipe.loss.temperature_learned:
            start = max(recipe.loss.temperature, losses.COLDEST)
            self.log_scale = nn.Parameter(torch.tensor(-math.log(start)))
        self._groups: tuple[dict[str, Tensor], ...] = ()
        self.model = Model.fresh(
            recipe.network.name,
            label_set,
            recipe.data.voxel_size,
            stem_kernel_size=recipe.network.stem_kernel_size,
            bn_momentum=recipe.network.bn_momentum,
            **arguments,
        )
        self.model.recipe = recipe.to_yaml()
        kept = torch.ones(len(label_set), dtype=torch.bool)
        kept[list(held_out(recipe.data.label_set, recipe.data.hold_out))] = False
        self.register_buffer("seen", kept.nonzero()[:, 0], persistent=False)  # classes not held out

    def class_weight_table(self) -> list[dict]:
        """Class, points in the training labels and weight in the loss; empty for a loss without weights."""
        return []

    def evaluation(self) -> Evaluation:
        """What is measured on the validation scenes."""
        return Evaluation(self.model.label_set)

    def counted(self, batch: Batch) -> Tensor:
        """Of how many voxels of `batch` each entry of its loss is the mean, (K,) int64."""
        return torch.tensor([self.counted_for_classes(batch)])

    def counted_for_classes(self, batch: Batch) -> int:
        """The labelled voxels; with loss.reduction=mean_all all of them, unless none is labelled."""
        count = labelled(batch.labels)
        return len(batch.labels) if count and self.loss.reduction == "mean_all" else count

    @property
    def temperature(self) -> float | Tensor:
        """Of the language loss over all classes."""
        return self.loss.temperature if self.log_scale is None else losses.temperature_of(self.log_scale)

    @torch.no_grad()
    def after_update(self) -> None:
        """Take what the optimiser has moved out of its bounds back into them."""
        if self.log_scale is not None:
            self.log_scale.clamp_(max=-math.log(losses.COLDEST))

    @property
    def parts(self) -> dict[str, float]:
        # Read when asked for: the forward pass need not wait for the GPU.
        return dict(
            zip((name for group in self._groups for name in group), self.values.tolist(), strict=True)
        )

    @property
    def values(self) -> Tensor:
        """(T,) what `parts` holds, in its order, where the loss is."""
        return torch.stack([term for group in self._groups for term in group.values()])

    def without_held_out(self, labels: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (N,), or (N, 2) with attributes, and anchors (C, ...) as if the set had the seen classes alone.

        So no feature is drawn from a name that training must not know of either.
        """
        if len(self.seen) == len(anchors):
            return labels, anchors
        place = torch.full((len(anchors) + 1,), -1, device=labels.device)  # the last entry serves label -1
        place[self.seen] = torch.arange(len(self.seen), device=labels.device)
        if labels.ndim == 1:
            return place[labels], anchors[self.seen]
        return torch.stack([place[labels[:, 0]], labels[:, 1]], 1), anchors[self.seen]

    def weighted_parts(self, values: list[float], shares: Tensor) -> dict[str, float]:
        """`parts` of these `values`, each times the share (K,) of its kind of voxel; 0 where that is 0, even of NaN."""
        kinds = zip(shares.tolist(), self._groups, strict=True)
        named = ((name, share) for share, group in kinds for name in group)
        return {
            name: share * value if share else 0.0 for (name, share), value in zip(named, values, strict=True)
        }

    def total(self, *groups: dict[str, Tensor]) -> Tensor:
        """The sum of the terms, which are kept as `parts`; of several groups, one sum for each, (K,)."""
        self._groups = tuple({name: term.detach() for name, term in group.items()} for group in groups)
        sums = [torch.stack(list(group.values())).sum() for group in groups]
        return sums[0] if len(sums) == 1 else torch.stack(sums)


def labelled(labels: Tensor) -> int:
    """How many of `labels` (N,) are not ignored; on the CPU without a team of threads, which costs more than this."""
    return int(np.count_nonzero(labels.cpu().numpy() >= 0))
