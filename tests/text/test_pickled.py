"""Pickled tables: those that exist are read, and nothing that a pickle asks for is run."""

import io
import os
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.errors import InputError
from lground.text import load_anchors

VECTORS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        *(VECTORS, VECTORS.half(), VECTORS.double(), torch.randn(4, 9, 6)),
        *(VECTORS.T.contiguous().T, VECTORS[:, ::2], torch.nn.Parameter(VECTORS)),
        *(VECTORS.numpy(), VECTORS.numpy().astype(">f8"), np.asfortranarray(VECTORS)),
    ],
    ids=["tensor", "half", "double", "3d", "strided", "view", "parameter", "numpy", "big-endian", "fortran"],
)
def test_tensors_and_arrays_of_every_protocol(value, protocol, tmp_path):
    path = tmp_path / "clip_feats.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    expected = torch.as_tensor(
        np.ascontiguousarray(value.detach() if torch.is_tensor(value) else value, np.float32)
    )
    torch.testing.assert_close(load_anchors(path).vectors, expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save(zipped, tmp_path):
    path = tmp_path / "t.pt"
    torch.save(VECTORS, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_anchors(path).vectors, VECTORS)


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def legacy(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


HOSTILE = ("system", "eval", "inside a dictionary", "inside a storage", "inside a zipped storage")
HOSTILE += ("as a tensor's hooks", "an object array", "getattr", "importlib")


def hostile(mark):
    touch = Call(os.system, f"touch {mark}")
    return {
        "system": touch,
        "eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "inside a dictionary": OrderedDict(a=VECTORS, b=touch),
        "inside a storage": Call(torch.storage._load_from_bytes, legacy(touch)),
        "inside a zipped storage": Call(torch.storage._load_from_bytes, _zipped(touch)),
        "as a tensor's hooks": Call(
            torch._utils._rebuild_tensor_v2, VECTORS.storage(), 0, (1,), (1,), False, touch
        ),
        "an object array": np.array([[touch]], dtype=object),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "importlib": Call(__import__, "antigravity"),
    }


def _zipped(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_nothing_runs(kind, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "table.pkl"
    payload = pickle.dumps(hostile(mark)[kind])
    path.write_bytes(payload)
    with pytest.raises(InputError, match=r"table\.pkl: is no pickled table and was not run"):
        load_anchors(path)
    assert not mark.exists()


def test_the_hostile_pickle_is_real(tmp_path):
    """The same bytes do run under pickle itself, so that the test above says something."""
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(hostile(mark)["system"]))
    assert mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_torch_files_are_refused(zipped, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "table.pt"
    torch.save(Call(os.system, f"touch {mark}"), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="was not run"):
        load_anchors(path)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore")
def test_tensors_cannot_reach_beyond_their_data(tmp_path):
    rebuild, storage = torch._utils._rebuild_tensor_v2, VECTORS.storage()
    for offset, size, stride in (
        (0, (10**6, 10**6), (0, 0)),  # a terabyte out of one number
        (0, (5, 6), (6, 1)),
        (20, (2, 6), (6, 1)),
        (-1, (2, 2), (2, 1)),
        (0, (2, 2), (10**9, 1)),
    ):
        path = tmp_path / "table.pkl"
        path.write_bytes(pickle.dumps(Call(rebuild, storage, offset, size, stride, False, OrderedDict())))
        with pytest.raises(InputError, match="was not run"):
            load_anchors(path)


def test_other_content_is_named(tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(pickle.dumps({"chair": [1.0, 2.0]}))
    with pytest.raises(InputError, match="holds a dict, not one tensor"):
        load_anchors(path)


@given(st.data())
@settings(max_examples=150)
def test_damaged_pickles_only_ever_raise_input_errors(tmp_path_factory, data):
    whole = bytearray(pickle.dumps(VECTORS.numpy()))
    cut = data.draw(st.integers(0, len(whole)))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(whole[:cut])
    try:
        load_anchors(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_length_that_lies_does_not_ask_for_memory(tmp_path):
    path = tmp_path / "table.pkl"
    path.write_bytes(b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**45) + b"short")  # BINBYTES8 of 32 terabytes
    with pytest.raises(InputError):
        load_anchors(path)
