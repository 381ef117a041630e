"""Layers on sparse tensors. Parameter names and shapes are those of the published checkpoints."""

import math

import torch
from torch import Tensor, nn

from lground.errors import InputError
from lground.sparse.coordinates import CoordinateMap
from lground.sparse.functional import (
    Epilogue,
    average_pool,
    fold,
    max_pool,
    normalize,
    pointwise_convolution,
    sparse_convolution,
    sum_pool,
)
from lground.sparse.kernel_map import KernelMap, Triple
from lground.sparse.tensor import SparseTensor, same_voxels


def _triple(value: int | tuple[int, int, int], name: str) -> Triple:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * 3
    if len(values) != 3 or any(not isinstance(v, int) or v < 1 for v in values):
        raise InputError(f"{name} must be a positive integer or three of them, not {value!r}")
    return values


class _Windowed(nn.Module):
    """What layers with a kernel window share: its geometry, and the maps it needs."""

    def __init__(self, kernel_size: int | Triple, stride: int, dilation: int | Triple):
        super().__init__()
        self.kernel_size = _triple(kernel_size, "kernel_size")
        self.stride = stride
        if not isinstance(stride, int) or stride < 1:
            raise InputError(f"stride must be a positive integer, the same for x, y and z, not {stride!r}")
        self.dilation = _triple(dilation, "dilation")

    def _downward(self, x: SparseTensor) -> tuple[CoordinateMap, KernelMap]:
        target = x.manager.coarser(x.coordinate_map, self.stride)
        return target, x.manager.kernel_map(x.coordinate_map, target, self.kernel_size, self.dilation)

    def _upward(self, x: SparseTensor) -> tuple[CoordinateMap, KernelMap]:
        target = x.manager.finer(x.coordinate_map, self.stride, self.kernel_size, self.dilation)
        down = x.manager.kernel_map(target, x.coordinate_map, self.kernel_size, self.dilation)
        return target, down.transposed

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"


class _Convolution(_Windowed):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple,
        stride: int,
        dilation: int | Triple,
        bias: bool,
    ):
        super().__init__(kernel_size, stride, dilation)
        self.in_channels, self.out_channels = in_channels, out_channels
        volume = math.prod(self.kernel_size)
        self.pointwise = volume == 1 and self.stride == 1
        shape = (in_channels, out_channels) if self.pointwise else (volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(1, out_channels)) if bias else None
        self.reset_parameters()

    @property
    def _fan(self) -> int:
        raise NotImplementedError

    def _maps(self, x: SparseTensor) -> tuple[CoordinateMap, KernelMap]:
        raise NotImplementedError

    def target(self, x: SparseTensor) -> CoordinateMap:
        """The voxels that the convolution of `x` writes to."""
        return x.coordinate_map if self.pointwise else self._maps(x)[0]

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(fan): input channels (output ones when transposed) x kernel volume."""
        bound = 1 / math.sqrt(self._fan * math.prod(self.kernel_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        y = self._convolve(x)
        if self.bias is not None and not self.pointwise:
            y.features += self.bias.to(y.features.dtype)  # the convolution's result belongs to nobody else
        return y

    def _convolve(self, x: SparseTensor, epilogue: Epilogue | None = None) -> SparseTensor:
        """The convolution, without its bias unless it is pointwise, or what the epilogue makes of it."""
        if x.features.shape[1] != self.in_channels:
            raise InputError(
                f"this layer takes {self.in_channels} channels, and the tensor has {x.features.shape[1]}"
            )
        if self.pointwise:
            return x.with_features(pointwise_convolution(x.features, self.kernel, epilogue, self.bias))
        target, kernel_map = self._maps(x)
        features = sparse_convolution(x.features, self.kernel, kernel_map, epilogue)
        return SparseTensor.on_map(features, target, x.manager)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, {super().extra_repr()}, bias={self.bias is not None}"
        )


class SparseConv3d(_Convolution):
    """Sparse convolution: `out[c] = sum_k in[c + offset_k * dilation * stride of the input] @ kernel[k]`.

    With stride 1 the output has the voxels and rows of the input; with stride s, those voxels floored to
    multiples of s.

    Args:
        in_channels, out_channels: number of features.
        kernel_size: integer or (x, y, z); odd sizes are centred, even ones reach from 0 to size - 1.
        stride: integer.
        dilation: integer or (x, y, z).
        bias: whether to add a bias.

    Parameters: `kernel` (K, Cin, Cout), x fastest in K, or (Cin, Cout) for kernel size 1 at stride 1; `bias`
    (1, Cout).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 3,
        stride: int = 1,
        dilation: int | Triple = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, bias)

    @property
    def _fan(self) -> int:
        return self.in_channels

    def _maps(self, x: SparseTensor) -> tuple[CoordinateMap, KernelMap]:
        return self._downward(x)


class SparseConvTranspose3d(_Convolution):
    """Transposed convolution: voxel p writes `in[p] @ kernel[k]` to p + offset_k * dilation * finer stride.

    It writes onto the map of the finer stride that the tensor's manager holds, dropping what falls beside it;
    without such a map it creates every voxel the kernel reaches. Arguments and parameters as SparseConv3d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 2,
        stride: int = 2,
        dilation: int | Triple = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, bias)

    @property
    def _fan(self) -> int:
        return self.out_channels

    def _maps(self, x: SparseTensor) -> tuple[CoordinateMap, KernelMap]:
        return self._upward(x)


class _Pool(_Windowed):
    _pool = staticmethod(sum_pool)

    def __init__(self, kernel_size: int | Triple = 2, stride: int = 2, dilation: int | Triple = 1):
        super().__init__(kernel_size, stride, dilation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        target, kernel_map = self._downward(x)
        return SparseTensor.on_map(self._pool(x.features, kernel_map), target, x.manager)


class SumPool3d(_Pool):
    """Sum over the voxels present under the kernel."""


class AvgPool3d(_Pool):
    """Mean over the voxels present under the kernel (absent ones do not count)."""

    _pool = staticmethod(average_pool)


class MaxPool3d(_Pool):
    """Maximum over the voxels present under the kernel."""

    _pool = staticmethod(max_pool)


class _GlobalPool(nn.Module):
    """One row per scene present in the batch, ascending, at coordinates [batch, 0, 0, 0] and stride 0."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        scenes = x.coordinate_map.scene_rows
        rows = [self._reduce(x.features.index_select(0, scene)) for scene in scenes]
        coordinates = torch.zeros(len(scenes), 4, dtype=torch.int32, device=x.coordinates.device)
        coordinates[:, 0] = torch.stack([x.coordinates[scene[0], 0] for scene in scenes])
        return SparseTensor.on_map(torch.stack(rows), CoordinateMap(coordinates, stride=0), x.manager)

    @staticmethod
    def _reduce(features: Tensor) -> Tensor:
        raise NotImplementedError


class GlobalSumPool(_GlobalPool):
    """Sum of each scene's features."""

    @staticmethod
    def _reduce(features: Tensor) -> Tensor:
        return features.sum(0)


class GlobalAvgPool(_GlobalPool):
    """Mean of each scene's features."""

    @staticmethod
    def _reduce(features: Tensor) -> Tensor:
        return features.mean(0)


class GlobalMaxPool(_GlobalPool):
    """Maximum of each scene's features; the first of equal maxima receives the gradient."""

    @staticmethod
    def _reduce(features: Tensor) -> Tensor:
        return features.max(0).values


class BatchNorm(nn.Module):
    """Batch normalisation over all voxels of all scenes; the torch module is `bn`.

    `torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)` makes those of a whole network synchronised between
    processes; state dict keys stay the same.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.bn = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, x: SparseTensor, add: SparseTensor | None = None, relu: bool = False) -> SparseTensor:
        """`relu(norm(x) + add)`, with the residual `add` on the same voxels and the ReLU if wanted."""
        if add is not None:
            same_voxels(x, add)
        return x.with_features(normalize(x.features, self.bn, None if add is None else add.features, relu))


def conv_norm(
    conv: _Convolution,
    norm: BatchNorm,
    x: SparseTensor,
    add: SparseTensor | None = None,
    relu: bool = True,
) -> SparseTensor:
    """`relu(norm(conv(x)) + add)`, with the residual `add` on the output's voxels and the ReLU if wanted.

    In inference (batch norm in eval mode, gradients disabled) one pass does it all. Hooks on either module
    are honoured: then the two run one after the other.
    """
    if not _foldable(conv, norm):
        return norm(conv(x), add, relu)
    if add is not None and add.coordinate_map is not conv.target(x):
        raise InputError(
            f"{add!r} cannot be added: it does not lie on the voxels that the convolution writes to"
        )
    scale, shift = fold(norm.bn, conv.bias)
    return conv._convolve(x, Epilogue(scale, shift, None if add is None else add.features, relu))


def _foldable(conv: _Convolution, norm: nn.Module) -> bool:
    """Whether nothing but the result of the pair can be asked for."""
    if torch.is_grad_enabled() or not isinstance(norm, BatchNorm):
        return False
    if norm.bn.training or norm.bn.running_mean is None:
        return False
    return not any(m._forward_hooks or m._forward_pre_hooks for m in (conv, norm, norm.bn))


class InstanceNorm(nn.Module):
    """Normalisation of each scene and channel over its voxels (biased variance), then a scale and a shift.

    Parameters: `weight`, `bias` (1, C).
    """

    def __init__(self, channels: int, eps: float = 1e-8):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels))
        self.bias = nn.Parameter(torch.zeros(1, channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        scenes = x.coordinate_map.scene_rows
        normal = torch.cat([self._normalise(x.features.index_select(0, scene)) for scene in scenes])
        features = normal.index_select(0, torch.argsort(torch.cat(scenes)))
        return x.with_features(features * self.weight + self.bias)

    def _normalise(self, features: Tensor) -> Tensor:
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        return (features - mean) / torch.sqrt(variance + self.eps)


class ReLU(nn.Module):
    """Rectified linear unit. In place, it overwrites the feature matrix it is given."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_features(nn.functional.relu(x.features, inplace=self.inplace))
