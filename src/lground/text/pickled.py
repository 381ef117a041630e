"""One tensor or array out of a pickle, without running anything that the pickle names.

The original's `clip_feats_scannet_200.pkl` is a plain pickle of a torch tensor, which torch.load does not
read with weights_only=True. Here every callable that such a pickle asks for is replaced by a plain stand-in
of this module, and a pickle that asks for anything else is refused before it gets it.
"""

import io
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lground.errors import InputError

_TORCH_SAVED = (b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")  # of today, and before 1.6


def read_pickled_table(path: Path) -> Tensor | np.ndarray:
    """The tensor or array that was pickled (any protocol) or saved by torch.save; else InputError."""
    try:
        data = path.read_bytes()
        if data.startswith(_TORCH_SAVED):
            value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        else:
            value = _Unpickler(io.BytesIO(data)).load()
        value = value.array() if isinstance(value, _Array) else value
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except Exception as error:  # a hostile or broken pickle can raise nearly anything
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: is no pickled table and was not run ({reason}); save it as .npy"
        ) from error
    if not isinstance(value, Tensor | np.ndarray):
        kind = type(value).__name__
        raise InputError(f"{path}: holds a {kind}, not one tensor or array; save the table as .npy")
    return value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _storage(data: bytes) -> Tensor:
    """Stand-in of torch.storage._load_from_bytes: a storage as a flat tensor, by torch's safe loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # typed storages are deprecated, but old files have them
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return torch.empty(0, dtype=storage.dtype).set_(storage.untyped())


def _tensor(flat: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """Stand-in of torch._utils._rebuild_tensor_v2; as_strided refuses to reach beyond the storage."""
    if not isinstance(flat, Tensor) or torch.Size(size).numel() > flat.numel():
        raise pickle.UnpicklingError("a tensor larger than its data")
    return torch.as_strided(flat, size, stride, offset)


class _DType:
    """Stand-in of numpy.dtype: a code such as f4, then a byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if not re.fullmatch(r"[fiu][1248]", self.code) or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"an array of '{self.code}'")
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in of numpy.ndarray: shape, kind and bytes, made an array only in `array`."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, kind, fortran, data = self.state
        return np.frombuffer(data, kind.dtype()).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, kind: _DType, shape: tuple, order: str) -> _Array:
    """Stand-in of numpy's _frombuffer, which protocol 5 writes."""
    array = _Array()
    array.state = (1, shape, kind, order == "F", data)
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """Stand-in of _codecs.encode, by which old protocols write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding}")
    return text.encode("latin1")


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_STAND_INS = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _latin1,
}
