"""The layers of a network on made-up scans, computed in any shape of program: what `tuning` times and checks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from lground.sparse.coordinates import CoordinateMap
from lground.sparse.functional import Epilogue, sparse_convolution
from lground.sparse.kernel_map import KernelMap
from lground.sparse.kernels.configuration import KINDS
from lground.sparse.kernels.convolution import convolution, takes
from lground.sparse.kernels.pyramid import Pyramid
from lground.sparse.kernels.shapes import PROGRAMS, Config, chip, default, fits
from lground.sparse.kernels.tiles import Tiles
from lground.sparse.layers import SparseConv3d, SparseConvTranspose3d

Clock = Callable[[Callable[[], object]], float]  # ms that a call takes


@dataclass(frozen=True)
class Layer:
    """A convolution: "same" (3^3), "down" (2^3, stride 2) or "up" (its transposed), whose input is on `level`."""

    kind: str
    level: int
    in_channels: int
    out_channels: int

    @property
    def target(self) -> int:
        """The level of the output."""
        return self.level + {"same": 0, "down": 1, "up": -1}[self.kind]


def layers(network: nn.Module) -> list[Layer]:
    """The different layers of a network that the kernel takes, in order. Its modules follow each other as it runs."""
    level, found = 0, {}
    for module in network.modules():
        if not isinstance(module, SparseConv3d | SparseConvTranspose3d) or module.kernel.ndim == 2:
            continue
        volume, *widths = module.kernel.shape
        kind = "same" if volume == 27 else "up" if isinstance(module, SparseConvTranspose3d) else "down"
        layer = Layer(kind, level, *widths)
        level = layer.target
        if takes(*widths):
            found[layer] = None
    return list(found)


def surfaces(voxels: int, seed: int = 0) -> Tensor:
    """(about `voxels`, 4) int32: a floor, two walls and forty pieces, as rough as scans of 2 cm voxels are."""
    generator = torch.Generator().manual_seed(seed)
    side = (voxels / 6.2) ** 0.5
    x, y, z = side * torch.tensor([[1, 0.1, 0], [-0.1, 1, 0], [0, 0, 1]])
    rectangles = [(0 * x, x, y), (0 * x, x, z), (0 * x, y, z)]
    for _ in range(40):
        rectangles.append((side * torch.rand(3, generator=generator), *_sides(side, generator)))
    points = []
    for corner, a, b in rectangles:
        normal = torch.linalg.cross(a, b)
        u, v = torch.rand(2, int(2.2 * normal.norm()) + 1, 1, generator=generator)
        noise = 0.1 * torch.randn(len(u), 1, generator=generator)
        points.append(corner + u * a + v * b + noise * normal / normal.norm())
    cells = torch.unique(torch.cat(points).floor().int(), dim=0)
    return torch.nn.functional.pad(cells, (1, 0))


def _sides(side: float, generator: torch.Generator) -> Tensor:
    return side / 5 * torch.randn(2, 3, generator=generator)


class Scene:
    """Voxels and the maps of all their layers, the kernels' and the plain ones."""

    def __init__(self, coordinates: Tensor):
        number = coordinates.new_full((1,), len(coordinates))
        self.pyramid = Pyramid.build(coordinates, number)
        self._maps = {}

    @cached_property
    def _coordinates(self) -> list[CoordinateMap]:
        rows = map(self.pyramid.coordinates, range(5))
        return [CoordinateMap.from_rows(c, 1 << level) for level, c in enumerate(rows)]

    def plain_map(self, layer: Layer) -> KernelMap:
        """The pairs of a layer; rows are numbered as in the pyramid."""
        fine, coarse = sorted((layer.level, layer.target))
        if (fine, coarse) not in self._maps:
            source, target = self._coordinates[fine], self._coordinates[coarse]
            size = 3 if fine == coarse else 2
            self._maps[fine, coarse] = source.kernel_map(target, (size,) * 3, (1, 1, 1))
        found = self._maps[fine, coarse]
        return found.transposed if layer.kind == "up" else found

    def tiles(self, layer: Layer) -> Tiles:
        of_kind = {"same": self.pyramid.tiles, "down": self.pyramid.tiles_down, "up": self.pyramid.tiles_up}
        return of_kind[layer.kind](min(layer.level, layer.target))


class Problem:
    """A layer on a scene, with numbers to compute with; called with a shape, it computes them: (n, Cout).

    Args:
        kind: how to multiply, one of `KINDS`.
    """

    def __init__(self, scene: Scene, layer: Layer, kind: str):
        self.scene, self.layer, self.kind, self.dtype = scene, layer, kind, KINDS[kind]
        self.tiles = scene.tiles(layer)
        device, counts = self.tiles.n.device, scene.pyramid.counts()
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, device=device, generator=generator).to(self.dtype)

        volume, channels = self.tiles.volume, layer.out_channels
        self.rows = counts[layer.target]
        self.x = normal(counts[layer.level], layer.in_channels)
        self.kernel = normal(volume, channels, layer.in_channels).div_((volume * layer.in_channels) ** 0.5)
        self.kernel = self.kernel.transpose(1, 2)
        if kind != "tf32":  # whose matrix unit wants input channels side by side, and finds them so
            self.kernel = self.kernel.contiguous()
        self.scale, self.shift = normal(2, channels).float()
        self.add = normal(self.rows, channels) if layer.kind == "same" else None

    @property
    def number(self) -> int:
        """Of tiles."""
        return self.tiles.capacity // self.tiles.tile_rows

    def __call__(self, config: Config, out: Tensor | None = None, arrivals: Tensor | None = None) -> Tensor:
        if out is None:
            out = self.x.new_full((self.rows, self.layer.out_channels), torch.nan)
        precision = "tf32" if self.kind == "tf32" else "ieee"
        return convolution(
            self.x, self.kernel, self.tiles, out, config, self.scale, self.shift, self.add, relu=True,
            precision=precision, arrivals=arrivals,
        )  # fmt: skip

    def timed(self, config: Config, clock: Clock) -> float:
        """ms of one convolution and nothing else."""
        out = self.x.new_empty(self.rows, self.layer.out_channels)
        arrivals = torch.zeros(PROGRAMS, dtype=torch.int32, device=out.device)
        return clock(lambda: self(config, out, arrivals))

    @cached_property
    def expected(self) -> Tensor:
        """(n, Cout) float64, from the plain layer."""
        x, kernel, scale, shift = (t.double() for t in (self.x, self.kernel, self.scale, self.shift))
        epilogue = Epilogue(scale, shift, None if self.add is None else self.add.double(), relu=True)
        return sparse_convolution(x, kernel, self.scene.plain_map(self.layer), epilogue)

    def error(self, config: Config) -> tuple[float, float]:
        """Relative error, and that of the worst number beside the mean one.

        Infinite where the shape does not run, or gives other bits when it runs again.
        """
        try:
            result, *again = (self(config) for _ in range(3))
        except Exception:  # more of a resource than there is, or what a compiler has against it
            return torch.inf, torch.inf
        if not all(
            torch.equal(result, other) for other in again
        ):  # nor does what is not a number equal itself
            return torch.inf, torch.inf
        size = self.expected.square().mean().sqrt()
        off = (result.double() - self.expected).div_(size)
        return float(off.square().mean().sqrt()), float(off.abs().max())

    def candidates(self) -> list[Config]:
        """The default first, then whatever may be faster."""
        device = chip(self.tiles.n.device)
        layer = self.tiles.volume, self.layer.in_channels, self.layer.out_channels, self.dtype
        first = default(device, *layer, self.number)
        splits = {first.splits, 2 * first.splits, max(1, first.splits // 2)}
        narrowest = 64 if self.layer.out_channels > 96 else 32
        found = [
            Config(columns, depth, 4, stages, s)
            for columns in (32, 64, 96, 128)
            for depth in (32, 64)
            for stages in ({3, device.stages, first.stages})
            for s in splits
            if columns >= narrowest
            and (s == 1 or self.number * self.layer.out_channels <= PROGRAMS * columns)
        ]
        return list(dict.fromkeys([first, *(c for c in found if fits(c, device, *layer))]))
