"""When the Triton kernels take over from plain PyTorch, and the maps they need.

Nothing here imports Triton before a CUDA tensor asks for it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lground.sparse.coordinates import CoordinateMap
from lground.sparse.kernel_map import KernelMap, Triple, build_kernel_map

if TYPE_CHECKING:
    from lground.sparse.kernels.pairs import Pairs
    from lground.sparse.kernels.pyramid import Pyramid
    from lground.sparse.kernels.tiles import Tiles

_PLAIN = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Within it, sparse tensors are made and computed with plain PyTorch: the definition of every result."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def takes_over(device: torch.device) -> bool:
    """Whether the kernels run here: on CUDA, or anywhere under Triton's interpreter."""
    return not _PLAIN.get() and _installed() and (device.type == "cuda" or _interpreted())


def uncompiled(function):
    """Let `torch.compile` leave the function and what it calls alone: one break of its graph, not one per layer."""

    @wraps(function)
    def call(*arguments, **options):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*arguments, **options)
        return function(*arguments, **options)

    return call


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Remake:
    """How to make a matrix of features again, so that who needs it in the backward pass need not keep it.

    tensors: what it was made of. make: makes it of these, bit for bit. of: its type and version when it was made.
    """

    tensors: tuple[Tensor | None, ...]
    make: Callable[..., Tensor]
    of: tuple[torch.dtype, int]

    @staticmethod
    def note(features: Tensor, tensors: tuple[Tensor | None, ...], make: Callable[..., Tensor]) -> None:
        """Leave word on `features`."""
        features.remake = Remake(tensors, make, (features.dtype, features._version))

    @staticmethod
    def find(features: Tensor, dtype: torch.dtype) -> Remake | None:
        """The word on `features`, if it still holds and gives that type."""
        remake = getattr(features, "remake", None)
        return remake if remake is not None and remake.of == (dtype, features._version) else None


def note_joined(joined: Tensor, parts: list[Tensor]) -> None:
    """Leave word on a concatenation of channels, if all of its parts can be made again."""
    remakes = [Remake.find(part, joined.dtype) for part in parts]
    if None in remakes or not torch.is_grad_enabled():
        return
    ends = list(accumulate(len(r.tensors) for r in remakes))

    def make(*tensors: Tensor | None) -> Tensor:
        pieces = [tensors[end - len(r.tensors) : end] for r, end in zip(remakes, ends, strict=True)]
        return torch.cat([r.make(*piece) for r, piece in zip(remakes, pieces, strict=True)], dim=1)

    Remake.note(joined, tuple(t for r in remakes for t in r.tensors), make)


class Scenes:
    """The voxels a user gave, and their pyramid once a layer asks for it.

    Args:
        given: (N, 4) int32 or int64 rows [batch, x, y, z], not checked yet.
    """

    def __init__(self, given: Tensor):
        self.given = given

    @cached_property
    def pyramid(self) -> Pyramid | None:
        """All levels; None where coordinates lie too far out for it. Raises InputError on what no map can hold."""
        from lground.sparse.kernels.pyramid import Pyramid

        number = self.given.new_full((1,), len(self.given), dtype=torch.int32)
        pyramid = Pyramid.build(within_int32(self.given), number, numbering="caller")
        if pyramid.status:
            CoordinateMap.from_rows(self.given, 1)  # says what is wrong, unless it is the range alone
            return None
        return pyramid

    @cached_property
    def pair_counts(self) -> list[int]:
        """Neighbouring pairs at each level, themselves included. Waits for the device."""
        ends = [base + cap for base, cap in zip(self.pyramid.base, self.pyramid.caps, strict=True)]
        levels = self.pyramid.table.tensor_split(ends[:-1], dim=1)
        return torch.stack([(level >= 0).sum() for level in levels]).tolist()


class PyramidCoordinates(CoordinateMap):
    """The voxels of one level of a pyramid. Level 0 keeps the caller's rows; coarser ones are in Morton order.

    What the plain layers need of a coordinate map is worked out if they ask for it.
    """

    def __init__(self, scenes: Scenes, level: int = 0):
        self.scenes, self.level, self.stride = scenes, level, 1 << level

    def __len__(self) -> int:
        return self.scenes.pyramid.counts()[self.level] if self.level else len(self.scenes.given)

    def coarser(self, factor: int) -> CoordinateMap:
        pyramid = self.scenes.pyramid if factor == 2 else None
        if pyramid is None or self.level + 1 == len(pyramid.caps):
            return super().coarser(factor)
        return PyramidCoordinates(self.scenes, self.level + 1)

    def kernel_map(self, target: CoordinateMap, kernel_size: Triple, dilation: Triple) -> KernelMap:
        fits = (
            isinstance(target, PyramidCoordinates) and target.scenes is self.scenes and dilation == (1, 1, 1)
        )
        if fits and self.scenes.pyramid is not None:
            if target is self and kernel_size in ((3, 3, 3), (5, 5, 5)):
                return PyramidMap(self, self, kernel_size)
            if target.level == self.level + 1 and kernel_size == (2, 2, 2):
                return PyramidMap(self, target, kernel_size)
        return super().kernel_map(target, kernel_size, dilation)

    @cached_property
    def coordinates(self) -> Tensor:
        return self.scenes.pyramid.coordinates(self.level) if self.level else self.scenes.given.int()

    @cached_property
    def order(self) -> Tensor | None:
        return CoordinateMap.from_rows(self.coordinates, self.stride).order


@uncompiled
def coordinate_map(coordinates: Tensor, stride: int) -> CoordinateMap:
    """The voxels of a user's rows: at once checked and sorted, or on a GPU by the first layer."""
    given = (
        torch.is_tensor(coordinates)
        and coordinates.ndim == 2
        and coordinates.shape[1] == 4
        and coordinates.dtype in (torch.int32, torch.int64)
    )
    if not given or stride != 1 or not coordinates.numel() or not takes_over(coordinates.device):
        return CoordinateMap.from_rows(coordinates, stride)
    return PyramidCoordinates(Scenes(coordinates))


def within_int32(coordinates: Tensor) -> Tensor:
    """(N, 4) int32; what does not fit stays outside of any pyramid."""
    if coordinates.dtype == torch.int64:
        coordinates = coordinates.clamp(-(2**30), 2**30)
    return coordinates.int().contiguous()


class PyramidMap(KernelMap):
    """A kernel map within a pyramid: what the kernels read of it, and the lists of pairs if somebody asks.

    Args:
        source, target: coordinates of the input and the output.
        kernel_size: 3 or (narrow inputs at level 0) 5 within a level, 2 between neighbouring levels.
        opposite: the map that this one is the transposed of, if it has been made.
    """

    def __init__(
        self,
        source: PyramidCoordinates,
        target: PyramidCoordinates,
        kernel_size: Triple,
        opposite: PyramidMap | None = None,
    ):
        volume = kernel_size[0] ** 3
        fields = {"source": source, "target": target, "kernel_size": kernel_size, "opposite": opposite}
        fields |= {"input_rows": len(source), "output_rows": len(target), "volume": volume}
        self.__dict__.update(fields, identity=volume // 2 if source is target else None)

    @property
    def pyramid(self) -> Pyramid:
        return self.source.scenes.pyramid

    def takes(self, features: Tensor, kernel: Tensor) -> bool:
        """Whether the kernels compute a convolution of `features` (N, Cin) with `kernel` (K, Cin, Cout) here."""
        if not takes_over(features.device):
            return False
        from lground.sparse.kernels.autograd import takes

        return takes(features, kernel, self)

    def __len__(self) -> int:
        return self.volume

    @cached_property
    def _pairs(self) -> KernelMap:
        if self.upward:
            return self.transposed._pairs.transposed
        return build_kernel_map(self.source, self.target, self.kernel_size, (1, 1, 1))

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._pairs.inputs

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._pairs.outputs

    @property
    def transposed(self) -> PyramidMap:
        # Made anew: maps that know each other would outlive their scene until garbage is collected.
        return self.opposite or PyramidMap(self.target, self.source, self.kernel_size, opposite=self)

    @property
    def upward(self) -> bool:
        """Whether the output is the finer level."""
        return self.target.level < self.source.level

    @property
    def mirrored(self) -> bool:
        """Whether the data gradient walks the same tiles with mirrored offsets."""
        return self.source is self.target

    @cached_property
    def tiles(self) -> Tiles:
        """The output's tiles."""
        if self.source is self.target:
            return self.pyramid.tiles(self.target.level)
        if self.upward:
            return self.pyramid.tiles_up(self.target.level)
        return self.pyramid.tiles_down(self.source.level)

    @property
    def tiles_back(self) -> Tiles:
        """The input's tiles, for the data gradient."""
        return self.tiles if self.mirrored else self.transposed.tiles

    def expect_pairs(self) -> None:
        """Count the pairs now, while the host has waited for the device anyway: the backward pass will list them."""
        _ = self.source.scenes.pair_counts

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs offset by offset, for the weight gradient; of an upward map, those of its opposite."""
        from lground.sparse.kernels.pairs import build_pairs

        if self.upward:
            return self.transposed.pairs
        pyramid, level = self.pyramid, self.target.level
        n, order = pyramid.n[level : level + 1], pyramid.order
        if self.source is self.target:
            numbering = None if level else order
            columns = slice(pyramid.base[level], pyramid.base[level] + pyramid.caps[level])
            return build_pairs(
                pyramid.table[:, columns], n, numbering, numbering, self.source.scenes.pair_counts[level]
            )
        return build_pairs(pyramid.children(level), n, None if level > 1 else order, None, len(self.source))
