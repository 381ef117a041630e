"""Which shape of program to use for which layer: what was tuned on this device, else a rule.

The rule was fitted to times measured on an H200 (float16 and TF32, scans of 43 and 133 thousand voxels): over the
layers of a network it loses one percent to the best candidates there. For other devices it is scaled by the number of
multiprocessors, and its load pipelines are shortened until they fit the shared memory. That the kernel compiles was
checked for compute capabilities 7.5 (without matrix units), 8.0, 8.6, 9.0, 10.0, 12.0 and for gfx942; its speed on
all but 9.0 was not measured. `tuning` finds what is better and stores it; nothing is tuned unless asked for.
"""

import hashlib
import json
import os
import re
import warnings
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path

import torch
import triton

from lground.files import write_json
from lground.sparse.kernels.tiles import Tiles

TILE_ROWS = 64
PROGRAMS = 1 << 16  # tiles x column ranges of a layer that is split, at most: each has a counter of arrivals
MAX_SPLITS = 8
STAGES = range(2, 7)


@dataclass(frozen=True)
class Config:
    """Shape of the work of one program.

    Attributes:
        columns: output channels per program; 96 stands for 64 + 32.
        depth: input channels per step.
        warps, stages: warps of a program, depth of its load pipeline.
        splits: programs that share one walk.
    """

    columns: int
    depth: int
    warps: int
    stages: int
    splits: int


@dataclass(frozen=True)
class Chip:
    """What the rule asks of a device.

    Attributes:
        multiprocessors: their number.
        shared_memory: bytes that one program can have.
        stages: depth of a load pipeline, before it is made to fit.
    """

    multiprocessors: int = 132
    shared_memory: int = 232448
    stages: int = 5


@cache
def chip(device: torch.device) -> Chip:
    """The device's chip; that of an H200 for the interpreter."""
    if device.type != "cuda":
        return Chip()
    found = torch.cuda.get_device_properties(device)
    amd = torch.version.hip is not None
    memory = found.shared_memory_per_block if amd else found.shared_memory_per_block_optin
    return Chip(found.multi_processor_count, memory, 2 if amd else 5)


def choose(
    tiles: Tiles, in_channels: int, out_channels: int, dtype: torch.dtype, rows: int | None = None
) -> Config:
    """The shape of a program of a layer (Cin, Cout) over `tiles`.

    Args:
        rows: how many rows of the tiles are likely to be there; None: all that there is room for.
    """
    device, capacity = tiles.n.device, tiles.capacity
    number = -(-min(capacity, rows or capacity) // tiles.tile_rows)
    layer = tiles.volume, in_channels, out_channels
    config = tuned(device).get(key(*layer, kind_of(dtype), number))
    config = config or default(chip(device), *layer, dtype, number)
    if config.splits > 1 and capacity // tiles.tile_rows * (out_channels // config.columns) > PROGRAMS:
        return replace(config, splits=1)
    return config


def default(
    chip: Chip, volume: int, in_channels: int, out_channels: int, dtype: torch.dtype, number: int
) -> Config:
    """The rule, for a kernel of `volume` offsets and `number` tiles."""
    few = number * in_channels * out_channels < chip.multiprocessors << 12  # steps short, programs many
    columns = next(c for c in (128, 96, 64, 32, 16) if out_channels % c == 0)
    if columns == 128 and (few or volume == 8):
        columns = 64
    depth = next(d for d in (64, 32, 16) if in_channels % d == 0)
    if depth == 64 and (dtype.itemsize == 4 or (few and volume == 27)):
        depth = 32
    stages = chip.stages
    if columns * depth == 96 * 64 and number > 2 * chip.multiprocessors:
        stages = min(stages, 3)  # so that three programs fit a multiprocessor, not two
    splits = 1
    room = 16 * chip.multiprocessors // 3 // (number * (out_channels // columns))
    if volume == 27 and room > 3:  # below that, what is gained in balance goes into the sum
        splits = max(1, min(MAX_SPLITS, room, volume * in_channels // (400 if few else 800)))
    while stages > 2 and shared_memory(columns, depth, stages, dtype) > chip.shared_memory:
        stages -= 1
    return Config(columns, depth, 4, stages, 1 << splits.bit_length() - 1)


def shared_memory(columns: int, depth: int, stages: int, dtype: torch.dtype) -> int:
    """Bytes of shared memory of a program, at most: the result on its way out, or the pipeline.

    Inputs are found through a list, so that every other stage of the pipeline holds them and the rest row numbers.
    """
    pipeline = ((stages - 1) // 2 + 1) * (TILE_ROWS + columns) * depth * dtype.itemsize + 2048
    return max(TILE_ROWS * columns * 4, pipeline)


def fits(
    config: Config, chip: Chip, volume: int, in_channels: int, out_channels: int, dtype: torch.dtype
) -> bool:
    """Whether the kernel can run in this shape."""
    return (
        config.columns in (16, 32, 64, 96, 128)
        and out_channels % config.columns == 0
        and config.depth in (16, 32, 64)
        and in_channels % config.depth == 0
        and config.warps in (4, 8)
        and config.stages in STAGES
        and 1 <= config.splits <= volume
        and shared_memory(config.columns, config.depth, config.stages, dtype) <= chip.shared_memory
    )


# Tuned shapes are stored by device and version of torch and Triton, in a file that a process reads once.

# How numbers can be multiplied.
KINDS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float32": torch.float32,
}


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
