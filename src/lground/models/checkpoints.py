"""Weights from files: safetensors, and the checkpoints that others published. Nothing in them is run."""

import _compat_pickle
import argparse
import pathlib
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lground.errors import InputError

# What trainers put before the names of the network's tensors.
PREFIXES = ("module.", "model.", "encoder.")
# Tensors of losses that were saved along with the network.
STRAY = ("embedding_criterion.", "criterion.", "attr_linears.")
STATE_KEYS = ("state_dict", "model_state_dict", "model")
# Parts of the standard library that options are made of; inert objects take their place.
HARMLESS_MODULES = (
    "argparse",
    "collections",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "pathlib",
    "typing",
)
STAND_INS = {
    "argparse.Namespace": argparse.Namespace,
    "pathlib.Path": pathlib.PurePosixPath,
    "pathlib.PosixPath": pathlib.PurePosixPath,
    "pathlib.WindowsPath": pathlib.PureWindowsPath,
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds for us.

    Attributes:
        state: the network's tensors under their own names, prefixes stripped.
        set_aside: names of tensors of losses, which are no part of the network.
        network: the network's name, where the file says so, else None.
    """

    state: dict[str, Tensor]
    set_aside: tuple[str, ...] = ()
    network: str | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a Lightning .ckpt, a plain .pth / .pt, or a .safetensors without metadata.

    Raises InputError when the file is missing, damaged, holds no tensors, or asks for code to be run.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder; name a checkpoint' if path.is_dir() else 'no such file'}")
    content, metadata = read_safetensors(path) if path.suffix == ".safetensors" else (_load_inert(path), {})
    if "network" in metadata:
        raise InputError(f"{path}: is a model of lground already; use it as it is")
    state = next((content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    network, stray = {}, []
    for key, tensor in tensors.items():
        name = _stripped(key)
        if name.startswith(STRAY):
            stray.append(key)
        elif name in network:
            raise InputError(
                f"{path}: two tensors are called {name} once their prefixes are stripped: keep one network"
            )
        else:
            network[name] = tensor
    if not network:
        raise InputError(f"{path}: holds no network weights; give a checkpoint with a state_dict")
    return Checkpoint(network, tuple(stray), _network_name(content))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file, on the CPU."""
    from safetensors import SafetensorError, safe_open  # the networks themselves need torch alone

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a readable .safetensors file ({error}); copy or convert it again"
        ) from None


def load_into(
    net: nn.Module, state: Mapping[str, Tensor], source: object, fresh: Sequence[str] = ()
) -> list[str]:
    """Load `state` into `net`, strictly; returns the names that stay as they were.

    Only names that start with one of `fresh` may be missing, left over or of another shape. Everything else
    that does not fit is named in the InputError.
    """
    own = net.state_dict()
    free = tuple(fresh)
    problems = {
        "missing": [k for k in own if k not in state],
        "left over": [k for k in state if k not in own],
        "of another shape": [k for k in own if k in state and state[k].shape != own[k].shape],
    }
    parts = [
        _named(names, what)
        for what, keys in problems.items()
        if (names := [k for k in keys if not k.startswith(free)])
    ]
    if parts:
        raise InputError(
            f"{source}: weights of another network: {'; '.join(parts)}; choose the network they are of"
        )
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if bad := [k for k, v in fits.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise InputError(f"{source}: {_named(bad, 'with values that are not finite')}; its training diverged")
    net.load_state_dict(fits, strict=False)
    return [k for k in own if k not in fits]


def _named(names: list[str], what: str) -> str:
    count = f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
    return f"{count} {what} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


def _stripped(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.partition(".")[2]
    return key


def _network_name(content: Mapping[str, Any]) -> str | None:
    """The option `model` among the saved hyper-parameters, or within their entry `config`."""
    options = _as_dict(content.get("hyper_parameters"))
    name = options.get("model", _as_dict(options.get("config")).get("model"))
    return name if isinstance(name, str) else None


def _as_dict(options: Any) -> dict:
    entries = dict(options) if isinstance(options, Mapping) else {}
    return getattr(options, "__dict__", {}) | entries


class _Inert:
    """Stands in for a class that a checkpoint mentions beside its tensors: keeps entries, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:
        return OrderedDict()  # the one type that the restricted unpickler fills with items and attributes


class _Opaque:
    """Stands in for numpy's values, whose state is no dictionary."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _load_inert(path: Path) -> dict:
    """The pickled dictionary, foreign classes replaced by inert ones, the standard library out of reach."""
    try:
        foreign = (
            torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
        )
        stand_ins = [(_stand_in(name), name) for name in foreign if not _is_dangerous(name)]
        with torch.serialization.safe_globals([*stand_ins, argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise InputError(f"{path}: not a checkpoint that can be read safely ({_reason(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a checkpoint with tensors by name")
    return content


def _stand_in(name: str) -> type:
    return STAND_INS.get(name, _Opaque if name.startswith("numpy.") else _Inert)


def _is_dangerous(name: str) -> bool:
    """Functions of the standard library (builtins, os, subprocess) have no business in a checkpoint."""
    module = name.partition(".")[0]
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)  # pickles write Python 2's names
    module = module.partition(".")[0]
    return module not in HARMLESS_MODULES and module in sys.stdlib_module_names


def _reason(error: Exception) -> str:
    """What torch had against the file, from a message that is a page long."""
    text = " ".join(str(error).split()).partition(" Check the documentation")[0]
    if "GLOBAL " in text:
        return f"it asks for {text.partition('GLOBAL ')[2].split()[0]}"
    text = text.partition("WeightsUnpickler error: ")[2] or text
    if text.isdigit():  # the byte that the unpickler stumbled over
        return "its content is not that of a checkpoint"
    return text.split(". ")[0][:120] or type(error).__name__
