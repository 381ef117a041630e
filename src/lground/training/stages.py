"""What is trained: a model with its loss and its prediction.

A stage is one module whose forward pass is the loss, so that gradient synchronisation and autocast wrap all of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lground import losses
from lground.data import Batch, SceneDataset, collate
from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import TEMPERATURE, Model, Res16UNet, load_model, transfer_weights
from lground.progress import say
from lground.text import load_anchors
from lground.training.recipe import Recipe
from lground.training.score import sparse_input

LANGUAGE_LOSSES = ("contrastive", "contrastive_ce", "l2", "supcon")
SEGMENTATION_LOSSES = ("cross_entropy", "focal")
CLASS_WEIGHTS = {"inverse_log": losses.inverse_log_frequency, "log": losses.log_frequency}


def build_stage(recipe: Recipe, label_set: LabelSet, train_set: SceneDataset) -> "Stage":
    if recipe.stage == "pretrain":
        return Pretraining(recipe, label_set)
    return Finetuning(recipe, label_set, train_set)


class Stage(nn.Module):
    """forward(batch, generator) -> loss, a scalar; `model` is what is evaluated and saved."""

    allowed_losses: tuple[str, ...]

    def __init__(self, recipe: Recipe, label_set: LabelSet, **arguments) -> None:
        super().__init__()
        if recipe.loss.name not in self.allowed_losses:
            raise InputError(
                f"loss.name={recipe.loss.name}: {recipe.stage} takes {', '.join(self.allowed_losses)}"
            )
        self.loss = recipe.loss
        self.model = Model.fresh(
            recipe.network.name,
            label_set,
            recipe.data.voxel_size,
            stem_kernel_size=recipe.network.stem_kernel_size,
            bn_momentum=recipe.network.bn_momentum,
            **arguments,
        )
        self.model.recipe = recipe.to_yaml()


class Pretraining(Stage):
    """Points to the text anchors of their classes (the pretraining of ECCV 2022)."""

    allowed_losses = LANGUAGE_LOSSES

    def __init__(self, recipe: Recipe, label_set: LabelSet) -> None:
        if recipe.text.anchors is None:
            raise InputError(
                "text.anchors is not set: make them with `lground anchors`, then text.anchors=FILE"
            )
        anchors = load_anchors(recipe.text.anchors, names=label_set.names)
        super().__init__(recipe, label_set, representation_only=True, anchor_channels=anchors.plain.shape[1])
        self.model.anchors = anchors.plain
        self.model.grounding = {"encoder": anchors.encoder, "prompt": anchors.prompt}
        self._check_width(recipe.network.name)
        if recipe.text.projection == "pca":
            fix_projection(self.model)
        if recipe.network.weights:
            transfer_weights(load_model(recipe.network.weights), self.model.network, recipe.network.weights)
        if recipe.loss.name == "supcon":  # how often class `row` was taken for class `column`
            self.register_buffer("confusion", torch.zeros(len(label_set), len(label_set)))

    def _check_width(self, name: str) -> None:
        width, text = self.model.network.feature_channels, self.model.anchors.shape[1]
        if self.model.network.projection_layer is None and width != text:
            raise InputError(
                f"network.name={name}: its features are {width} wide but the anchors {text}; "
                "choose an encoder of that width, or a network that projects anchors (its name ends in _Proj)"
            )

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        features = self.model.network(sparse_input(batch)).features
        anchors = self.model.project(self.model.anchors)
        labels, loss = batch.labels, self.loss
        hinges = dict(
            distance=loss.distance,
            positive_threshold=loss.positive_threshold,
            negative_threshold=loss.negative_threshold,
            negative_weight=loss.negative_weight,
            hinge=loss.hinge,
            reduction=loss.reduction,
        )
        if loss.name == "contrastive":
            negatives = losses.draw_negatives(labels, len(anchors), loss.negatives, generator=generator)
            return losses.language_contrastive_loss(features, labels, anchors, negatives, **hinges)
        if loss.name == "contrastive_ce":
            return losses.language_cross_entropy(features, labels, anchors, loss.temperature)
        if loss.name == "l2":
            return losses.embedding_regression(features, labels, anchors)
        self._count_confusion(features, labels, anchors)
        positives = losses.draw_same_class(labels, 1, generator=generator)
        negatives = losses.draw_confused(labels, self.confusion, loss.negatives, generator=generator)
        return losses.point_supervised_contrastive(features, labels, positives, negatives, **hinges)

    @torch.no_grad()
    def _count_confusion(self, features: Tensor, labels: Tensor, anchors: Tensor) -> None:
        valid = labels >= 0
        predicted = losses.anchor_similarity(features[valid], anchors).argmax(1)
        ones = torch.ones(len(predicted), device=predicted.device)
        self.confusion.index_put_((labels[valid], predicted), ones, accumulate=True)


@torch.no_grad()
def fix_projection(model: Model) -> None:
    """Project anchors by their own principal axes and keep that map: nothing can collapse, cosines stay close.

    The anchors' mean is what all names of a language model share, so it is taken out.
    """
    layer = model.network.projection_layer
    if layer is None:
        raise InputError(
            "text.projection=pca is for networks that project anchors (their names end in _Proj)"
        )
    centred = model.anchors - model.anchors.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: layer.out_channels]  # (at most C, d_text)
    layer.weight.zero_()
    layer.weight[: len(axes)] = axes[:, :, None]
    layer.bias.copy_(-layer.weight[:, :, 0] @ model.anchors.mean(0))
    layer.requires_grad_(False)


class Finetuning(Stage):
    """Points to classes, from pretrained weights or from scratch (the second stage of ECCV 2022)."""

    allowed_losses = SEGMENTATION_LOSSES

    def __init__(self, recipe: Recipe, label_set: LabelSet, train_set: SceneDataset) -> None:
        super().__init__(recipe, label_set)
        network, source = self.model.network, recipe.network.weights
        if source:
            pretrained = load_model(source)
            fresh = transfer_weights(pretrained, network, source, fresh=("final.",))
            say(f"{source}: loaded, all but {', '.join(fresh) or 'nothing'}")
            if recipe.network.classifier == "anchors":
                _check_anchors(pretrained, label_set, source)
                start_classifier(network, pretrained, train_set)
        elif recipe.network.classifier_only or recipe.network.classifier == "anchors":
            raise InputError(
                "network.classifier and classifier_only need pretrained weights: give network.weights=FILE"
            )
        self.classifier_only = recipe.network.classifier_only
        if self.classifier_only:
            network.requires_grad_(False)
            network.final.requires_grad_(True)
        weights = None
        if recipe.loss.class_weights != "none":
            counts = torch.from_numpy(train_set.class_counts(len(label_set)))
            weights = CLASS_WEIGHTS[recipe.loss.class_weights](counts)
        self.register_buffer("class_weights", weights)

    def train(self, mode: bool = True) -> "Finetuning":
        super().train(mode)
        if self.classifier_only:  # frozen features: their batch statistics stay those of pretraining too
            self.model.network.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        logits, _ = self.model(sparse_input(batch))
        if self.loss.name == "focal":
            return losses.focal_loss(logits, batch.labels, gamma=self.loss.gamma, weights=self.class_weights)
        return losses.cross_entropy(logits, batch.labels, weights=self.class_weights)


def _check_anchors(pretrained: Model, label_set: LabelSet, source: str) -> None:
    if pretrained.has_classifier or pretrained.anchors is None:
        raise InputError(f"{source}: has no anchors to start a classifier at; use network.classifier=random")
    if pretrained.label_set.names != label_set.names:
        raise InputError(f"{source}: its anchors are of other classes; use network.classifier=random")


@torch.no_grad()
def start_classifier(network: Res16UNet, pretrained: Model, train_set: SceneDataset) -> None:
    """Let a fresh linear classifier say what the pretrained model says: its rows are the anchors' directions.

    The classifier does not normalise features, so it is scaled by their mean norm, measured on one scene.
    """
    batch = collate([train_set[0, 0]])[0]
    norm = pretrained.network(sparse_input(batch)).features.norm(dim=1).mean()
    directions = F.normalize(pretrained.project(pretrained.anchors), dim=1)  # (C, d)
    network.final.kernel.copy_(directions.T / (TEMPERATURE * norm))
    network.final.bias.zero_()
