"""What the stages share.

A stage is one module whose forward pass is the loss, so that gradient synchronisation and autocast wrap all of it.
"""

import torch
from torch import Tensor, nn

from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import Model
from lground.training.recipe import Recipe


class Stage(nn.Module):
    """forward(batch, generator) -> loss, a scalar: the mean over the labelled voxels of the batch.

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
        self._parts: dict[str, Tensor] = {}
        self.model = Model.fresh(
            recipe.network.name,
            label_set,
            recipe.data.voxel_size,
            stem_kernel_size=recipe.network.stem_kernel_size,
            bn_momentum=recipe.network.bn_momentum,
            **arguments,
        )
        self.model.recipe = recipe.to_yaml()

    def class_weight_table(self) -> list[dict]:
        """Class, points in the training labels and weight in the loss; empty for a loss without weights."""
        return []

    @property
    def parts(self) -> dict[str, float]:
        # Read when asked for: the forward pass need not wait for the GPU.
        return {name: float(term) for name, term in self._parts.items()}

    def total(self, parts: dict[str, Tensor]) -> Tensor:
        """The sum of the terms, which are kept as `parts`."""
        self._parts = {name: term.detach() for name, term in parts.items()}
        return torch.stack(list(parts.values())).sum()
