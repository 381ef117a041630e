"""What a sparse tensor accepts and refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.errors import InputError
from lground.sparse import SparseTensor, cat
from lground.sparse.keys import KeySpace


def test_rows_keep_their_order_and_type(scatter):
    coordinates = scatter(50)
    for dtype in (torch.int32, torch.int64, torch.int16):
        x = SparseTensor(torch.zeros(len(coordinates), 2), coordinates.to(dtype))
        assert torch.equal(x.coordinates, coordinates) and x.coordinates.dtype == torch.int32
        assert x.stride == 1 and len(x) == len(coordinates)


def test_duplicates_are_counted():
    rows = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3], [1, 1, 2, 3], [0, 1, 2, 3]])
    with pytest.raises(InputError, match=r"2 of 5 coordinate rows are duplicates .*\[0, 1, 2, 3\]"):
        SparseTensor(torch.zeros(5, 1), rows)
    with pytest.raises(ValueError):  # an InputError is one
        SparseTensor(torch.zeros(5, 1), rows)


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        (torch.zeros(0, 4, dtype=torch.int32), "at least one voxel"),
        (torch.zeros(2, 3, dtype=torch.int32), "must be \\(N, 4\\)"),
        (torch.zeros(1, 4), "must be integers"),
        (torch.tensor([[-1, 0, 0, 0]]), "batch index and cannot be negative"),
        (torch.tensor([[0, 2**31, 0, 0]]), "32-bit"),
        (torch.tensor([[0, 0, 0, 0], [0, *[2**31 - 1] * 3]]), "too far apart"),
    ],
)
def test_wrong_coordinates_are_refused(coordinates, message):
    with pytest.raises(InputError, match=message):
        SparseTensor(torch.zeros(len(coordinates), 1), coordinates)


def test_coordinates_must_lie_on_the_stride():
    with pytest.raises(InputError, match="multiples of 2"):
        SparseTensor(torch.zeros(1, 1), torch.tensor([[0, 1, 0, 0]]), stride=2)


def test_features_must_fit():
    with pytest.raises(InputError, match=r"shape \(3, 1\) do not fit 2 coordinate rows"):
        SparseTensor(torch.zeros(3, 1), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]))
    x = SparseTensor(torch.zeros(2, 1), torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]))
    with pytest.raises(InputError, match="do not fit"):
        x.with_features(torch.zeros(3, 1))


def test_other_voxels_do_not_mix():
    rows = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]])
    a, b = SparseTensor(torch.zeros(2, 1), rows), SparseTensor(torch.zeros(2, 1), rows)
    with pytest.raises(InputError, match="do not share their voxels"):
        a + b
    with pytest.raises(InputError, match="do not share their voxels"):
        cat(a, b)
    assert cat(a, a.with_features(torch.ones(2, 3))).features.shape == (2, 4)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 7), *[st.integers(-(2**18), 2**18)] * 3),
        min_size=2,
        max_size=30,
        unique=True,
    )
)
def test_keys_order_and_recover_cells(rows):
    cells = torch.tensor(rows)
    space = KeySpace.around([cells], (1, 2, 3))
    keys = space.pack(cells)
    assert torch.equal(space.unpack(keys), cells)
    assert [rows[i] for i in keys.argsort().tolist()] == sorted(rows)
