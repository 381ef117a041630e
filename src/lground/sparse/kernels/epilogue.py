"""What happens to a sum of products before its one write: batch norm, shortcut, ReLU."""

import triton
import triton.language as tl

from lground.sparse.kernels.tf32 import round_to_tf32


@triton.jit
def finish(acc, columns, rows, out_rows, valid, y, y_stride, scale, shift, add, add_stride,
            RELU: tl.constexpr, ROUND: tl.constexpr):  # fmt: skip
    """`relu(acc * scale + shift + add[rows])`, written to `out_rows` of y."""
    if scale is not None:
        acc = acc * tl.load(scale + columns)[None, :]
    if shift is not None:
        acc = acc + tl.load(shift + columns)[None, :]
    if add is not None:
        at = add + rows[:, None] * add_stride + columns[None, :]
        acc = acc + tl.load(at, mask=valid[:, None], other=0.0).to(tl.float32)
    if RELU:
        acc = tl.maximum(acc, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if ROUND:
        acc = round_to_tf32(acc)
    at = y + out_rows[:, None] * y_stride + columns[None, :]
    tl.store(at, acc.to(y.type.element_ty), mask=valid[:, None])
