"""The arithmetic of sparse layers, on feature matrices and kernel maps.

Sums run in a fixed order whatever the number of threads: no row is added to by two threads at once.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lground.sparse.engine import PyramidMap, Remake, takes_over
from lground.sparse.kernel_map import Block, KernelMap

# MKL reads this at its first product: it then splits no sum between threads, and their number changes no bit.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


@dataclass(frozen=True)
class Epilogue:
    """What follows a convolution in the same pass, in inference: `relu(convolution * scale + shift + add)`.

    Attributes:
        scale, shift: (Cout,) floating, of each output channel; None leaves that step out.
        add: (N_out, Cout) floating, the residual; None for no residual.
        relu: whether negative sums become zero.
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    add: Tensor | None = None
    relu: bool = False

    def finish(self, sums: Tensor, rows: slice) -> Tensor:
        """Turn the convolution's sums (n, Cout) at `rows` into the output, in place."""
        if self.scale is not None:
            sums *= self.scale
        if self.shift is not None:
            sums += self.shift
        if self.add is not None:
            sums += self.add[rows]
        return sums.relu_() if self.relu else sums


def sparse_convolution(
    features: Tensor, kernel: Tensor, kernel_map: KernelMap, epilogue: Epilogue | None = None
) -> Tensor:
    """`out[o] = sum over k and pairs (i, o) of features[i] @ kernel[k]`, and what the epilogue makes of it.

    Args:
        features: (N_in, Cin), floating.
        kernel: (K, Cin, Cout), of the same dtype unless autocast is on.
        kernel_map: K lists of pairs.
        epilogue: scale, shift, residual and ReLU of the result; with one, no gradient flows.

    Returns:
        (N_out, Cout). Half precision (autocast) multiplies in that type; sums over offsets and the epilogue
        are in float32.
    """
    if isinstance(kernel_map, PyramidMap) and kernel_map.takes(features, kernel):
        from lground.sparse.kernels.autograd import sparse_convolution as triton_convolution

        return triton_convolution(features, kernel, kernel_map, epilogue)
    features, kernel = _autocast(features, kernel)
    if epilogue is None:
        return _Convolution.apply(features, kernel, kernel_map)
    with torch.no_grad():
        return _convolve(features, kernel, kernel_map, epilogue)


def pointwise_convolution(
    features: Tensor, kernel: Tensor, epilogue: Epilogue | None = None, bias: Tensor | None = None
) -> Tensor:
    """(N, Cout): `features @ kernel`, (N, Cin) and (Cin, Cout), and what the epilogue makes of it, with no gradient;
    or, with a `bias` (1, Cout), their sum."""
    if epilogue is None:
        if bias is None and Remake.find(features, features.dtype) is not None:
            from lground.sparse.kernels.autograd import pointwise_convolution as thrifty_convolution

            return thrifty_convolution(features, kernel)
        if bias is not None and not torch.is_grad_enabled() and takes_over(features.device):
            from lground.sparse.kernels.pointwise import pointwise

            features, kernel = _autocast(features, kernel)
            return pointwise(features, kernel, bias.flatten().to(features.dtype))
        return features @ kernel if bias is None else torch.addmm(bias, features, kernel)
    with torch.no_grad():
        if epilogue.scale is not None:
            kernel = kernel * epilogue.scale  # a matrix of weights is smaller than one of features
        features, kernel = _autocast(features, kernel.to(features.dtype))
        return replace(epilogue, scale=None).finish(features @ kernel, slice(None))


def normalize(
    features: Tensor, norm: nn.BatchNorm1d | nn.SyncBatchNorm, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """`relu(norm(features) + add)`, (N, C), differentiable; ReLU and the residual `add` (N, C) if wanted."""
    heard = norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
    ours = type(norm) is nn.BatchNorm1d and not heard and features.dtype != torch.float64
    if ours and takes_over(features.device):
        from lground.sparse.kernels.normalization import batch_norm

        return batch_norm(features, norm, add, relu)
    out = norm(features)
    if add is not None:  # what a norm returns belongs to nobody else, and its gradient needs only its input
        out = out.add_(add) if out.dtype == add.dtype else out + add
    return out.relu_() if relu else out


def fold(norm: nn.BatchNorm1d | nn.SyncBatchNorm, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that a batch norm in eval mode is, after a convolution with a `bias` (1, C)."""
    wide = _sum_type(norm.running_var.dtype)
    scale = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    mean = norm.running_mean if bias is None else norm.running_mean - bias.flatten()
    if norm.affine:
        scale = norm.weight * scale
        return scale, norm.bias - mean * scale
    return scale, -mean * scale


def sum_pool(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """(N_out, C): sum over the voxels present under the kernel."""
    return _SumPool.apply(features, kernel_map)


def average_pool(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """(N_out, C): mean over the voxels present under the kernel; zero where there is none."""
    present = torch.bincount(torch.cat(kernel_map.outputs), minlength=kernel_map.output_rows)
    return sum_pool(features, kernel_map) / present.clamp(min=1).to(features.dtype)[:, None]


def max_pool(features: Tensor, kernel_map: KernelMap) -> Tensor:
    """(N_out, C): maximum over the voxels present under the kernel; zero where there is none.

    Of equal maxima the one at the first offset receives the gradient.
    """
    return _MaxPool.apply(features, kernel_map)


def _autocast(features: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Both operands in the type that autocast asks for (float64 is left alone, as torch does)."""
    device = features.device.type
    if not torch.is_autocast_enabled(device) or torch.float64 in (features.dtype, kernel.dtype):
        return features, kernel
    dtype = torch.get_autocast_dtype(device)
    return features.to(dtype), kernel.to(dtype)


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class _Convolution(torch.autograd.Function):
    """Nothing but the operands is kept for the backward pass; gathered rows are gathered again."""

    @staticmethod
    def forward(ctx, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        return _convolve(features, kernel, kernel_map, Epilogue())

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        features, kernel = ctx.saved_tensors
        want_features, want_kernel, _ = ctx.needs_input_grad
        if want_features and want_kernel and not _unfolds(features):
            return *_gradients(features, gradient, kernel, ctx.kernel_map), None
        of_features = data_gradient(gradient, kernel, ctx.kernel_map) if want_features else None
        of_kernel = _unfolded_kernel_gradient(features, gradient, ctx.kernel_map) if want_kernel else None
        return of_features, of_kernel, None


def data_gradient(gradient: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """(N_in, Cin): gradient of the features from that of the output (N_out, Cout), of the kernel's dtype."""
    return _convolve(gradient, *_adjoint(kernel, kernel_map), Epilogue())


def _convolve(features: Tensor, kernel: Tensor, kernel_map: KernelMap, epilogue: Epilogue) -> Tensor:
    way = _unfold_and_multiply if _unfolds(features) else _gather_multiply_reduce
    return way(features, kernel, kernel_map, epilogue)


def _unfolds(features: Tensor) -> bool:
    """Whether one large product with zeros for absent voxels beats a product per offset without them.

    It does for few channels (the first layer: colours), and on matrix units (AMX), which want large products.
    """
    if features.shape[1] <= 8:
        return True
    return features.is_cpu and features.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()


def _multipliable(*operands: Tensor) -> list[Tensor]:
    """In the type to multiply in: on a CPU, half precision makes products of a few hundred rows no faster."""
    return [t.to(_sum_type(t.dtype)) if t.is_cpu else t for t in operands]


def _adjoint(kernel: Tensor, kernel_map: KernelMap) -> tuple[Tensor, KernelMap]:
    """Kernel and map of the operator that carries gradients from the output to the input."""
    if (
        kernel_map.identity is not None
    ):  # the map is its own mirror image: mirror the kernel, share the blocks
        return kernel.flip(0).transpose(1, 2), kernel_map
    return kernel.transpose(1, 2), kernel_map.transposed


def _gather_multiply_reduce(
    features: Tensor, kernel: Tensor, kernel_map: KernelMap, epilogue: Epilogue
) -> Tensor:
    """Block by block: gather the input rows of all pairs, multiply offset by offset, sum by row."""
    out = features.new_empty(kernel_map.output_rows, kernel.shape[2])
    features, kernel = _multipliable(features, kernel)
    gathered, products = _buffers(kernel_map, features, kernel[0])
    for block in kernel_map.blocks:
        rows, values = gathered[: len(block.inputs)], products[: len(block.inputs)]
        torch.index_select(features, 0, block.inputs, out=rows)
        for matrix, a, b in zip(kernel, rows.split(block.sizes), values.split(block.sizes), strict=True):
            if len(a):
                torch.mm(a, matrix, out=b)
        sums = _reduce(values, block, features, kernel, kernel_map.identity)
        out[block.rows] = epilogue.finish(sums, block.rows)
    return out


def _gradients(
    features: Tensor, gradient: Tensor, kernel: Tensor, kernel_map: KernelMap
) -> tuple[Tensor, Tensor]:
    """Gradients of features and kernel in one pass, so that the incoming one is gathered once."""
    of_features, dtype = torch.empty_like(features), kernel.dtype
    features, gradient, kernel = _multipliable(features, gradient, kernel)
    adjoint, back = _adjoint(kernel, kernel_map)
    of_matrices = torch.zeros_like(kernel, dtype=_sum_type(dtype))
    incoming, products = _buffers(back, gradient, features)
    own = torch.empty_like(products)
    for block in back.blocks:
        pairs = len(block.inputs)
        torch.index_select(gradient, 0, block.inputs, out=incoming[:pairs])
        torch.index_select(features, 0, block.outputs, out=own[:pairs])
        parts = (buffer[:pairs].split(block.sizes) for buffer in (incoming, own, products))
        for of_matrix, matrix, a, b, c in zip(of_matrices, adjoint, *parts, strict=True):
            if len(a):
                torch.mm(a, matrix, out=c)
                _add_product(of_matrix, b.t(), a)
        of_features[block.rows] = _reduce(products[:pairs], block, gradient, adjoint, back.identity)
    if back.identity is not None:
        of_matrices[back.identity] = features.t() @ gradient
        of_matrices = of_matrices.flip(0)  # the adjoint kernel was mirrored
    return of_features, of_matrices.to(dtype)


def _buffers(kernel_map: KernelMap, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the pairs of any block at the widths of `left` and `right`."""
    largest = max(len(block.inputs) for block in kernel_map.blocks)
    return left.new_empty(largest, left.shape[1]), right.new_empty(largest, right.shape[1])


def _reduce(values: Tensor, block: Block, features: Tensor, kernel: Tensor, identity: int | None) -> Tensor:
    """Sum the products of each output row of a block, and add the identity's, which need no gathering."""
    sums = torch.embedding_bag(values.to(_sum_type(values.dtype)), block.terms, block.starts, mode=0)[0]
    if identity is not None:
        _add_product(sums, features[block.rows], kernel[identity])
    return sums


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b`, in one step where the types are the same."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _unfold(features: Tensor, kernel_map: KernelMap) -> Iterator[tuple[slice, Tensor]]:
    """Block by block (rows, K * Cin): the features under the kernel side by side, zeros where no voxel is."""
    padded = torch.nn.functional.pad(features, (0, 0, 0, 1))
    for start in range(0, kernel_map.output_rows, kernel_map.block_rows):
        rows = slice(start, start + kernel_map.block_rows)
        neighbours = kernel_map.neighbours[rows]
        yield rows, padded.index_select(0, neighbours.flatten()).view(len(neighbours), -1)


def _unfold_and_multiply(
    features: Tensor, kernel: Tensor, kernel_map: KernelMap, epilogue: Epilogue
) -> Tensor:
    out = features.new_empty(kernel_map.output_rows, kernel.shape[2])
    for rows, unfolded in _unfold(features, kernel_map):
        sums = torch.mm(unfolded, kernel.flatten(0, 1)).to(_sum_type(out.dtype))
        out[rows] = epilogue.finish(sums, rows)
    return out


def _unfolded_kernel_gradient(features: Tensor, gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    shape = len(kernel_map), features.shape[1], gradient.shape[1]
    out = features.new_zeros(shape, dtype=_sum_type(features.dtype))
    for rows, unfolded in _unfold(features, kernel_map):
        out += (unfolded.t() @ gradient[rows]).view(shape)
    return out.to(features.dtype)


class _SumPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.kernel_map = kernel_map
        return _sum_rows(features, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        return _sum_rows(gradient, ctx.kernel_map.transposed), None


def _sum_rows(features: Tensor, kernel_map: KernelMap) -> Tensor:
    out = features.new_zeros(kernel_map.output_rows, features.shape[1])
    for inputs, outputs in zip(kernel_map.inputs, kernel_map.outputs, strict=True):
        out.index_add_(0, outputs, features[inputs])
    return out


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, kernel_map: KernelMap) -> Tensor:
        shape = kernel_map.output_rows, features.shape[1]
        out = features.new_full(shape, -torch.inf)
        winner = torch.full(shape, -1, dtype=torch.int16, device=features.device)  # offset of the maximum
        for k, (inputs, outputs) in enumerate(zip(kernel_map.inputs, kernel_map.outputs, strict=True)):
            candidate, best = features[inputs], out[outputs]
            better = (candidate > best) | (winner[outputs] < 0)
            out[outputs] = torch.where(better, candidate, best)
            winner[outputs] = torch.where(better, k, winner[outputs])
        ctx.save_for_backward(winner)
        ctx.kernel_map = kernel_map
        return out.masked_fill_(winner < 0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (winner,) = ctx.saved_tensors
        out = gradient.new_zeros(ctx.kernel_map.input_rows, gradient.shape[1])
        for k, (inputs, outputs) in enumerate(
            zip(ctx.kernel_map.inputs, ctx.kernel_map.outputs, strict=True)
        ):
            out.index_add_(0, inputs, gradient[outputs] * (winner[outputs] == k))
        return out, None
