"""Which shape of program to use for which layer: what was tuned on this device, else the rule of `shapes`.

`tuning` finds what is better and stores it; nothing is tuned unless asked for. Tuned shapes are stored by device and
version of torch and Triton, in a file that a process reads once.
"""

import hashlib
import json
import os
import re
import warnings
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path

import torch
import triton

from lground.files import write_json
from lground.sparse.kernels.shapes import PROGRAMS, Config, chip, default, fits
from lground.sparse.kernels.tiles import TILE_ROWS, Tiles

# How numbers can be multiplied.
KINDS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}


def choose(
    tiles: Tiles, in_channels: int, out_channels: int, dtype: torch.dtype, rows: int | None = None
) -> Config:
    """The shape of a program of a layer (Cin, Cout) over `tiles`.

    Args:
        rows: how many rows of the tiles are likely to be there; None: all that there is room for.
    """
    layer = tiles.volume, in_channels, out_channels
    return choose_for(tiles.n.device, tiles.capacity // tiles.tile_rows, layer, dtype, rows)


def choose_for(
    device: torch.device, tiles: int, layer: tuple[int, int, int], dtype: torch.dtype, rows: int | None = None
) -> Config:
    """The same for a layer (offsets, Cin, Cout) over a number of tiles that need not exist yet."""
    likely = tiles if rows is None else min(tiles, -(-rows // TILE_ROWS))
    found = tuned(device)
    config = found.get(key(*layer, kind_of(dtype), likely)) if found else None
    config = config or default(chip(device), *layer, dtype, likely)
    if config.splits > 1 and tiles * (layer[2] // config.columns) > PROGRAMS:
        return replace(config, splits=1)
    return config


def kind_of(dtype: torch.dtype) -> str:
    """The kind of products of a type, as torch is set now."""
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return str(dtype).removeprefix("torch.")


def key(volume: int, in_channels: int, out_channels: int, kind: str, number: int) -> str:
    """What a shape is stored under. Numbers of tiles are told apart by powers of two, up to 2048."""
    return f"{volume} {in_channels} {out_channels} {kind} {min(max(number, 1).bit_length(), 12)}"


@cache
def tuned(device: torch.device) -> dict[str, Config]:
    """Shapes found by `tuning` on this device, by `key`."""
    return read(device) if device.type == "cuda" else {}


def path(device: torch.device) -> Path:
    """Where the tuned shapes of a device lie."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lground" / "kernels"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    name = re.sub("[^a-z0-9.]+", "-", f"{name} torch {torch.__version__} triton {triton.__version__}".lower())
    return folder / f"{name}.json"


@cache
def version() -> str:
    """Of the kernels: a hash of their source."""
    folder = Path(__file__).parent
    sources = [
        (folder / f"{module}.py").read_bytes()
        for module in ("convolution", "epilogue", "tf32", "tiles", "masks")
    ]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]


def store(device: torch.device, configs: dict[str, Config]) -> None:
    """Add to the file. Of several processes that store at once the last one's file stays, whole."""
    layers = {**read(device), **configs}
    data = {"kernels": version(), "layers": {layer: astuple(layers[layer]) for layer in sorted(layers)}}
    write_json(path(device), data)
    tuned.cache_clear()


def read(device: torch.device) -> dict[str, Config]:
    """What the file holds; nothing, and a warning, if it is damaged or was written for other kernels."""
    file = path(device)
    try:
        stored = json.loads(file.read_text())
        if stored["kernels"] != version():
            warnings.warn(f"{file}: tuned for other kernels, not used; `lground doctor --tune`", stacklevel=2)
            return {}
        configs = {layer: Config(*shape) for layer, shape in stored["layers"].items()}
        for layer, config in configs.items():
            volume, in_channels, out_channels, kind, _ = layer.split()
            widths = int(volume), int(in_channels), int(out_channels)
            whole = all(type(n) is int for n in astuple(config))
            if not whole or not fits(config, chip(device), *widths, KINDS[kind]):
                raise ValueError(f"no such program: {layer}: {config}")
    except FileNotFoundError:
        return {}
    except Exception as error:  # whatever is wrong with it, it only held hints
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(f"{file}: damaged, not used ({reason}); `lground doctor --tune`", stacklevel=2)
        return {}
    return configs
