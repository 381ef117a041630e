"""Points to classes and to the centres of their objects: the third stage (losses of PointGroup, CVPR 2020)."""

import torch
from torch import Tensor

from lground import losses
from lground.data import Batch, SceneDataset
from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import Model
from lground.training.recipe import Recipe
from lground.training.score import ObjectEvaluation, sparse_input
from lground.training.stages.finetuning import Finetuning
from lground.training.stages.stage import labelled


class Instances(Finetuning):
    """Fine-tuning with a second head: every voxel of an object points at the centre of that object.

    loss.offset_norm, loss.offset_direction: weights of the L1 error of the offsets and of minus their cosine. Both
    are means over the voxels of objects, the other terms over the labelled ones; an update over several batches
    keeps to that, as the loss has an entry for each of the two kinds.
    """

    fresh = (*Finetuning.fresh, "offsets_pre.", "bntr_offset.", "offsets.")

    def __init__(
        self, recipe: Recipe, label_set: LabelSet, train_set: SceneDataset, pretrained: Model | None = None
    ) -> None:
        if recipe.network.classifier_only:
            raise InputError("network.classifier_only leaves nothing to learn offsets with: set it to false")
        super().__init__(recipe, label_set, train_set, pretrained)
        self.instance_class = torch.tensor(label_set.instance_class)  # (C,) bool, stays on the CPU

    def evaluation(self) -> ObjectEvaluation:
        return ObjectEvaluation(self.model.label_set)

    def counted(self, batch: Batch) -> Tensor:
        """Labelled voxels (see `counted_for_classes`), voxels of objects."""
        return torch.tensor([self.counted_for_classes(batch), labelled(self.objects(batch))])

    def objects(self, batch: Batch) -> Tensor:
        """The number of the object of each voxel, (M,), in its scene; -1 for none that offsets are learned from.

        Those are of labelled voxels, of classes that are made of objects (not of wall and floor).
        """
        counted = self.instance_class.to(batch.labels.device)[batch.labels.clamp(min=0)] & (batch.labels >= 0)
        return torch.where(counted, batch.instances, -1)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        offsets, logits, features = self.model.with_offsets(sparse_input(batch))
        objects, loss = self.objects(batch), self.loss
        centers = losses.object_centers(batch.coordinates, objects)
        targets = losses.offset_targets(batch.coordinates[:, 1:], centers, self.model.voxel_size)
        pointing = {
            "offset_norm": loss.offset_norm * losses.offset_norm_loss(offsets, targets, objects),
            "offset_direction": loss.offset_direction
            * losses.offset_direction_loss(offsets, targets, objects),
        }
        return self.total(self.class_terms(logits, features, batch.labels), pointing)
