"""Weights in and out: safetensors, and the checkpoints that others published."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lground.errors import InputError


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file, on the CPU."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file ({error}); copy or convert it again") from None


def load_into(net: nn.Module, state: Mapping[str, Tensor], source: object, fresh: Sequence[str] = ()) -> list[str]:
    """Load `state` into `net`, strictly; returns the names that stay as they were.

    Only names that start with one of `fresh` may be missing, left over or of another shape. Everything else that does
    not fit is named in the InputError.
    """
    own = net.state_dict()
    free = tuple(fresh)
    wrong = [k for k in own if k in state and state[k].shape != own[k].shape and not k.startswith(free or ("\0",))]
    missing = [k for k in own if k not in state and not k.startswith(free or ("\0",))]
    extra = [k for k in state if k not in own and not k.startswith(free or ("\0",))]
    if wrong or missing or extra:
        parts = [f"{len(v)} {what} ({', '.join(v[:4])}{', ...' if len(v) > 4 else ''})"
                 for what, v in (("missing", missing), ("left over", extra), ("of another shape", wrong)) if v]
        raise InputError(f"{source}: weights of another network: tensors {'; '.join(parts)}; choose the network they are of")
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    net.load_state_dict(fits, strict=False)
    return [k for k in own if k not in fits]
