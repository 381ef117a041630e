"""Res16UNet and its heads, and checkpoints old and new."""

from lground.models.architecture import infer_architecture
from lground.models.build import build
from lground.models.checkpoints import Checkpoint, load_into, read_checkpoint
from lground.models.model import TEMPERATURE, Model, load_model, load_published, save_model, transfer_weights
from lground.models.res16unet import Res16UNet
from lground.models.variants import VARIANTS, Variant, find_variant

__all__ = [
    "TEMPERATURE",
    "VARIANTS",
    "Checkpoint",
    "Model",
    "Res16UNet",
    "Variant",
    "build",
    "find_variant",
    "infer_architecture",
    "load_into",
    "load_model",
    "load_published",
    "read_checkpoint",
    "save_model",
    "transfer_weights",
]
