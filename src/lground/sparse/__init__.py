"""Sparse 3-D tensors and convolutions on CPU and CUDA; knows nothing of scans or words.

Every result is defined by plain PyTorch. On CUDA, Triton kernels compute it where there are some (`kernels`).

Conventions (those of MinkowskiEngine, so that published weights keep their meaning): coordinates are integer
rows [batch, x, y, z]; a tensor of stride s holds multiples of s; kernels are (K, Cin, Cout) with x running
fastest in K; odd kernel sizes are centred, even ones reach from 0 to size - 1.
"""

from lground.sparse.coordinates import CoordinateManager, CoordinateMap
from lground.sparse.engine import plain
from lground.sparse.functional import (
    Epilogue,
    average_pool,
    max_pool,
    normalize,
    sparse_convolution,
    sum_pool,
)
from lground.sparse.kernel_map import KernelMap
from lground.sparse.layers import (
    AvgPool3d,
    BatchNorm,
    GlobalAvgPool,
    GlobalMaxPool,
    GlobalSumPool,
    InstanceNorm,
    MaxPool3d,
    ReLU,
    SparseConv3d,
    SparseConvTranspose3d,
    SumPool3d,
    conv_norm,
)
from lground.sparse.tensor import SparseTensor, cat

__all__ = [
    "AvgPool3d",
    "BatchNorm",
    "CoordinateManager",
    "CoordinateMap",
    "Epilogue",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GlobalSumPool",
    "InstanceNorm",
    "KernelMap",
    "MaxPool3d",
    "ReLU",
    "SparseConv3d",
    "SparseConvTranspose3d",
    "SparseTensor",
    "SumPool3d",
    "average_pool",
    "cat",
    "conv_norm",
    "max_pool",
    "normalize",
    "plain",
    "sparse_convolution",
    "sum_pool",
]
