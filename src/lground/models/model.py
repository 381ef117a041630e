"""A trained model: the network, the classes it knows, the words it was grounded in; and its file.

One safetensors file holds the network's tensors under their own names, the text anchors as `anchors`, and
everything else as metadata (JSON text), so that a model file explains itself and nothing in it can run.
"""

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lground.errors import InputError
from lground.files import atomic_file
from lground.labels import LabelSet, from_rows, load_labels
from lground.models.architecture import infer_architecture
from lground.models.build import build
from lground.models.checkpoints import load_into, read_checkpoint, read_safetensors
from lground.models.res16unet import Res16UNet
from lground.progress import say
from lground.sparse import SparseTensor

PUBLISHED_LABELS = {20: "scannet20", 200: "scannet200"}
PUBLISHED_VOXEL_SIZE = 0.02
TEMPERATURE = 0.07  # CLIP's initial one: turns cosines into probabilities


class Model(nn.Module):
    """A network with its classes and, when it was pretrained with language, its anchors.

    Attributes:
        network: `Res16UNet`. Without classifier (pretraining) the classes are told by cosine to the anchors.
        name, network_args: what `lground.models.build` was called with.
        label_set: the C classes.
        voxel_size: metres.
        anchors: (C, d_text) float32, the text embedding of each class name, or None.
        grounding: how the anchors were made: {"encoder": ..., "prompt": ...}; empty without anchors.
        recipe: YAML of the training run, "" when unknown.
    """

    def __init__(
        self,
        network: Res16UNet,
        name: str,
        network_args: dict[str, Any],
        label_set: LabelSet,
        voxel_size: float,
        anchors: Tensor | None = None,
        grounding: dict[str, str] | None = None,
        recipe: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.name, self.network_args = name, network_args
        self.label_set = label_set
        self.voxel_size = voxel_size
        self.register_buffer("anchors", anchors, persistent=False)
        self.grounding = grounding or {}
        self.recipe = recipe

    @classmethod
    def fresh(cls, name: str, label_set: LabelSet, voxel_size: float, **arguments: Any) -> "Model":
        """An untrained model; `arguments` go to `lground.models.build`."""
        arguments = {"in_channels": 3, "out_channels": len(label_set)} | arguments
        return cls(build(name, **arguments), name, arguments, label_set, voxel_size)

    @property
    def has_classifier(self) -> bool:
        return self.network.final is not None

    @property
    def has_offsets(self) -> bool:
        """Whether it was trained to tell objects apart (`insseg_...` networks)."""
        return self.network.offsets is not None

    def require_offsets(self) -> None:
        """Raise InputError unless `has_offsets`."""
        if not self.has_offsets:
            raise InputError(
                f"{self.name} does not tell objects apart: give a model that `lground instances` trained"
            )

    def with_offsets(self, x: SparseTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets (M, 3) in metres from voxels to the centres of their objects, class logits and features.

        Raises InputError for a network without that head.
        """
        self.require_offsets()
        return tuple(output.features for output in self.network(x))

    def forward(self, x: SparseTensor) -> tuple[Tensor, Tensor]:
        """Class logits (M, C) and features (M, d) of voxels; when pretrained, cosines / 0.07."""
        if self.has_classifier:
            *_, logits, features = self.network(x)
            return logits.features, features.features
        features = self.network(x).features
        return self.similarity(features, self._anchors()) / TEMPERATURE, features

    def similarity(self, features: Tensor, text: Tensor) -> Tensor:
        """Cosine (M, T) between features (M, d) and text embeddings (T, d_text), projected as in training."""
        return F.normalize(features.float(), dim=1) @ F.normalize(self.project(text), dim=1).T

    def project(self, text: Tensor) -> Tensor:
        """Text embeddings (T, d_text) at the width of the features (T, d)."""
        return text if self.network.projection_layer is None else self.network.project(text)

    def _anchors(self) -> Tensor:
        if self.anchors is None:
            raise InputError(
                "the model was pretrained without classifier and its file holds no text anchors: "
                "give them (`--anchors`, made by `lground anchors`)"
            )
        return self.anchors


def save_model(model: Model, path: str | os.PathLike) -> None:
    """Write a model to one .safetensors file (float32), whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().contiguous() for name, t in model.network.state_dict().items()}
    if model.anchors is not None:
        tensors["anchors"] = model.anchors.detach().cpu().contiguous()
    with atomic_file(path) as part:
        save_file(tensors, part, metadata=describe(model))


def describe(model: Model) -> dict[str, str]:
    """All that a model is but its tensors."""
    from lground import __version__

    label_set = {"name": model.label_set.name, "classes": model.label_set.rows()}
    return {
        "lground_version": __version__,
        "network": model.name,
        "network_args": json.dumps(model.network_args),
        "label_set": json.dumps(label_set),
        "voxel_size": json.dumps(model.voxel_size),
        "grounding": json.dumps(model.grounding),
        "recipe": model.recipe,
    }


def load_model(path: str | os.PathLike) -> Model:
    """Load a trained model, in evaluation mode, on the CPU.

    `path`: a run folder (its best weights), a .safetensors file written by `save_model`, or a published
    checkpoint (.ckpt, .pth), whose network is inferred from its tensors, with ScanNet's classes and 2 cm
    voxels.
    Raises InputError when the file is missing, damaged, or of another architecture.
    """
    path = _weights_file(Path(path))
    if path.suffix != ".safetensors":
        return load_published(path).eval()
    tensors, metadata = read_safetensors(path)
    if "network" not in metadata:
        return load_published(path).eval()
    model = described(metadata, tensors.pop("anchors", None), path)
    load_into(model.network, tensors, source=path)
    return model.eval()


def described(metadata: dict[str, str], anchors: Tensor | None, source: object) -> Model:
    """A model that is what `describe` says, with fresh weights."""
    try:
        arguments = json.loads(metadata["network_args"])
        rows = json.loads(metadata["label_set"])
        voxel_size, grounding = float(metadata["voxel_size"]), json.loads(metadata["grounding"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source}: its metadata is damaged ({error}); write it again with `lground convert`"
        ) from None
    label_set = from_rows(rows["name"], rows["classes"], source)
    network, recipe = build(metadata["network"], **arguments), metadata.get("recipe", "")
    return Model(network, metadata["network"], arguments, label_set, voxel_size, anchors, grounding, recipe)


def load_published(path: Path, name: str | None = None, label_set: LabelSet | None = None) -> Model:
    """The model in a published checkpoint (.ckpt, .pth, or .safetensors without metadata), strictly.

    Args:
        path: the file.
        name: the network; told from the tensors and the saved options by default (`infer_architecture`).
        label_set: the classes; by default ScanNet's 20 or 200, by their number.

    Raises:
        InputError: the file cannot be read safely, or is of another architecture.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.set_aside:
        say(f"{path}: set aside, as they belong to a loss: {', '.join(checkpoint.set_aside)}")
    name, arguments = infer_architecture(checkpoint.state, path, name, checkpoint.network)
    if label_set is None:
        classes = arguments.get("out_channels", 200)
        if classes not in PUBLISHED_LABELS:
            raise InputError(
                f"{path}: has {classes} classes, neither ScanNet's 20 nor its 200: name them with --labels"
            )
        label_set = load_labels(PUBLISHED_LABELS[classes])
    elif arguments.setdefault("out_channels", len(label_set)) != len(label_set):
        raise InputError(
            f"{path}: has {arguments['out_channels']} classes, and {label_set.name} {len(label_set)}"
        )
    network = build(name, **arguments)
    load_into(network, checkpoint.state, source=path)
    return Model(network, name, arguments, label_set, PUBLISHED_VOXEL_SIZE)


def transfer_weights(
    pretrained: Model, network: nn.Module, source: object, fresh: tuple[str, ...] = ()
) -> list[str]:
    """Start `network` from the weights of `pretrained`; returns the names that stay fresh.

    Only tensors whose names start with one of `fresh` may be missing or left over; a projection of anchors
    is left out where the network has none. Raises InputError, naming `source`, for another architecture.
    """
    state = pretrained.network.state_dict()
    if getattr(network, "projection_layer", None) is None:
        state = {name: t for name, t in state.items() if not name.startswith("projection_layer.")}
    return load_into(network, state, source, fresh)


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: no such file; give a run folder, a .safetensors file or a .ckpt")
        return path
    for name in ("best.safetensors", "last.safetensors"):
        if (path / name).exists():
            return path / name
    raise InputError(f"{path}: holds no weights (best.safetensors); give a run folder or a weights file")
