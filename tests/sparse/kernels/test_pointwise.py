"""Many rows times one matrix, against the definition."""

import pytest
import torch

from lground.sparse import SparseConv3d, SparseTensor
from lground.sparse.kernels.pointwise import pointwise

WIDTHS = [(32, 64), (96, 200), (128, 96), (16, 1), (48, 260)]
gpu = pytest.mark.gpu


def operands(rows, width, columns, dtype, device):
    generator = torch.Generator().manual_seed(rows + width)
    shapes = (rows, width + 16), (width, columns), (columns,)
    wide, kernel, bias = (torch.randn(*shape, generator=generator).to(device, dtype) for shape in shapes)
    return wide[:, 16:], kernel, bias  # rows as those of joined features: apart


@pytest.mark.parametrize("width, columns", WIDTHS)
@pytest.mark.parametrize("rows", [0, 1, 64, 131, pytest.param(133_000, marks=gpu)])
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=gpu)])
def test_equals_the_definition(kernels, device, rows, width, columns, dtype):
    x, kernel, bias = operands(rows, width, columns, dtype, device)
    wanted = x.double() @ kernel.double() + bias.double()
    room = torch.full((rows, columns + 8), 7.0, dtype=dtype, device=device)
    for found in (pointwise(x, kernel, bias), pointwise(x, kernel, bias, out=room[:, :columns])):
        assert found.dtype == dtype
        error = (found.double() - wanted).abs() / wanted.abs().clamp(min=1)
        assert not rows or error.max() < 2 * torch.finfo(dtype).eps
    assert (room[:, columns:] == 7).all()


def test_the_matrix_may_lie_transposed(kernels, device):
    x, kernel, bias = operands(70, 32, 40, torch.float16, device)
    assert pointwise(x, kernel.t().contiguous().t(), bias).equal(pointwise(x, kernel, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_types_are_left_to_torch(kernels, device, dtype):
    x, kernel, bias = operands(50, 32, 20, dtype, device)
    assert pointwise(x, kernel, bias).equal(torch.addmm(bias, x, kernel))


def test_a_classifier_takes_it_without_gradients_alone(kernels, scan, device):
    rows = scan(90)
    layer = SparseConv3d(32, 20, 1, bias=True).to(device)
    x = SparseTensor(torch.randn(len(rows), 32, device=device), rows)
    with torch.autocast(device.type, torch.float16):
        with torch.no_grad():
            found = layer(x).features
        learned = layer(x).features
    assert found.dtype == learned.dtype == torch.float16
    assert learned.requires_grad and not found.requires_grad
    torch.testing.assert_close(found, learned, rtol=2e-3, atol=2e-3)
