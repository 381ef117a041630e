"""The stages of training: language pretraining, fine-tuning; their recipes and run folders."""

from lground.training.chain import train
from lground.training.recipe import Recipe, load_recipe, shipped
from lground.training.score import Confusion, score, summarize

__all__ = ["Confusion", "Recipe", "load_recipe", "score", "shipped", "summarize", "train"]
