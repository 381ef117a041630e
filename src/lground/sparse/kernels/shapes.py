"""Shapes of programs: which fit a device and a layer, and a rule for a good one.

The rule was fitted to times measured on an H200 (float16 and TF32, scans of 43 and 133 thousand voxels): over the
layers of a network it loses one percent to the best candidates there. For other devices it is scaled by the number of
multiprocessors, and its load pipelines are shortened until they fit the shared memory. That the kernel compiles was
checked for compute capabilities 7.5 (without matrix units), 8.0, 8.6, 9.0, 10.0, 12.0 and for gfx942; its speed on
all but 9.0 was not measured.
"""

from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from lground.sparse.kernels.tiles import TILE_ROWS

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


@lru_cache(4096)
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


_COUNTERS: dict[tuple[torch.device, int], Tensor] = {}


def counters(device: torch.device) -> Tensor:
    """(PROGRAMS,) int32 zeros of the current stream, where kernels that leave them zero run one after another."""
    key = device, torch._C._cuda_getCurrentRawStream(device.index) if device.type == "cuda" else 0
    if key not in _COUNTERS:
        _COUNTERS[key] = torch.zeros(PROGRAMS, dtype=torch.int32, device=device)
    return _COUNTERS[key]
