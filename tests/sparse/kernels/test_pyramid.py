"""The maps of a pyramid against their plain twins, and what must hold of them as equations."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.sparse import SparseTensor
from lground.sparse.kernel_map import kernel_offsets
from lground.sparse.kernels import morton as twins
from lground.sparse.kernels.maps import DUPLICATE, LEVELS, OUT_OF_RANGE, OVERFLOW
from lground.sparse.kernels.pyramid import Pyramid

GUARD, POISON = 256, 0x5A5A5A5A


def columns(pyramid: Pyramid, name: str, level: int) -> torch.Tensor:
    """The columns of a level, as many as it has rows."""
    return of_level(pyramid, name, level)[..., : min(pyramid.counts()[level], pyramid.caps[level])]


def unused(pyramid: Pyramid, name: str, level: int) -> torch.Tensor:
    return of_level(pyramid, name, level)[..., pyramid.counts()[level] :]


def of_level(pyramid: Pyramid, name: str, level: int) -> torch.Tensor:
    if name == "child":
        return pyramid.children(level)
    start = pyramid.base[level]
    return getattr(pyramid, name)[..., start : start + pyramid.caps[level]]


def cells_of(keys: torch.Tensor, level: int) -> torch.Tensor:
    """Rows [batch, x, y, z] in units of the stride."""
    cells = twins.coordinates_of(keys << 3 * level)
    cells[:, 1:] >>= level
    return cells


def assert_equals_twins(pyramid: Pyramid, voxels: torch.Tensor):
    keys = twins.level_keys(twins.morton_keys(voxels))
    assert pyramid.counts() == [len(k) for k in keys]
    assert torch.equal(twins.morton_keys(voxels)[pyramid.order[: len(voxels)]], keys[0])
    for level in range(LEVELS):
        assert torch.equal(
            columns(pyramid, "table", level), twins.neighbour_table(cells_of(keys[level], level))
        )
        assert (unused(pyramid, "table", level) == -1).all()
        if level > 0:
            assert torch.equal(columns(pyramid, "child", level), twins.children(*keys[level - 1 : level + 1]))
            assert (unused(pyramid, "child", level) == -1).all()
        if level < LEVELS - 1:
            assert torch.equal(columns(pyramid, "parent", level), twins.parents(*keys[level : level + 2]))


def test_maps_equal_their_twins(pyramid, voxels):
    assert_equals_twins(pyramid, voxels)


def test_a_key_gives_its_coordinates_back(voxels):
    assert torch.equal(twins.coordinates_of(twins.morton_keys(voxels)), voxels)


def test_neighbours_at_opposite_offsets_are_mutual(pyramid):
    for level in range(LEVELS):
        table = columns(pyramid, "table", level).long()
        rows = torch.arange(table.shape[1], device=table.device)
        assert torch.equal(table[13], rows)
        for j in range(27):
            met = table[j] >= 0
            assert torch.equal(table[26 - j][table[j][met]], rows[met])


def test_a_row_is_the_child_of_its_parent(pyramid):
    for level in range(LEVELS - 1):
        family, child = columns(pyramid, "parent", level).long(), columns(pyramid, "child", level + 1)
        rows = torch.arange(len(family), device=family.device)
        assert torch.equal(child[family & 7, family >> 3].long(), rows)
        assert (child >= 0).sum() == len(rows)


def test_maps_agree_with_the_plain_engine(pyramid, voxels):
    """Pairs of voxels, by their coordinates, whatever the numbering."""
    plain = SparseTensor(torch.zeros(len(voxels), 1), voxels.cpu())
    manager, maps = plain.manager, [plain.coordinate_map]
    while len(maps) < LEVELS:
        maps.append(manager.coarser(maps[-1], 2))
    here = [pyramid.coordinates(level).cpu() for level in range(LEVELS)]

    def pairs(inputs, outputs, input_map, output_map) -> set:
        rows = torch.cat([input_map[inputs.long()], output_map[outputs.long()]], 1)
        return set(map(tuple, rows.tolist()))

    def present(row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = (row >= 0).nonzero().squeeze(1)
        return row[outputs].cpu(), outputs.cpu()

    for level, coarse in enumerate(maps):
        same = manager.kernel_map(coarse, coarse, (3, 3, 3), (1, 1, 1))
        for j in range(27):
            expected = pairs(same.inputs[j], same.outputs[j], coarse.coordinates, coarse.coordinates)
            found = present(columns(pyramid, "table", level)[j])
            assert pairs(*found, here[level], here[level]) == expected
        if level:
            fine = maps[level - 1]
            down = manager.kernel_map(fine, coarse, (2, 2, 2), (1, 1, 1))
            for j in range(8):
                expected = pairs(down.inputs[j], down.outputs[j], fine.coordinates, coarse.coordinates)
                found = present(columns(pyramid, "child", level)[j])
                assert pairs(*found, here[level - 1], here[level]) == expected


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 3), *[st.integers(-9, 9)] * 3), min_size=1, max_size=60, unique=True),
    st.sampled_from([1, 3, 700, 7000]),
)
def test_any_set_of_voxels(device, build, rows, spread):
    voxels = torch.tensor(rows, dtype=torch.int32, device=device) * torch.tensor(
        [1, spread, 1, spread], device=device
    )
    assert_equals_twins(build(voxels.int()), voxels)


def test_spare_capacity_changes_nothing(pyramid, voxels):
    n, caps = pyramid.counts(), [c + 64 * (1 + level % 2) for level, c in enumerate(pyramid.caps)]
    padded = torch.cat([voxels, voxels.new_full((7, 4), -(2**31))])  # rows past n0 are not read
    roomy = Pyramid.build(padded, voxels.new_tensor([len(voxels)]), caps)
    assert roomy.counts() == n and roomy.caps == caps and not roomy.status
    assert_equals_twins(roomy, voxels)


def test_no_rows_at_all(device):
    none = torch.zeros(1, dtype=torch.int32, device=device)
    pyramid = Pyramid.build(none.new_zeros(3, 4), none, [16] * LEVELS, tile_rows=16)
    assert pyramid.n.tolist() == [0] * 8
    assert (pyramid.table == -1).all() and (pyramid.child == -1).all()


@pytest.fixture
def guards(monkeypatch) -> list[torch.Tensor]:
    """Puts poison around every buffer that a pyramid allocates."""
    buffers = []

    def surround(allocate):
        def guarded(self, *size, **options):
            inner = allocate(self, *size, **options)
            outer = torch.full((inner.numel() + 2 * GUARD,), POISON, dtype=inner.dtype, device=inner.device)
            buffers.append(outer)
            return outer[GUARD:-GUARD].view(inner.shape).copy_(inner)

        return guarded

    for name in ("new_empty", "new_full", "new_zeros"):
        monkeypatch.setattr(torch.Tensor, name, surround(getattr(torch.Tensor, name)))
    return buffers


@pytest.mark.parametrize("small", range(LEVELS))
def test_a_level_beyond_its_capacity_is_reported_and_harms_nothing(small, guards, device):
    side = torch.arange(-2, 2, device=device)
    voxels = (torch.cartesian_prod(torch.arange(2, device=device), side, side, side) * 40).int()
    voxels[:, 0] //= 40
    caps = [128 if level != small else 64 for level in range(LEVELS)]
    pyramid = Pyramid.build(voxels, voxels.new_tensor([len(voxels)]), caps)
    assert pyramid.status == OVERFLOW.value
    assert guards and all((b[:GUARD] == POISON).all() and (b[-GUARD:] == POISON).all() for b in guards)

    keys = twins.level_keys(twins.morton_keys(voxels))
    if small == 0:  # only some of the caller's rows were read
        assert pyramid.counts()[0] == len(voxels)
        keys = twins.level_keys(twins.morton_keys(voxels[:64]))
    else:
        assert pyramid.counts() == [len(k) for k in keys]
    for level, cap in enumerate(caps):  # what is not missing is right, and in its own columns
        rows = columns(pyramid, "table", level).shape[1]
        expected = twins.neighbour_table(cells_of(keys[level], level))[:, :rows]
        found = columns(pyramid, "table", level)[:, : expected.shape[1]]
        assert ((found == expected) | (found == -1)).all() and (found < cap).all()
        if level:
            expected = twins.children(*keys[level - 1 : level + 1])[:, :rows]
            missing = expected >= caps[level - 1]
            assert torch.equal(columns(pyramid, "child", level), torch.where(missing, -1, expected))


@pytest.mark.parametrize("rows", [1, 40])
def test_duplicates_are_reported(build, device, rows):
    voxels = torch.cat(
        [torch.arange(rows, device=device).repeat(4, 1).t() % 7, torch.zeros(3, 4, device=device)]
    )
    voxels[:, 0] = 0
    assert build(voxels.int()).status == DUPLICATE.value


@pytest.mark.parametrize(
    "row", [(-1, 0, 0, 0), (4096, 0, 0, 0), (0, 65536, 0, 0), (0, 0, -65537, 0), (0, 0, 0, 2**31 - 1)]
)
def test_what_no_key_can_hold_is_reported(build, device, row):
    pyramid = build(torch.tensor([[0, 1, 2, 3], row], dtype=torch.int32, device=device))
    assert pyramid.status & OUT_OF_RANGE.value


def test_good_coordinates_pass(pyramid):
    assert pyramid.status == 0


def test_coordinates_of_the_levels(voxels, build):
    pyramid = build(voxels, numbering="caller")
    assert torch.equal(pyramid.coordinates(0), voxels)
    for level in range(1, LEVELS):
        floored = voxels.clone()
        floored[:, 1:] = floored[:, 1:] >> level << level  # -1 lies in the cell of -2
        found = pyramid.coordinates(level)
        assert len(found) == len(found.unique(dim=0))
        assert torch.equal(found.unique(dim=0), floored.unique(dim=0))


def test_the_twin_finds_what_a_dictionary_finds():
    cells = torch.cartesian_prod(torch.arange(2), *[torch.tensor([-2, -1, 1])] * 3).int()
    table, rows = twins.neighbour_table(cells), {tuple(c): i for i, c in enumerate(cells.tolist())}
    for j, (x, y, z) in enumerate(kernel_offsets((3, 3, 3))):
        wanted = [(b, p + x, q + y, r + z) for b, p, q, r in cells.tolist()]
        assert table[j].tolist() == [rows.get(c, -1) for c in wanted]


def scan(n: int, device, seed: int = 0) -> torch.Tensor:
    """About n distinct voxels of two bumpy surfaces."""
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(2, n, generator=g) * (n / 2) ** 0.5 - 100).long()
    z = ((x / 9).sin() * 20 + (y / 31).cos() * 40).long()
    rows = torch.stack([(torch.rand(n, generator=g) > 0.3).long(), x, y, z], 1).unique(dim=0)
    return rows[torch.randperm(len(rows), generator=g)].int().to(device)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [3_000, 300_000, 2_500_000])
def test_large_scans(build, n, device):
    voxels = scan(n, device)
    first, second = build(voxels), build(voxels)
    assert_equals_twins(first, voxels)
    for name in ("order", "table", "child"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.gpu
def test_one_graph_serves_every_scan_that_fits(device):
    voxels, n = (
        torch.zeros(150_000, 4, dtype=torch.int32, device=device),
        torch.zeros(1, dtype=torch.int32, device=device),
    )
    caps = [150_016, 80_000, 30_080, 10_112, 5_120]

    def load(scene):
        voxels[: len(scene)].copy_(scene)
        n.fill_(len(scene))

    load(scan(100_000, device))
    Pyramid.build(voxels, n, caps)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pyramid = Pyramid.build(voxels, n, caps)
    for size in (140_000, 1_000, 1, 90_000):
        load(scene := scan(size, device, size))
        graph.replay()
        found = replace(pyramid)  # forgets what the host read before
        assert not found.status
        assert_equals_twins(found, scene)
