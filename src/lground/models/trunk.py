"""The layers of a Res16UNet as a scene passes through them in inference: what is computed, and in which memory.

Batch norm, ReLU and shortcuts are epilogues of the convolutions, skips are written where the decoder reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lground.sparse.functional import fold
from lground.sparse.layers import SparseConv3d, SparseConvTranspose3d

if TYPE_CHECKING:
    from lground.sparse.kernels.pyramid import Pyramid

LEVELS = 5  # strides 1 to 16


@dataclass(frozen=True)
class _Layer:
    """One convolution and the norm after it: matrices (K, Cin, Cout), scale and shift (Cout,) float32."""

    kernel: Tensor
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class _Block:
    first: _Layer
    second: _Layer
    shortcut: tuple[Tensor, Tensor] | None  # matrix (Cin, Cout) and shift of a 1x1 convolution and its norm
    relu: bool


class Trunk:
    """The layers of a Res16UNet up to its features, their weights laid out as the kernels read them.

    Args:
        network: in eval mode.
        dtype: to compute in. precision: of float32 products.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, precision: str):
        from lground.models.res16unet import DECODER, ENCODER
        from lground.sparse.kernels import stem
        from lground.sparse.kernels.tf32 import operand

        self.dtype, self.precision = dtype, precision
        kernel = network.conv0p1s1.kernel.detach().to(dtype)
        self.in_channels, self.window = kernel.shape[1], round(len(kernel) ** (1 / 3))
        self.stem = self._layer(
            network.conv0p1s1, network.bn0, stem.lay_out_weights(operand(kernel, precision))
        )
        self.encoder = [self._stage(network, *names) for names in ENCODER]
        self.decoder = [self._stage(network, *names) for names in DECODER]
        self.width = network.feature_channels
        # The decoder of a level reads its upsampled and its encoder's features side by side.
        up = [layer.kernel.shape[2] for layer, _ in reversed(self.decoder)]
        skip = [
            self.stem.kernel.shape[1],
            *(blocks[-1].second.kernel.shape[2] for _, blocks in self.encoder[:3]),
        ]
        self.joined_widths = [a + b for a, b in zip(up, skip, strict=True)]

    def _stage(self, network: nn.Module, conv: str, norm: str, blocks: str) -> tuple[_Layer, list[_Block]]:
        layer = self._layer(network.get_submodule(conv), network.get_submodule(norm))
        return layer, [self._block(block) for block in network.get_submodule(blocks)]

    def _block(self, block: nn.Module) -> _Block:
        shortcut = None
        if block.downsample is not None:
            scale, shift = fold(block.downsample[1].bn)
            shortcut = (
                (block.downsample[0].kernel.detach() * scale).to(self.dtype),
                shift.detach().to(self.dtype),
            )
        first, second = self._layer(block.conv1, block.norm1), self._layer(block.conv2, block.norm2)
        return _Block(first, second, shortcut, block.final_relu)

    def _layer(self, conv: nn.Module, norm: nn.Module, kernel: Tensor | None = None) -> _Layer:
        from lground.sparse.kernels.tf32 import lay_out, operand

        scale, shift = fold(norm.bn, conv.bias)
        if kernel is None:
            kernel = operand(conv.kernel.detach().to(self.dtype), self.precision)
            kernel = lay_out(kernel, self.precision)
        return _Layer(kernel, scale.detach().float().contiguous(), shift.detach().float().contiguous())

    def size(self, caps: list[int], rows: list[int], device: torch.device) -> int:
        """Elements of the trunk's type that a call writes in `space`, for capacities and likely rows of levels.

        The joined features of level 0 come first. Behind them lie those of levels 1 to 3 and what the blocks of
        coarse levels write; when level 0 comes to its own blocks, that is over, and they write in the same place.
        """
        joined, *coarse_joined = (cap * w for cap, w in zip(caps, self.joined_widths, strict=False))
        coarse = max(self._work(level, caps, rows, device) for level in range(1, LEVELS))
        return joined + max(self._work(0, caps, rows, device), sum(coarse_joined) + coarse)

    def _work(self, level: int, caps: list[int], rows: list[int], device: torch.device) -> int:
        """Elements of what the blocks of a level read and write: the way in, two results, sums in parts."""
        from lground.sparse.kernels.configuration import choose_for
        from lground.sparse.kernels.convolution import parts_size
        from lground.sparse.kernels.tiles import TILE_ROWS

        down, blocks = (None, []) if level == 0 else self.encoder[level - 1]
        blocks = blocks if level == LEVELS - 1 else [*blocks, *self.decoder[-1 - level][1]]
        layers = [layer.kernel.shape for block in blocks for layer in (block.first, block.second)]
        entry = 0 if down is None else down.kernel.shape[2]
        parts = max(
            parts_size(
                choose_for(device, caps[level] // TILE_ROWS, layer, self.dtype, rows[level]),
                caps[level],
                layer[2],
            )
            for layer in layers
        )
        widest = max(out for *_, out in layers)
        return caps[level] * (entry + 2 * widest) + parts * torch.float32.itemsize // self.dtype.itemsize

    def __call__(
        self,
        pyramid: Pyramid,
        features: Tensor,
        arrivals: Tensor,
        space: Tensor,
        rows: list[int] | None = None,
    ) -> Tensor:
        """(capacity of level 0, d) features, rows as the caller's, from (capacity, Cin) features; a part of `space`.

        Args:
            arrivals: (PROGRAMS,) int32 zeros.
            space: (`size`,) in the trunk's type, to write in.
            rows: how many each level is likely to have; None: its capacity.
        """
        from lground.sparse.kernels import stem
        from lground.sparse.kernels.configuration import choose
        from lground.sparse.kernels.convolution import convolution
        from lground.sparse.kernels.pointwise import pointwise
        from lground.sparse.kernels.tf32 import operand

        caps, rows = pyramid.caps, rows or pyramid.caps

        def cut(memory: Tensor, level: int, channels: int) -> tuple[Tensor, Tensor]:
            """A matrix at the start of `memory`, and the rest of it."""
            size = caps[level] * channels
            return memory[:size].view(caps[level], channels), memory[size:]

        def convolve(x, layer, level, tiles, out, add=None, relu=True, order=None, parts=None) -> Tensor:
            config = choose(tiles, *layer.kernel.shape[1:], self.dtype, rows[level])
            return convolution(
                x, layer.kernel, tiles, out, config, layer.scale, layer.shift, add, relu,
                precision=self.precision, arrivals=arrivals, parts=parts, order=order,
                round_result=self.precision == "tf32" and order is None,
            )  # fmt: skip

        def run_blocks(x, blocks, level, memory, out=None, order=None) -> Tensor:
            tiles, width = pyramid.tiles(level), blocks[0].first.kernel.shape[2]
            first, memory = cut(memory, level, width)
            second, memory = cut(memory, level, width)
            parts = memory.view(torch.float32)  # of the sums that coarse levels, small ones, are split into
            for block in blocks:
                y = convolve(x, block.first, level, tiles, first, parts=parts)
                add = x
                if block.shortcut is not None:
                    weights, shift = block.shortcut
                    add = pointwise(x, weights, shift, out=second)
                last = block is blocks[-1]
                # In place of what is added, whose elements are read before they are written.
                target = out if last and out is not None else add
                x = convolve(
                    y, block.second, level, tiles, target, add, block.relu, order if last else None, parts
                )
            return x

        finest, behind = cut(space, 0, self.joined_widths[0])
        joined, work = [finest], behind
        for level, width in enumerate(self.joined_widths[1:], start=1):
            matrix, work = cut(work, level, width)
            joined.append(matrix)
        up = [layer.kernel.shape[2] for layer, _ in reversed(self.decoder)]
        x = finest[:, up[0] :]
        sorted_features = operand(stem.sort_features(features, pyramid, self.dtype), self.precision)
        stem.stem_convolution(
            sorted_features, self.stem.kernel, pyramid, self.window, x, None, self.stem.scale, self.stem.shift,
            relu=True, precision=self.precision, round_result=self.precision == "tf32",
        )  # fmt: skip
        for level, (down, blocks) in enumerate(self.encoder, start=1):
            entry, memory = cut(work, level, down.kernel.shape[2])
            x = convolve(x, down, level, pyramid.tiles_down(level - 1), entry)
            skip = joined[level][:, up[level] :] if level < LEVELS - 1 else None
            x = run_blocks(x, blocks, level, memory, skip)
        for level, (rise, blocks) in zip(range(LEVELS - 2, -1, -1), self.decoder, strict=True):
            convolve(x, rise, level, pyramid.tiles_up(level), joined[level][:, : up[level]])
            if level:
                x = run_blocks(joined[level], blocks, level, work)
        # Rows change places in the last layer, so it cannot write over its shortcut: it writes over what the first
        # block has read, which is wider than it and has a matrix of its own for the shortcut.
        out, _ = cut(space, 0, self.width)
        return run_blocks(finest, self.decoder[-1][1], 0, behind, out, pyramid.order)


def has_kernels(network: nn.Module) -> bool:
    """Whether there are kernels for the widths of all layers up to the features."""
    from lground.sparse.kernels import convolution, stem

    convolutions = (m for m in network.modules() if isinstance(m, SparseConv3d | SparseConvTranspose3d))
    first, *others = (m for m in convolutions if not m.pointwise)
    return stem.takes(first.kernel, first.kernel_size[0]) and all(
        convolution.takes(m.in_channels, m.out_channels) for m in others
    )
