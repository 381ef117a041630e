"""Points to classes, from pretrained weights or from scratch (the second stage of ECCV 2022)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lground import losses
from lground.data import Batch, SceneDataset, collate
from lground.errors import InputError
from lground.labels import LabelSet
from lground.models import TEMPERATURE, Model, Res16UNet, find_variant, transfer_weights
from lground.progress import say
from lground.text import Anchors, load_anchors
from lground.training.recipe import Recipe
from lground.training.score import sparse_input
from lground.training.stages.pretraining import fix_projection
from lground.training.stages.stage import Stage

CLASS_WEIGHTS = {"inverse_log": losses.inverse_log_frequency, "log": losses.log_frequency}


class Finetuning(Stage):
    """A classifier on the features, by cross-entropy or focal loss, with further terms by weight.

    loss.logit_adjustment: cross-entropy and focal loss see logits plus so many times the log prior of the classes.
    loss.lovasz: the Lovász-softmax loss of the logits themselves. loss.language: features are held at the text anchors
    of their classes, too, by soft-max over all classes; the anchors stay as pretraining projected them.
    """

    allowed_losses = ("cross_entropy", "focal")
    fresh = ("final.",)  # tensors that the weights it starts from may lack

    def __init__(
        self, recipe: Recipe, label_set: LabelSet, train_set: SceneDataset, pretrained: Model | None = None
    ) -> None:
        _check_recipe(recipe, pretrained)
        language = recipe.loss.language > 0
        anchors = _text_anchors(recipe, label_set, pretrained) if language else None
        super().__init__(recipe, label_set, **_anchor_channels(pretrained, anchors))
        network = self.model.network
        if pretrained is not None:
            self._start(pretrained, recipe, train_set)
        self.register_buffer("anchors", None)  # (C, d)
        if anchors is not None:
            self._ground(anchors, pretrained or self.model, recipe)
        if network.projection_layer is not None:  # of pretraining: kept to answer questions, not trained
            network.projection_layer.requires_grad_(False)
        self.classifier_only = recipe.network.classifier_only
        if self.classifier_only:
            network.requires_grad_(False)
            network.final.requires_grad_(True)
        self.class_counts, weights, prior = None, None, None
        if recipe.loss.class_weights != "none" or recipe.loss.logit_adjustment:
            self.class_counts = torch.from_numpy(train_set.class_counts(len(label_set)))
        if recipe.loss.class_weights != "none":
            weights = CLASS_WEIGHTS[recipe.loss.class_weights](self.class_counts)
        if recipe.loss.logit_adjustment:
            prior = recipe.loss.logit_adjustment * losses.log_prior(self.class_counts)
        self.register_buffer("class_weights", weights)
        self.register_buffer("prior", prior, persistent=False)  # (C,), added to logits

    def _start(self, pretrained: Model, recipe: Recipe, train_set: SceneDataset) -> None:
        """Load the weights that the recipe names, all but a classifier of other classes."""
        source, network, label_set = recipe.network.weights, self.model.network, self.model.label_set
        same_classes = pretrained.label_set.names == label_set.names
        if recipe.network.classifier == "anchors":
            if pretrained.has_classifier or pretrained.anchors is None:
                raise InputError(
                    f"{source}: has no anchors to start a classifier at; use network.classifier=random"
                )
            if not same_classes:
                raise InputError(
                    f"{source}: its anchors are of other classes ({pretrained.label_set.name}, not "
                    f"{label_set.name}); use network.classifier=random"
                )
        told = ""
        if pretrained.has_classifier and not same_classes:
            told = f"; it classifies {pretrained.label_set.name}, a new classifier learns {label_set.name}"
            pretrained.network.final = None
        fresh = transfer_weights(pretrained, network, source, fresh=self.fresh)
        if source:  # a resumed run has weights of its own
            say(f"{source}: loaded, all but {', '.join(fresh) or 'nothing'}{told}")
        if recipe.network.classifier == "anchors":
            start_classifier(network, pretrained, train_set)
        anchors = pretrained.anchors
        if same_classes and anchors is not None and anchors.shape[1] == _text_width(self.model):
            self.model.anchors, self.model.grounding = anchors, pretrained.grounding  # to answer questions

    @torch.no_grad()
    def _ground(self, anchors: Anchors, projecting: Model, recipe: Recipe) -> None:
        """Fix the anchors at the width of the features, and keep the words in the model where it can use them."""
        model, text, width = self.model, anchors.plain, anchors.plain.shape[1]
        takes = _text_width(projecting)
        if width != takes:
            raise InputError(
                f"{recipe.text.anchors}: anchors are {width} wide, {projecting.name} takes {takes} wide ones; "
                "give other anchors, or start from weights of `lground pretrain`, which hold their own"
            )
        if width == _text_width(model):
            model.anchors = text
            model.grounding = {"encoder": anchors.encoder, "prompt": anchors.prompt}
        if projecting is model and model.network.projection_layer is not None:  # nobody learned one
            fix_projection(model, self.seen)
        self.anchors = projecting.project(text)
        self.anchors = _rectified_as(model.network, self.anchors)

    def train(self, mode: bool = True) -> "Finetuning":
        super().train(mode)
        if self.classifier_only:  # frozen features: their batch statistics stay those of pretraining too
            self.model.network.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        logits, features = self.model(sparse_input(batch))
        return self.total(self.class_terms(logits, features, batch.labels))

    def class_terms(self, logits: Tensor, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss for classes, by name, each a mean over the labelled voxels."""
        loss = self.loss
        parts = {loss.name: self._classification(logits, labels)}
        if loss.lovasz > 0:
            parts["lovasz"] = loss.lovasz * losses.lovasz_softmax(logits, labels)
        if loss.language > 0:
            language = losses.language_cross_entropy(
                features,
                *self.without_held_out(labels, self.anchors),
                self.temperature,
                reduction=loss.reduction,
            )
            parts["language"] = loss.language * language
        return parts

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss
        logits = logits if self.prior is None else logits + self.prior
        common = {"weights": self.class_weights, "reduction": loss.reduction}
        if loss.name == "focal":
            return losses.focal_loss(logits, labels, gamma=loss.gamma, **common)
        return losses.cross_entropy(logits, labels, **common)

    def class_weight_table(self) -> list[dict]:
        """Class, labelled points in the training scenes and weight, where the loss has weights; else empty."""
        if self.class_weights is None:
            return []
        labels = self.model.label_set
        columns = labels.ids.tolist(), labels.names, self.class_counts.tolist(), self.class_weights.tolist()
        return [
            {"id": id_, "name": name, "points": points, "weight": weight}
            for id_, name, points, weight in zip(*columns, strict=True)
        ]


def _check_recipe(recipe: Recipe, pretrained: Model | None) -> None:
    """Refuse what would silently do nothing."""
    network, loss = recipe.network, recipe.loss
    if find_variant(network.name).offsets != (recipe.stage == "instances"):
        raise InputError(
            f"network.name={network.name}: networks whose names begin with insseg_ have the head for offsets that "
            f"`lground instances` needs; `lground finetune` takes the others"
        )
    if pretrained is None and (network.classifier_only or network.classifier == "anchors"):
        raise InputError(
            "network.classifier and classifier_only need pretrained weights: give network.weights=FILE"
        )
    if loss.temperature_learned and not loss.language:
        raise InputError("loss.temperature_learned is of the language loss: give loss.language a weight")
    if network.classifier_only and loss.language > 0:
        raise InputError("loss.language moves features, but network.classifier_only freezes them: set one")
    if recipe.attributes.mode != "none":
        raise InputError("attributes.mode is for pretraining: a classifier has no name for a red chair")


def _text_anchors(recipe: Recipe, label_set: LabelSet, pretrained: Model | None) -> Anchors:
    """The anchors that the weights were pretrained with, else those of the recipe."""
    if pretrained is None or pretrained.anchors is None:
        if recipe.text.anchors is None:
            raise InputError(
                "loss.language needs text anchors: start from weights of `lground pretrain` "
                "(network.weights=RUN), or give text.anchors=FILE"
            )
        return load_anchors(recipe.text.anchors, names=label_set.names)
    if pretrained.label_set.names != label_set.names:
        raise InputError(
            f"{recipe.network.weights}: its anchors are of other classes ({pretrained.label_set.name}, not "
            f"{label_set.name}): set loss.language=0, or data.label_set={pretrained.label_set.name}"
        )
    grounding = {"encoder": "", "prompt": ""} | pretrained.grounding
    return Anchors(pretrained.anchors, label_set.names, **grounding)


def _text_width(model: Model) -> int:
    """How wide the texts are that compare to the model's features."""
    projection = model.network.projection_layer
    return model.network.feature_channels if projection is None else projection.in_channels


def _anchor_channels(pretrained: Model | None, anchors: Anchors | None) -> dict[str, int]:
    """How wide the texts are that a network's projection takes, where that is known."""
    projection = None if pretrained is None else pretrained.network.projection_layer
    if projection is not None:
        return {"anchor_channels": projection.in_channels}
    return {} if anchors is None else {"anchor_channels": anchors.plain.shape[1]}


@torch.no_grad()
def start_classifier(network: Res16UNet, pretrained: Model, train_set: SceneDataset) -> None:
    """Let a fresh linear classifier say what the pretrained model says: its rows are the anchors' directions.

    The classifier does not normalise features, so it is scaled by their mean norm, measured on one scene, and by the
    temperature at which the cosines tell most about the labels of that scene.
    """
    batch = collate([train_set[0, 0]])[0]
    features = _rectified_as(network, pretrained.network(sparse_input(batch)).features)
    anchors = _rectified_as(network, pretrained.project(pretrained.anchors))  # (C, d)
    norm, temperature = features.norm(dim=1).mean(), fitting_temperature(features, batch.labels, anchors)
    network.final.kernel.copy_(F.normalize(anchors, dim=1).T / (temperature * norm))
    network.final.bias.zero_()


def fitting_temperature(features: Tensor, labels: Tensor, anchors: Tensor) -> float:
    """The one of 0.01 to 0.32 at which `labels` (N,), -1 unknown, are likeliest for features (N, d) at anchors (C, d).

    `TEMPERATURE` where fewer labels than classes are known: a handful may all be right, and then colder is likelier.
    """
    known = labels >= 0
    if known.sum() < len(anchors):
        return TEMPERATURE
    cosines = losses.anchor_similarity(features[known], anchors)
    tried = torch.logspace(-2, -0.5, 16).tolist()
    return min(tried, key=lambda t: float(F.cross_entropy(cosines / t, labels[known])))


def _rectified_as(network: Res16UNet, vectors: Tensor) -> Tensor:
    """What signed features or anchors (N, d) are where the network ends in a ReLU.

    Pretraining brings signed features f to an anchor a. Behind a ReLU they lie at relu(a): the negative half of an
    anchor is out of reach.
    """
    return vectors.relu() if network.block8[-1].final_relu else vectors
