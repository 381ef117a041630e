"""The stages of training: language pretraining, fine-tuning, instances; their recipes and run folders."""

from lground.training.chain import train
from lground.training.recipe import Recipe, load_recipe, shipped
from lground.training.score import Evaluation, ObjectEvaluation

__all__ = ["Evaluation", "ObjectEvaluation", "Recipe", "load_recipe", "shipped", "train"]
