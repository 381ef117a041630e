"""The model to predict with, and where it runs."""

import os

import torch

from lground import models
from lground.errors import InputError
from lground.models import Model


def load_model(path: str | os.PathLike, anchors: str | os.PathLike | None = None) -> Model:
    """Load a run folder, a .safetensors file or a published .ckpt, in evaluation mode, on the CPU.

    anchors: text anchors (from `lground anchors`) that take the place of the file's own; a published
    pretraining checkpoint has none and needs them. Raises InputError for another architecture and for anchors
    that do not fit.
    """
    model = models.load_model(path)
    if anchors is None:
        return model
    from lground.text import load_anchors

    loaded = load_anchors(anchors, model.label_set.names)
    vectors = loaded.plain
    if vectors.shape[1] != text_width(model):
        advice = "make them with the text encoder the model was trained with"
        if model.has_classifier and model.network.projection_layer is None and not model.grounding:
            advice = (
                "but its features meet no text; use the pretraining it started from (RUN/before), or a network that "
                "keeps its projection of texts (recipe best)"
            )
        raise InputError(
            f"{anchors}: its anchors are {vectors.shape[1]} wide, {path} needs {text_width(model)}: {advice}"
        )
    model.anchors = vectors
    model.grounding = {"encoder": loaded.encoder, "prompt": loaded.prompt}
    return model


def text_width(model: Model) -> int:
    """Width of the text embeddings that the model's features can be compared with."""
    projection = model.network.projection_layer
    return model.network.feature_channels if projection is None else projection.in_channels


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name` (cpu, cuda, cuda:1), by default a GPU if there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # unknown name; no such device; torch built without it
        raise InputError(f"--device {name}: not available here; use cpu, or see `lground doctor`") from None
    return device
