"""The network under test: its weights, where its convolutions lie, and the same network out of a peer's layers."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from lground.models import build
from lground.models.res16unet import DECODER, ENCODER, Res16UNet
from lground.sparse import (
    BatchNorm,
    CoordinateManager,
    CoordinateMap,
    KernelMap,
    SparseConv3d,
    SparseConvTranspose3d,
    SparseTensor,
)

CLASSES = 200


def make(variant: str, stem: int) -> Res16UNet:
    """The network with weights as large as training leaves them, the same every time."""
    torch.manual_seed(0)
    net = build(variant, out_channels=CLASSES, stem_kernel_size=stem)
    for conv, source, target in placed(net):
        met = (
            {1: 0.3, -1: 1, 0: 0.37}[target - source] if not conv.pointwise else 1
        )  # share of occupied offsets
        fan = conv.kernel.shape[-2] * (len(conv.kernel) ** (target >= source) if conv.kernel.ndim == 3 else 1)
        nn.init.normal_(conv.kernel, std=(2 / (fan * met)) ** 0.5)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    for norm in norms(net):
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, std=0.1)
    return net


def norms(net: nn.Module) -> list[nn.BatchNorm1d]:
    """All batch norms, in order."""
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]


def placed(net: Res16UNet) -> Iterator[tuple[SparseConv3d | SparseConvTranspose3d, int, int]]:
    """Every convolution with the levels (stride 2^level) of its input and of its output, in order."""
    levels = {}
    for level, (conv, _, blocks) in enumerate(ENCODER):
        levels |= {conv: (level, level + 1), blocks: (level + 1, level + 1)}
    for level, (conv, _, blocks) in zip((3, 2, 1, 0), DECODER, strict=True):
        levels |= {conv: (level + 1, level), blocks: (level, level)}
    for name, module in net.named_modules():
        if isinstance(module, SparseConv3d | SparseConvTranspose3d):
            yield module, *levels.get(name.split(".")[0], (0, 0))


def _levels(coordinates: Tensor) -> tuple[CoordinateManager, list[CoordinateMap]]:
    """The coordinate maps of strides 1, 2, 4, 8, 16, and their manager."""
    x = SparseTensor(coordinates.new_empty((len(coordinates), 1), dtype=torch.float32), coordinates)
    maps = [x.coordinate_map]
    for _ in ENCODER:
        maps.append(x.manager.coarser(maps[-1], 2))
    return x.manager, maps


def mapped(net: Res16UNet, coordinates: Tensor) -> Iterator[tuple[SparseConv3d, int, int, KernelMap | None]]:
    """Every convolution with its numbers of rows, in and out, and its kernel map (None for 1x1).

    Between two levels it is the map from the fine to the coarse one, for the way up as well.
    """
    manager, maps = _levels(coordinates)
    for conv, source, target in placed(net):
        rows = len(maps[source]), len(maps[target])
        if conv.pointwise:
            yield conv, *rows, None
        else:
            fine, coarse = maps[min(source, target)], maps[max(source, target)]
            yield conv, *rows, manager.kernel_map(fine, coarse, conv.kernel_size, conv.dilation)


def windows(net: Res16UNet) -> list[tuple[int, int, tuple[int, int, int], bool]]:
    """What the network needs maps for: levels of input and output, kernel size, whether few channels go in."""
    found = placed(net)
    return list(
        dict.fromkeys((a, b, c.kernel_size, c.in_channels <= 8) for c, a, b in found if not c.pointwise)
    )


def build_maps(wanted: list[tuple[int, int, tuple[int, int, int], bool]], coordinates: Tensor) -> None:
    """Build all that convolutions over these `windows` read besides features and weights."""
    manager, maps = _levels(coordinates)
    for source, target, size, narrow in wanted:
        fine, coarse = maps[min(source, target)], maps[max(source, target)]
        kernel_map = manager.kernel_map(fine, coarse, size, (1, 1, 1))
        if source > target:
            kernel_map = kernel_map.transposed
        if hasattr(kernel_map, "tiles"):  # of the Triton kernels
            continue  # asking for them has built them
        _ = kernel_map.neighbours if narrow else kernel_map.blocks


def features_of(coordinates: Tensor) -> Tensor:
    """(N, 3) float32 made from (N, 4) coordinates: smooth, and another one for every voxel.

    Made by NumPy: the first torch.sin of a process with two threads was seen to be wrong by 2e-4 in the rows of
    one of them, in about one process of fifty.
    """
    phases = coordinates[:, 1:].cpu().numpy().astype(np.float32) * np.float32([0.7, 0.9, 1.3])
    return torch.from_numpy(np.sin(phases)).to(coordinates.device)


class PeerNetwork(nn.Module):
    """A network as a user of another engine would write it: that engine's convolutions, torch's batch norms.

    Args:
        net: gives the architecture and the weights; its norms become part of this network.
        peer: one of `peers.PEERS`, made.
    """

    def __init__(self, net: Res16UNet, peer):
        super().__init__()
        if net.offsets is not None or not isinstance(net.final, SparseConv3d):
            raise ValueError("peers are compared on networks with a linear head and nothing else")
        self.peer, self.levels = peer, {conv: level for conv, *level in placed(net)}
        self.stem = self._unit(net.conv0p1s1, net.bn0)
        self.encoder, self.decoder = (
            nn.ModuleList(
                nn.ModuleList(
                    [
                        self._unit(getattr(net, conv), getattr(net, norm)),
                        *map(self._block, getattr(net, blocks)),
                    ]
                )
                for conv, norm, blocks in stages
            )
            for stages in (ENCODER, DECODER)
        )
        self.final = _linear(net.final)
        del self.levels

    def _unit(self, conv: nn.Module, norm: BatchNorm) -> nn.ModuleList:
        if conv.pointwise:
            return nn.ModuleList([_linear(conv), norm.bn])
        source, target = self.levels[conv]
        size, level = conv.kernel_size[0], min(source, target)
        kind = "same" if source == target else "down" if source < target else "up"
        return nn.ModuleList([self.peer.loaded(kind, size, level, conv.kernel.detach()), norm.bn])

    def _block(self, block: nn.Module) -> nn.ModuleDict:
        parts = {"one": self._unit(block.conv1, block.norm1), "two": self._unit(block.conv2, block.norm2)}
        if block.downsample is not None:
            parts["shortcut"] = self._unit(*block.downsample)
        return nn.ModuleDict(parts)

    def forward(self, x) -> tuple[Tensor, object]:
        """(N, classes) of the peer's tensor, and the peer's last tensor (it knows every map)."""
        x, skips = self._convolve(self.stem, x), []
        for stage in self.encoder:
            skips.append(x)
            x = self._stage(stage, x)
        for stage in self.decoder:
            x = self._stage(stage, x, skips.pop())
        return self.final(self.peer.features(x)), x

    def _stage(self, stage: nn.ModuleList, x, skip=None):
        features, replace = self.peer.features, self.peer.replace
        x = self._convolve(stage[0], x)
        if skip is not None:
            x = replace(x, torch.cat([features(x), features(skip)], dim=1))
        for block in list(stage)[1:]:
            y = self._convolve(block["one"], x)
            conv, norm = block["two"]
            shortcut = features(x)
            if "shortcut" in block:
                linear, shortcut_norm = block["shortcut"]
                shortcut = shortcut_norm(linear(shortcut))
            y = conv(y)
            x = replace(y, torch.relu_(norm(features(y)).add_(shortcut)))
        return x

    def _convolve(self, unit: nn.ModuleList, x):
        conv, norm = unit
        x = conv(x)
        return self.peer.replace(x, torch.relu_(norm(self.peer.features(x))))


def _linear(conv: SparseConv3d) -> nn.Linear:
    linear = nn.Linear(*conv.kernel.shape, bias=conv.bias is not None, device=conv.kernel.device)
    linear.weight.data.copy_(conv.kernel.detach().t())
    if conv.bias is not None:
        linear.bias.data.copy_(conv.bias.detach()[0])
    return linear
