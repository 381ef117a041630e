"""Which network a set of tensors belongs to, told from their names and shapes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lground.errors import InputError
from lground.models.res16unet import DECODER, ENCODER
from lground.models.variants import VARIANTS, Variant, find_variant

HEADS = {"final.kernel": "linear", "final.0.kernel": "two_step", "final.0.0.conv1.kernel": "block"}
LAST_OF_HEAD = {"linear": "final.kernel", "two_step": "final.4.kernel", "block": "final.7.kernel"}


def infer_architecture(
    state: Mapping[str, Tensor],
    source: object = "the checkpoint",
    name: str | None = None,
    hint: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Name and `build` arguments of the network that these tensors are of.

    Tensors do not tell whether the last block ends in a ReLU, so some names share a layout. Without `name`
    (or a `hint` that fits), weights with a classifier are taken for the variant with that ReLU (fine-tuned:
    Res16UNet34C rather than 34CR), weights without for the one that leaves features signed (pretrained with
    language: 34CR), where there is a choice.

    Args:
        state: tensors by name.
        source: what to call them in an error.
        name: the network, if known; it must fit.
        hint: the network that the saved options name; it decides between names of the same layout.

    Raises:
        InputError: no network (or not that one) has such tensors.
    """
    try:
        layers, planes, head, arguments = _layout(state)
    except (KeyError, IndexError, ValueError):
        raise InputError(f"{source}: not a Res16UNet: its tensors are called {_sample(state)}") from None
    offsets, projection = "offsets.kernel" in state, "projection_layer.weight" in state

    def fits(variant: Variant) -> bool:
        same = (variant.layers, variant.decoder_planes) == (layers, planes)
        return (
            same
            and head in (None, variant.head)
            and variant.offsets == offsets
            and (variant.projection or not projection)
        )

    if name is not None:
        if not fits(find_variant(name)):
            raise InputError(f"{source}: not the weights of {name}: {_described(layers, planes, state)}")
        return name, arguments
    names = [
        known for known, variant in VARIANTS.items() if fits(variant) and variant.projection == projection
    ]
    if hint in names:
        return hint, arguments
    if not names:
        raise InputError(f"{source}: no known network has {_described(layers, planes, state)}")
    with_classifier = head is not None
    names.sort(
        key=lambda known: VARIANTS[known].final_relu != with_classifier
    )  # stable: table order among equals
    return names[0], arguments


def _layout(state: Mapping[str, Tensor]) -> tuple[tuple, tuple, str | None, dict[str, Any]]:
    blocks = [blocks for _, _, blocks in ENCODER + DECODER]
    layers = tuple(_depth(state, name) for name in blocks)
    planes = tuple(state[f"{name}.0.conv2.kernel"].shape[2] for name in blocks[4:])
    volume, in_channels, _ = state["conv0p1s1.kernel"].shape
    head = next((kind for key, kind in HEADS.items() if key in state), None)
    arguments: dict[str, Any] = {"in_channels": in_channels, "stem_kernel_size": round(volume ** (1 / 3))}
    if head is None:
        arguments["representation_only"] = True
    else:
        arguments["out_channels"] = state[LAST_OF_HEAD[head]].shape[1]
    if "projection_layer.weight" in state:
        arguments["anchor_channels"] = state["projection_layer.weight"].shape[1]
    return layers, planes, head, arguments


def _depth(state: Mapping[str, Tensor], blocks: str) -> int:
    return len({key.split(".")[1] for key in state if key.startswith(f"{blocks}.")})


def _described(layers: tuple, planes: tuple, state: Mapping[str, Tensor]) -> str:
    blocks, decoder = ", ".join(map(str, layers)), ", ".join(map(str, planes))
    parts = ("final", "offsets", "projection_layer")
    heads = " and ".join(part for part in parts if any(key.startswith(f"{part}.") for key in state))
    return f"stages of {blocks} blocks, {decoder} decoder channels and {heads or 'no head'}"


def _sample(state: Mapping[str, Tensor]) -> str:
    return ", ".join(list(state)[:3]) + (", ..." if len(state) > 3 else "")
