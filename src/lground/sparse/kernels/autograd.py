"""Convolutions on the Triton kernels, with their gradients."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lground.sparse.engine import PyramidMap, Remake
from lground.sparse.functional import Epilogue, data_gradient
from lground.sparse.kernels import convolution, stem
from lground.sparse.kernels.configuration import choose
from lground.sparse.kernels.tf32 import lay_out, operand
from lground.sparse.kernels.tiles import Tiles
from lground.sparse.kernels.weight_gradient import weight_gradient
from lground.sparse.narrow import narrow

TYPES = torch.float16, torch.bfloat16, torch.float32


def takes(features: Tensor, kernel: Tensor, kernel_map: PyramidMap) -> bool:
    """Whether there is a kernel for these widths and this type."""
    _, in_channels, out_channels = kernel.shape
    if compute_type(features, kernel) not in TYPES:
        return False
    if kernel_map.mirrored and kernel_map.target.level == 0 and stem.takes(kernel, kernel_map.kernel_size[0]):
        return True
    # The data gradient swaps the widths.
    return (
        len(kernel_map) <= 27
        and convolution.takes(in_channels, out_channels)
        and convolution.takes(out_channels, in_channels)
    )


def compute_type(features: Tensor, kernel: Tensor) -> torch.dtype:
    """What to multiply in: autocast's type, else the operands' own."""
    device = features.device.type
    if torch.is_autocast_enabled(device) and torch.float64 not in (features.dtype, kernel.dtype):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(features.dtype, kernel.dtype)


def precision(dtype: torch.dtype) -> str:
    """How to multiply float32, as torch's own setting says."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


def sparse_convolution(
    features: Tensor, kernel: Tensor, kernel_map: PyramidMap, epilogue: Epilogue | None
) -> Tensor:
    """As `lground.sparse.sparse_convolution`, for what `takes` accepts."""
    dtype = compute_type(features, kernel)
    of = _Stem if kernel.shape[1] <= stem.MAX_CHANNELS else _Convolution
    if epilogue is None:
        if of is _Convolution and torch.is_grad_enabled() and kernel.requires_grad:
            kernel_map.expect_pairs()
        return of.apply(features, kernel, kernel_map, dtype)
    with torch.no_grad():
        return of.run(features, kernel, kernel_map, dtype, epilogue)


def run(
    features: Tensor,
    kernel: Tensor,
    tiles: Tiles,
    rows: int,
    mirrored: bool = False,
    epilogue: Epilogue | None = None,
) -> Tensor:
    """Convolve (N, Cin) with (K, Cin, Cout), of one type, into (rows, Cout)."""
    kind = precision(kernel.dtype)
    features, kernel = _rows(operand(features, kind)), lay_out(operand(kernel, kind), kind)
    out = features.new_empty(rows, kernel.shape[2])
    e = epilogue or Epilogue()
    config = choose(tiles, kernel.shape[1], kernel.shape[2], kernel.dtype)
    add = None if e.add is None else _rows(e.add)
    return convolution.convolution(
        features, kernel, tiles, out, config, e.scale, e.shift, add, e.relu, mirrored, kind
    )


def _rows(features: Tensor) -> Tensor:
    return features if features.stride(1) == 1 else features.contiguous()


class _Convolution(torch.autograd.Function):
    """Keeps its operands, or how to make the features again."""

    @staticmethod
    def run(features, kernel, kernel_map, dtype, epilogue=None):
        return run(
            features.to(dtype), kernel.to(dtype), kernel_map.tiles, kernel_map.output_rows, epilogue=epilogue
        )

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, kernel_map: PyramidMap, dtype: torch.dtype) -> Tensor:
        ctx.kernel_map, ctx.types = kernel_map, (features.dtype, kernel.dtype)
        kernel = narrow(kernel, dtype)
        _keep(ctx, features, kernel)
        return run(features.to(dtype), kernel, kernel_map.tiles, kernel_map.output_rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        kernel, *features = ctx.saved_tensors
        gradient, kernel_map = _rows(gradient), ctx.kernel_map
        of_features = of_kernel = None
        if ctx.needs_input_grad[0]:
            tiles, back = kernel_map.tiles_back, kernel.transpose(1, 2)
            of_features = run(gradient, back, tiles, kernel_map.input_rows, kernel_map.mirrored)
            of_features = of_features.to(ctx.types[0])
        if ctx.needs_input_grad[1]:
            x = ctx.make(*features)
            operands = (
                (gradient, x) if kernel_map.upward else (x, gradient)
            )  # of the opposite map, turned round
            of_kernel = weight_gradient(*operands, kernel_map.pairs, len(kernel_map), precision(x.dtype))
            of_kernel = (of_kernel.transpose(1, 2) if kernel_map.upward else of_kernel).to(ctx.types[1])
        return of_features, of_kernel, None, None


def pointwise_convolution(features: Tensor, kernel: Tensor) -> Tensor:
    """(N, Cout): `features @ kernel`, (N, Cin) and (Cin, Cout)."""
    return _Pointwise.apply(features, kernel, compute_type(features, kernel))


class _Pointwise(torch.autograd.Function):
    """A matrix product that need not keep its features."""

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.types = features.dtype, kernel.dtype
        kernel = narrow(kernel, dtype)
        _keep(ctx, features, kernel)
        return features.to(dtype) @ kernel

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        kernel, *features = ctx.saved_tensors
        of_features = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_features = (gradient @ kernel.t()).to(ctx.types[0])
        if ctx.needs_input_grad[1]:
            of_kernel = (ctx.make(*features).t() @ gradient).to(ctx.types[1])
        return of_features, of_kernel, None


def _keep(ctx, features: Tensor, kernel: Tensor) -> None:
    """Save the kernel and, for the backward pass to call `ctx.make` with, what gives the features in its type."""
    remake = Remake.find(features, kernel.dtype)
    if remake is None:
        ctx.make = _as_it_is
        ctx.save_for_backward(kernel, features.to(kernel.dtype))
    else:
        ctx.make = remake.make
        ctx.save_for_backward(kernel, *remake.tensors)


def _as_it_is(features: Tensor) -> Tensor:
    return features


class _Stem(torch.autograd.Function):
    @staticmethod
    def run(features, kernel, kernel_map, dtype, epilogue=None):
        pyramid, window = kernel_map.pyramid, kernel_map.kernel_size[0]
        out = torch.empty(len(features), kernel.shape[2], dtype=dtype, device=features.device)
        kind = precision(dtype)
        x = operand(stem.sort_features(features, pyramid, dtype), kind)
        weights = stem.lay_out_weights(operand(kernel.to(dtype), kind))
        e = epilogue or Epilogue()
        relu = e.relu and e.add is None
        stem.stem_convolution(x, weights, pyramid, window, out, pyramid.order, e.scale, e.shift, relu, kind)
        return out if e.add is None else Epilogue(add=e.add, relu=e.relu).finish(out, slice(None))

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, kernel_map: PyramidMap, dtype: torch.dtype) -> Tensor:
        ctx.kernel_map = kernel_map
        ctx.save_for_backward(features, kernel)
        return _Stem.run(features, kernel, kernel_map, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, kernel = ctx.saved_tensors
        gradient, kernel_map = _rows(gradient), ctx.kernel_map
        pyramid, dtype = kernel_map.pyramid, gradient.dtype
        of_features = of_kernel = None
        if ctx.needs_input_grad[0]:  # colours rarely want one: plain PyTorch does
            of_features = data_gradient(gradient, kernel.to(dtype), kernel_map).to(features.dtype)
        if ctx.needs_input_grad[1]:
            kind, window, channels = precision(dtype), kernel_map.kernel_size[0], features.shape[1]
            x = operand(stem.sort_features(features, pyramid, dtype), kind)
            gradient = operand(gradient, kind)
            of_kernel = stem.stem_gradient(x, gradient, pyramid, window, channels, pyramid.order, kind)
            of_kernel = of_kernel.to(kernel.dtype)
        return of_features, of_kernel, None, None
