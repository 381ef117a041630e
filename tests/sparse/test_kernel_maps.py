"""What must hold of every kernel map, checked against coordinates."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.sparse import SparseTensor
from lground.sparse.kernel_map import axis_range, kernel_offsets

ONE = (1, 1, 1)


def tensor_of(coordinates: torch.Tensor, stride: int = 1) -> SparseTensor:
    return SparseTensor(torch.zeros(len(coordinates), 1), coordinates, stride)


def pair_set(kernel_map, k: int) -> set:
    return set(zip(kernel_map.inputs[k].tolist(), kernel_map.outputs[k].tolist(), strict=True))


def brute_force(source, target, offset: tuple) -> set:
    rows = {tuple(c): i for i, c in enumerate(source.coordinates.tolist())}
    shift = [0, *(o * source.stride for o in offset)]
    wanted = [tuple(a + b for a, b in zip(c, shift, strict=True)) for c in target.coordinates.tolist()]
    return {(rows[c], o) for o, c in enumerate(wanted) if c in rows}


def test_offsets_run_x_fastest():
    assert kernel_offsets((2, 1, 3)) == [(0, 0, -1), (1, 0, -1), (0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1)]
    assert list(axis_range(5)) == [-2, -1, 0, 1, 2]
    assert list(axis_range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kernel", [(3, 3, 3), (2, 2, 2), (5, 1, 3), (1, 2, 4)])
@pytest.mark.parametrize("dilation", [ONE, (2, 2, 2), (1, 3, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pairs_are_the_neighbours(kernel, dilation, stride, scatter):
    x = tensor_of(scatter(150))
    source = x.coordinate_map
    target = x.manager.coarser(source, stride)
    kernel_map = x.manager.kernel_map(source, target, kernel, dilation)
    for k, offset in enumerate(kernel_offsets(kernel, dilation)):
        assert pair_set(kernel_map, k) == brute_force(source, target, offset)


def test_map_on_a_coarse_stride(scatter):
    x = tensor_of(scatter(200, size=20) * torch.tensor([1, 4, 4, 4]), stride=4)
    kernel_map = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), ONE)
    for k, offset in enumerate(kernel_offsets((3, 3, 3))):
        assert pair_set(kernel_map, k) == brute_force(x.coordinate_map, x.coordinate_map, offset)


def test_map_onto_itself_is_its_mirror_image(scatter):
    x = tensor_of(scatter(300))
    kernel_map = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), ONE)
    for k in range(27):
        assert pair_set(kernel_map, 26 - k) == {(o, i) for i, o in pair_set(kernel_map, k)}
    assert pair_set(kernel_map, kernel_map.identity) == {(i, i) for i in range(len(x))}


def test_transposed_map_turns_pairs_round(scatter):
    x = tensor_of(scatter(300))
    coarse = x.manager.coarser(x.coordinate_map, 2)
    down = x.manager.kernel_map(x.coordinate_map, coarse, (2, 2, 2), ONE)
    up = down.transposed
    assert all(pair_set(up, k) == {(o, i) for i, o in pair_set(down, k)} for k in range(8))
    assert (up.input_rows, up.output_rows) == (len(coarse), len(x))
    parents = torch.cat(up.outputs)  # with kernel 2, stride 2 every fine voxel has exactly one parent
    assert sorted(parents.tolist()) == list(range(len(x)))


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_blocks_hold_every_pair_once(rows, scatter, monkeypatch):
    monkeypatch.setattr("lground.sparse.kernel_map.CPU_BLOCK_ROWS", (rows, rows))
    x = tensor_of(scatter(300))
    kernel_map = x.manager.kernel_map(x.coordinate_map, x.coordinate_map, (3, 3, 3), ONE)
    expected = {(k, *pair) for k in range(27) if k != kernel_map.identity for pair in pair_set(kernel_map, k)}
    found = []
    for block in kernel_map.blocks:
        offsets = itertools.chain.from_iterable([k] * size for k, size in enumerate(block.sizes))
        pairs = list(zip(offsets, block.inputs.tolist(), block.outputs.tolist(), strict=True))
        ends = [*block.starts.tolist()[1:], len(block.terms)]
        row_numbers = range(len(x))[block.rows]
        for row, start, end in zip(row_numbers, block.starts.tolist(), ends, strict=True):
            assert all(pairs[term][2] == row for term in block.terms[start:end].tolist())
        assert sorted(block.terms.tolist()) == list(range(len(pairs)))
        found += pairs
    assert len(found) == len(expected) and set(found) == expected


def test_maps_are_built_once_and_shared(scatter):
    x = tensor_of(scatter(100))
    manager, here = x.manager, x.coordinate_map
    assert manager.kernel_map(here, here, (3, 3, 3), ONE) is manager.kernel_map(here, here, (3, 3, 3), ONE)
    coarse = manager.coarser(here, 2)
    assert manager.coarser(here, 2) is coarse
    assert manager.finer(coarse, 2, (2, 2, 2), ONE) is here
    assert manager.coarser(coarse, 2).stride == 4


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), *[st.integers(-9, 9)] * 3), min_size=1, max_size=60, unique=True),
    st.sampled_from([2, 3, 4]),
)
def test_coarse_voxels_are_floored(rows, factor):
    x = tensor_of(torch.tensor(rows))
    coarse = x.manager.coarser(x.coordinate_map, factor)
    expected = {(b, *(c // factor * factor for c in xyz)) for b, *xyz in rows}
    found = [tuple(c) for c in coarse.coordinates.tolist()]
    assert set(found) == expected and found == sorted(found)
