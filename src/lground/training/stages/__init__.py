"""What is trained: a model with its loss and its prediction."""

from lground.data import SceneDataset
from lground.labels import LabelSet
from lground.models import Model, load_model
from lground.training.recipe import Recipe
from lground.training.stages.finetuning import Finetuning
from lground.training.stages.instances import Instances
from lground.training.stages.pretraining import Pretraining
from lground.training.stages.stage import Stage

__all__ = ["Finetuning", "Instances", "Pretraining", "Stage", "build_stage"]


def build_stage(
    recipe: Recipe, label_set: LabelSet, train_set: SceneDataset, pretrained: Model | None = None
) -> Stage:
    """The stage that a recipe describes; raises InputError where it does not fit weights, anchors or data.

    pretrained: what it starts from; by default loaded from network.weights, where that is set.
    """
    if pretrained is None and recipe.network.weights:
        pretrained = load_model(recipe.network.weights)
    if recipe.stage == "pretrain":
        return Pretraining(recipe, label_set, pretrained)
    kind = Instances if recipe.stage == "instances" else Finetuning
    return kind(recipe, label_set, train_set, pretrained)
