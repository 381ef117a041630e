"""The stages of training: language pretraining, fine-tuning, instances; their recipes and run folders."""

from lground.training.chain import train
from lground.training.recipe import Recipe, load_recipe, shipped
from lground.training.score import Confusion, score, score_objects, summarize

__all__ = ["Confusion", "Recipe", "load_recipe", "score", "score_objects", "shipped", "summarize", "train"]
