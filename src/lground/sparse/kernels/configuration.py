"""Which shape of program to use for which layer."""

import torch

from lground.sparse.kernels.convolution import Config
from lground.sparse.kernels.tiles import Tiles

TILE_ROWS = 64
PROGRAMS = (
    528  # what fills a large GPU: four per multiprocessor. A layer with more work than that is not split.
)
MAX_SPLITS = 8


def choose(tiles: Tiles, in_channels: int, out_channels: int, dtype: torch.dtype) -> Config:
    """The default for a layer (Cin, Cout) over `tiles`."""
    number = tiles.capacity // tiles.tile_rows
    columns = next(c for c in (128, 96, 64, 32, 16) if out_channels % c == 0)
    if columns == 128 and number * (out_channels // 128) < 20:
        columns = 64
    depth = 16 if in_channels % 32 else 32 if in_channels % 64 or dtype == torch.float32 else 64
    programs = number * (out_channels // columns)
    steps = tiles.volume * in_channels // depth
    splits = max(1, min(MAX_SPLITS, PROGRAMS // programs, steps // 10)) if tiles.volume == 27 else 1
    return Config(columns, depth, 4, 5, 1 << splits.bit_length() - 1)
