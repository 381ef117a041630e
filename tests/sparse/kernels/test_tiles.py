"""What convolutions read: every row in one tile, and in the lists of a tile exactly its pairs."""

import pytest
import torch
from pyramids import table_of, tiles_of

from lground.sparse.kernels.maps import LEVELS
from lground.sparse.kernels.masks import mask_order
from lground.sparse.kernels.tiles import Tiles

KINDS = [("same", level) for level in range(LEVELS)] + [
    (k, i) for k in ("up", "down") for i in range(LEVELS - 1)
]
every_kind = pytest.mark.parametrize(("kind", "level"), KINDS)


def rows_of(tiles: Tiles) -> torch.Tensor:
    """(n,) output row of each lane."""
    n = int(tiles.n)
    return torch.arange(n, device=tiles.n.device) if tiles.rows is None else tiles.rows[:n].long()


def at(tensor: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """What a kernel reads from tensor + start."""
    return tensor.as_strided((size,), (1,), tensor.storage_offset() + start)


def read(tiles: Tiles) -> tuple[torch.Tensor, list[list[int]]]:
    """(K, capacity) input row of each lane at each offset, read as a kernel does, and the lists of offsets."""
    inputs = torch.full((tiles.volume, tiles.capacity), -1, dtype=torch.int32, device=tiles.n.device)
    lists = []
    for tile in range(tiles.capacity // tiles.tile_rows):
        count = int(at(tiles.counts, tile * tiles.count_stride, 1))
        lists.append(at(tiles.offsets, tile * tiles.list_stride, count).tolist())
        lanes = slice(tile * tiles.tile_rows, (tile + 1) * tiles.tile_rows)
        for slot, j in enumerate(lists[-1]):
            place = tile * tiles.tile_stride + slot * tiles.slot_stride
            inputs[j, lanes] = at(tiles.neighbours, place, tiles.tile_rows)
    return inputs, lists


@every_kind
def test_every_row_is_in_one_lane(pyramid, kind, level):
    rows = rows_of(tiles_of(pyramid, kind, level))
    assert torch.equal(rows.sort()[0], torch.arange(len(rows), device=rows.device))


@every_kind
def test_the_pairs_of_the_tiles_are_those_of_the_table(pyramid, kind, level):
    tiles = tiles_of(pyramid, kind, level)
    inputs, _ = read(tiles)
    rows = rows_of(tiles)
    assert torch.equal(inputs[:, : len(rows)], table_of(pyramid, kind, level)[:, rows])
    assert (inputs[:, len(rows) :] == -1).all()


@every_kind
def test_a_tile_lists_the_offsets_of_its_rows(pyramid, kind, level):
    tiles = tiles_of(pyramid, kind, level)
    _, lists = read(tiles)
    met = table_of(pyramid, kind, level)[:, rows_of(tiles)] >= 0
    for tile, offsets in enumerate(lists):
        lanes = met[:, tile * tiles.tile_rows : (tile + 1) * tiles.tile_rows]
        wanted = range(8) if kind == "down" else lanes.any(1).nonzero().squeeze(1).tolist()
        assert offsets == list(wanted)


@pytest.mark.parametrize("level", range(LEVELS))
def test_rows_are_sorted_by_mask(pyramid, level):
    expected = mask_order(table_of(pyramid, "same", level))
    assert torch.equal(rows_of(pyramid.tiles(level)), expected)


@pytest.mark.parametrize("level", range(LEVELS - 1))
def test_rows_of_a_transposed_convolution_are_sorted_by_octant(pyramid, level):
    octants = table_of(pyramid, "up", level).argmax(0)
    assert torch.equal(rows_of(pyramid.tiles_up(level)), torch.sort(octants, stable=True)[1])


@pytest.mark.parametrize("tile_rows", [32, 256])
def test_tiles_of_other_sizes(build, voxels, tile_rows):
    pyramid = build(voxels[:70], tile_rows=tile_rows)
    for kind, level in KINDS:
        tiles = tiles_of(pyramid, kind, level)
        assert (tiles.tile_rows, tiles.capacity % tile_rows) == (tile_rows, 0)
        inputs, rows = read(tiles)[0], rows_of(tiles)
        assert torch.equal(inputs[:, : len(rows)], table_of(pyramid, kind, level)[:, rows])


def test_rows_of_the_finest_level_may_be_the_caller_s(build, pyramid, voxels):
    """Inputs and outputs of level 0 pass through `order`, and nothing else changes."""
    other = build(voxels, numbering="caller")
    order = pyramid.order[: len(voxels)]
    for kind, level in KINDS:
        here, there = tiles_of(pyramid, kind, level), tiles_of(other, kind, level)
        (inputs, lists), rows = read(here), rows_of(here)
        if level == 0 and kind != "down":
            rows = order[rows]
        if level == 0 and kind != "up":
            inputs = torch.where(inputs < 0, -1, order[inputs.clamp(min=0)].int())
        assert torch.equal(rows_of(there), rows)
        assert torch.equal(read(there)[0], inputs) and read(there)[1] == lists


def test_successive_masks_differ_in_one_offset():
    """Of rows with every mask over six offsets, any two successive ones do."""
    masks = torch.arange(64)
    table = torch.full((27, 64), -1)
    for bit, j in enumerate((13, 12, 4, 1, 0, 26)):
        table[j] = torch.where(masks >> bit & 1 == 1, 0, -1)
    met = (table >= 0)[:, mask_order(table)]
    assert ((met[:, 1:] != met[:, :-1]).sum(0) == 1).all()


def test_the_rarest_offsets_divide_rows_first():
    """Rows with a corner and rows without never mix."""
    generator = torch.Generator().manual_seed(0)
    table = torch.where(torch.rand(27, 300, generator=generator) < 0.5, 0, -1)
    table[[0, 2, 6, 8, 18, 20, 24]] = -1
    corner = (table[26] >= 0)[mask_order(table)].long()
    assert corner.diff().count_nonzero() == 1
