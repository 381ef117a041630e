"""Points to the text anchors of their classes (the pretraining of ECCV 2022)."""

import torch
import torch.distributed as dist
from torch import Tensor

from lground import losses
from lground.data import Batch
from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import Model, transfer_weights
from lground.text import Anchors, load_anchors
from lground.training.recipe import Recipe
from lground.training.score import sparse_input
from lground.training.stages.stage import Stage


class Pretraining(Stage):
    """The loss by name, on plain or on attributed names.

    loss.lovasz: beside a language loss, the Lovász-softmax loss of cosines to the plain names, over the temperature.
    attributes.mode "raw": the data changes objects and says how; the positive is the attributed form. "latent":
    features of tail classes are changed instead, by linear maps from a name to its attributed forms.
    """

    allowed_losses = ("contrastive", "contrastive_ce", "l2", "supcon")

    def __init__(self, recipe: Recipe, label_set: LabelSet, pretrained: Model | None = None) -> None:
        if recipe.text.anchors is None:
            raise InputError(
                "text.anchors is not set: make them with `lground anchors`, then text.anchors=FILE"
            )
        _check_recipe(recipe)
        has_temperature = recipe.loss.name == "contrastive_ce" or recipe.loss.lovasz
        if recipe.loss.temperature_learned and not has_temperature:
            raise InputError(f"loss.temperature_learned: loss.name={recipe.loss.name} has no temperature")
        if recipe.loss.name == "supcon" and recipe.loss.lovasz:
            raise InputError("loss.lovasz is of classes, and loss.name=supcon has none: set it to 0")
        anchors = load_anchors(recipe.text.anchors, names=label_set.names)
        super().__init__(recipe, label_set, representation_only=True, anchor_channels=anchors.plain.shape[1])
        self.model.anchors = anchors.plain
        self.model.grounding = {"encoder": anchors.encoder, "prompt": anchors.prompt}
        self._check_width(recipe.network.name)
        if recipe.text.projection == "pca":
            fix_projection(self.model, self.seen)
        if pretrained is not None:
            self._transfer(pretrained, recipe)
        if recipe.loss.name == "supcon":  # how often class `row` was taken for class `column`
            self.register_buffer("confusion", torch.zeros(len(label_set), len(label_set), dtype=torch.int64))
            if self.model.network.projection_layer is not None:  # of texts, which have no part in the loss
                self.model.network.projection_layer.requires_grad_(False)
        self.attributes = recipe.attributes
        forms = anchors.vectors if recipe.attributes.mode == "none" else _forms(anchors, recipe)
        self.register_buffer("anchors", forms, persistent=False)  # (C, d), or (C, 9, d)
        if recipe.attributes.mode == "latent":
            self.attribute_maps = _attribute_maps(self.model, forms, recipe)
            self.register_buffer("tail", _tail(label_set), persistent=False)

    def _check_width(self, name: str) -> None:
        width, text = self.model.network.feature_channels, self.model.anchors.shape[1]
        if self.model.network.projection_layer is None and width != text:
            raise InputError(
                f"network.name={name}: its features are {width} wide but the anchors {text}; "
                "choose an encoder of that width, or a network that projects anchors (its name ends in _Proj)"
            )

    def _transfer(self, pretrained: Model, recipe: Recipe) -> None:
        source, network = recipe.network.weights, self.model.network
        old, new = pretrained.network.projection_layer, network.projection_layer
        if old is not None and new is not None and old.in_channels != new.in_channels:
            raise InputError(
                f"{source}: projects anchors that are {old.in_channels} wide, but those of "
                f"{recipe.text.anchors} are {new.in_channels}; give the anchors it was trained with"
            )
        transfer_weights(pretrained, network, source)

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        features = self.model.network(sparse_input(batch)).features
        if self.loss.name == "supcon":
            return self.total({"supcon": self._supcon(features, batch.labels, generator)})
        shown, labels = features, batch.labels
        if self.attributes.mode == "raw":
            labels = torch.stack([labels, batch.attributes], 1)
        elif self.attributes.mode == "latent":
            shown, labels = self._attributed(features, labels, generator)
        anchors = _projected(self.model, self.anchors)
        parts = {self.loss.name: self._language(shown, labels, anchors, generator)}
        if self.loss.lovasz:
            parts["lovasz"] = self.loss.lovasz * self._overlap(features, batch.labels, anchors)
        return self.total(parts)

    def _language(
        self, features: Tensor, labels: Tensor, anchors: Tensor, generator: torch.Generator
    ) -> Tensor:
        loss = self.loss
        labels, anchors = self.without_held_out(labels, anchors)
        if loss.name == "contrastive":
            negatives = losses.draw_negatives(labels, len(anchors), loss.negatives, generator=generator)
            return losses.language_contrastive_loss(features, labels, anchors, negatives, **self._hinges())
        if loss.name == "contrastive_ce":
            return losses.language_cross_entropy(
                features, labels, anchors, self.temperature, reduction=loss.reduction
            )
        return losses.embedding_regression(features, labels, anchors, reduction=loss.reduction)

    def _overlap(self, features: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
        labels, names = self.without_held_out(labels, anchors[:, 0] if anchors.ndim == 3 else anchors)
        return losses.lovasz_softmax(losses.anchor_similarity(features, names) / self.temperature, labels)

    def _supcon(self, features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self._count_confusion(features, labels)
        positives = losses.draw_same_class(labels, 1, generator=generator)
        negatives = losses.draw_confused(labels, self.confusion, self.loss.negatives, generator=generator)
        return losses.point_supervised_contrastive(features, labels, positives, negatives, **self._hinges())

    def _hinges(self) -> dict:
        loss = self.loss
        return dict(
            distance=loss.distance,
            positive_threshold=loss.positive_threshold,
            negative_threshold=loss.negative_threshold,
            negative_weight=loss.negative_weight,
            hinge=loss.hinge,
            reduction=loss.reduction,
        )

    @torch.no_grad()
    def _count_confusion(self, features: Tensor, labels: Tensor) -> None:
        valid, classes = labels >= 0, len(self.confusion)
        anchors = self.model.project(self.model.anchors)
        predicted = losses.anchor_similarity(features[valid], anchors).argmax(1)
        counts = torch.bincount(labels[valid] * classes + predicted, minlength=classes**2)
        if dist.is_initialized():
            dist.all_reduce(counts)
        self.confusion += counts.view(classes, classes)

    def _attributed(
        self, features: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Features (M, d) of some tail classes as those of a red (or big, ...) one; labels (M, 2) that say so."""
        drawn = losses.draw_attributes(
            labels,
            self.tail,
            len(self.anchors),
            self.attributes.latent_probability,
            generator=generator,
        )
        return self.attribute_maps.attribute(features, drawn), torch.stack([labels, drawn], 1)


def _check_recipe(recipe: Recipe) -> None:
    """Refuse what would silently do nothing."""
    of_classifiers = {
        "network.classifier_only": recipe.network.classifier_only,
        "network.classifier": recipe.network.classifier != "random",
        "loss.language": recipe.loss.language,
        "loss.logit_adjustment": recipe.loss.logit_adjustment,
        "loss.class_weights": recipe.loss.class_weights != "none",
    }
    if given := [key for key, is_set in of_classifiers.items() if is_set]:
        raise InputError(f"{given[0]} is for fine-tuning: pretraining has no classifier; leave it out")


@torch.no_grad()
def fix_projection(model: Model, seen: Tensor) -> None:
    """Project anchors by the principal axes of those `seen` (K,), for good: nothing can collapse, cosines stay close.

    The anchors' mean is what all names of a language model share, so it is taken out.
    """
    layer = model.network.projection_layer
    if layer is None:
        raise InputError(
            "text.projection=pca is for networks that project anchors (their names end in _Proj)"
        )
    mean = model.anchors[seen].mean(0)
    centred = model.anchors[seen] - mean
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[: layer.out_channels]  # (at most K, d_text)
    layer.weight.zero_()
    layer.weight[: len(axes)] = axes[:, :, None]
    layer.bias.copy_(-layer.weight[:, :, 0] @ mean)
    layer.requires_grad_(False)


def _projected(model: Model, anchors: Tensor) -> Tensor:
    """Anchors (C, d_text) or (C, 9, d_text) at the width of the features."""
    return model.project(anchors.flatten(0, -2)).unflatten(0, anchors.shape[:-1])


def _forms(anchors: Anchors, recipe: Recipe) -> Tensor:
    """Anchors (C, 9, d) of names and their attributed forms."""
    mode, path = recipe.attributes.mode, recipe.text.anchors
    if recipe.loss.name == "supcon":
        raise InputError(f"attributes.mode={mode}: loss.name=supcon uses no text; set attributes.mode=none")
    if anchors.vectors.ndim != 3:
        raise InputError(
            f"{path}: has no attributed forms such as 'a red chair', which attributes.mode={mode} needs; "
            "make them with `lground anchors --attributes`"
        )
    return anchors.vectors


def _attribute_maps(model: Model, forms: Tensor, recipe: Recipe) -> losses.AttributeProjections:
    """Fixed maps from the feature of a name to those of its forms, where features live."""
    if model.network.projection_layer is not None and recipe.text.projection == "learned":
        raise InputError(
            f"attributes.mode=latent: needs anchors that stay where they are, and {recipe.network.name} learns "
            "to project them; add text.projection=pca"
        )
    with torch.no_grad():
        forms = _projected(model, forms)
    maps = losses.AttributeProjections(forms.shape[2], forms.shape[1] - 1).fit(forms)
    return maps.requires_grad_(False)


def _tail(label_set: LabelSet) -> Tensor:
    if "tail" not in label_set.splits:
        raise InputError(f"attributes.mode=latent: changes tail classes, and {label_set.name} names none")
    return torch.tensor(label_set.splits["tail"])
