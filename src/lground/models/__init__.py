"""Res16UNet and its heads, and checkpoints old and new."""

from lground.models.build import build
from lground.models.model import Model, load_model, load_weights, save_model
from lground.models.res16unet import Res16UNet
from lground.models.variants import VARIANTS, Variant, find_variant

__all__ = ["VARIANTS", "Model", "Res16UNet", "Variant", "build", "load_model", "load_weights", "save_model"]
