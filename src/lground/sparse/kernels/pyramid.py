"""The voxels of five strides (1, 2, 4, 8, 16) of some scenes on the device, and what convolutions read of them.

Numbers of rows stay on the device, so that with given capacities nothing waits for the host, and the whole can be
captured in a CUDA graph.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from lground.sparse.kernels.launch import cdiv
from lground.sparse.kernels.maps import (
    EIGHT,
    LEVELS,
    STATE,
    STATUS,
    counts_kernel,
    keys_kernel,
    neighbours_kernel,
    search_kernel,
    tree_kernel,
)
from lground.sparse.kernels.morton import coordinates_of
from lground.sparse.kernels.tiles import TILE_ROWS, Tiles, build_tiles

BLOCK = 1024  # rows per program where rows are counted and numbered


@dataclass(eq=False)
class Pyramid:
    """The voxels of levels 0..4 (strides 1, 2, 4, 8, 16) of some scenes, on the device.

    Rows of a level are numbered in Morton order. In `parent` and `table` the columns of level l start at `base[l]`;
    their values are rows of a level; -1 is none.

    Attributes:
        source: (N, 4) int32 rows [batch, x, y, z] as the caller gave them.
        caps: capacities of the levels, multiples of the rows of a tile; `total` is their sum, `base` the sums before.
        numbering: whether tiles call the rows of level 0 by their "sorted" numbers or by the "caller"'s.
        state: (17,) int32, see `n`.
        keys: (caps[0],) int64 sorted Morton codes.
        order: (caps[0],) int64 row of the caller for each row of level 0.
        parent: (total,) int32 row of the parent * 8 + octant, for levels 0..3.
        child: (8, total - caps[0]) int32 row of the child in each octant, for levels 1..4: see `children`.
        table: (27, total) int32 row of the neighbour at each offset, x fastest.
    """

    source: Tensor
    caps: list[int]
    numbering: str
    state: Tensor
    keys: Tensor
    order: Tensor
    parent: Tensor
    child: Tensor
    table: Tensor
    _tiles: tuple[list[Tiles], list[Tiles]]

    @classmethod
    def build(
        cls,
        coordinates: Tensor,
        n0: Tensor,
        caps: list[int] | None = None,
        numbering: str = "sorted",
        tile_rows: int = TILE_ROWS,
        table: Tensor | None = None,
    ) -> "Pyramid":
        """Build all maps of the first n0 rows of `coordinates`.

        Args:
            coordinates: (N, 4) int32 rows [batch, x, y, z], contiguous; batch in 0..4095, x, y, z in -65536..65535.
            n0: (1,) int32 on the device, number of rows that count.
            caps: capacities of the five levels, multiples of `tile_rows`, caps[0] >= n0. With None they are made to
                measure, for which the host waits once. Else nothing waits, and nothing depends on data.
            numbering: "caller" to call the rows of level 0 in tiles by the caller's numbers.
            tile_rows: rows of a tile, a power of two.
            table: int32 memory for the neighbour tables, 27 * sum(caps) numbers or more; made when None.

        Nothing is raised here: see `status`.
        """
        with torch.cuda.device_of(coordinates):
            return cls._build(coordinates, n0, caps, numbering, tile_rows, table)

    @classmethod
    def _build(cls, coordinates, n0, caps, numbering, tile_rows, table) -> "Pyramid":
        rows = caps[0] if caps else cdiv(max(len(coordinates), 1), tile_rows) * tile_rows
        blocks = cdiv(rows, BLOCK)
        state = coordinates.new_zeros(STATE.value)
        keys = coordinates.new_empty(rows, dtype=torch.int64)
        keys_kernel[(cdiv(rows, 256),)](coordinates, n0, keys, state, rows, B=256)
        keys, order = torch.sort(keys, stable=True)
        counts = coordinates.new_empty(4, blocks)
        counts_kernel[(blocks,)](keys, counts, state, blocks, rows, B=BLOCK)
        if caps is None:
            wanted = state[1:LEVELS].tolist()
            caps = [rows, *(cdiv(max(n, 1), tile_rows) * tile_rows for n in wanted)]

        base, total = [0, *accumulate(caps)][:LEVELS], sum(caps)
        parent = coordinates.new_empty(total)
        child = coordinates.new_full((8, total - caps[0]), -1)
        table = coordinates.new_empty(27 * total) if table is None else table[: 27 * total]
        table = table.view(27, total)
        coarse_keys = keys.new_empty(caps[4])
        tree_kernel[(blocks,)](
            keys, counts, state, parent, child, coarse_keys, child.stride(0), blocks, tuple(caps),
            B=BLOCK, num_warps=8,
        )  # fmt: skip
        search_kernel[(caps[4] // tile_rows, 27)](
            coarse_keys, table, state, total, base[4], caps[4], B=tile_rows
        )
        row_keys = coordinates.new_empty(total + base[4])
        for level in reversed(range(LEVELS)):
            neighbours_kernel[(caps[level] // tile_rows,)](
                parent, child, table, row_keys, state, total, child.stride(0), base[level], caps[level], level,
                COARSEST=level == LEVELS - 1, B=tile_rows,
            )  # fmt: skip
        caller = order if numbering == "caller" else None
        tiles = build_tiles(row_keys, table, parent, caller, state, caps, tile_rows)
        return cls(coordinates, caps, numbering, state, keys, order, parent, child, table, tiles)

    @property
    def n(self) -> Tensor:
        """(8,) int32: numbers of rows of levels 0..4, and at 5 the status."""
        return self.state[:8]

    @property
    def base(self) -> list[int]:
        """First column of each level."""
        return [0, *accumulate(self.caps)][:LEVELS]

    @property
    def total(self) -> int:
        """Number of columns."""
        return sum(self.caps)

    @cached_property
    def stem_table(self) -> Tensor:
        """(27, caps[1]) int32: the table of level 1, through which the stem finds its neighbours."""
        return self.table[:, self.base[1] : self.base[1] + self.caps[1]]

    def children(self, level: int) -> Tensor:
        """(8, caps[level]) int32: the row of the child in each octant, of the rows of a level above 0."""
        start = self.base[level] - self.caps[0]
        return self.child[:, start : start + self.caps[level]]

    def slim(self) -> None:
        """Forget what inference does not read: the neighbour tables, but for the stem's."""
        self.stem_table = self.stem_table.contiguous()
        self.table = None

    @cached_property
    def _host(self) -> list[int]:
        return self.state.tolist()

    @property
    def status(self) -> int:
        """0, or bits of `maps` that say why the maps are of no use. Waits for the device.

        OUT_OF_RANGE: a coordinate or a batch index that no key holds. DUPLICATE: rows are repeated. OVERFLOW: a level
        has more rows than its capacity; those that exceed it are missing.
        """
        return self._host[STATUS.value]

    def counts(self) -> list[int]:
        """Rows of each level, with those that exceed its capacity. Waits for the device."""
        return self._host[:LEVELS]

    def tiles(self, level: int) -> Tiles:
        """Tiles of the 3^3 convolutions on a level."""
        return self._tiles[0][level]

    def tiles_up(self, level: int) -> Tiles:
        """Tiles of the transposed 2^3 convolution from level + 1 to `level`."""
        return self._tiles[1][level]

    def tiles_down(self, level: int) -> Tiles:
        """Tiles of the 2^3 convolution of stride 2 from `level` to level + 1: its neighbours are the children."""
        tile_rows = self.tiles(0).tile_rows
        child = self.children(level + 1)
        if level == 0 and self.numbering == "caller":
            child = self._caller_child
        eight = self.state[EIGHT.value :]
        return Tiles(
            rows=None, neighbours=child, tile_stride=tile_rows, slot_stride=child.stride(0),
            offsets=eight, list_stride=0, counts=eight[8:], count_stride=0,
            n=self.state[level + 1 : level + 2], tile_rows=tile_rows, volume=8, capacity=self.caps[level + 1],
        )  # fmt: skip

    @cached_property
    def _caller_child(self) -> Tensor:
        """(8, caps[1]) int32: the children at level 0 by the caller's numbers."""
        caller = torch.nn.functional.pad(
            self.order.int(), (0, 1), value=-1
        )  # index -1 finds the -1 at the end
        return caller[self.children(1)]

    def coordinates(self, level: int) -> Tensor:
        """(n, 4) int32 rows [batch, x, y, z] of a level, in units of level 0. Waits for the device."""
        n = self._host[:LEVELS]
        if level == 0 and self.numbering == "caller":
            return self.source[: n[0]]
        keys = self.keys[: n[0]] >> 3 * level
        row = torch.arange(n[0], device=keys.device)
        for below in range(level):
            row = self.parent[self.base[below] + row] >> 3
        keys = torch.empty_like(keys[: n[level]]).index_put_((row,), keys)  # a cell's rows all write its key
        return coordinates_of(keys << 3 * level)
