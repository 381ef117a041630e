"""Every layer against MinkowskiEngine's outputs and gradients."""

import json
from pathlib import Path

import pytest
import torch
from golden.golden_io import align

from lground import sparse
from lground.sparse import SparseTensor

INDEX = json.loads((Path(__file__).parents[1] / "golden" / "layers" / "index.json").read_text())
BATCH_NORM_MOMENTUM = 0.02  # of the golden run
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LAYERS = {
    "conv": sparse.SparseConv3d,
    "convtr": sparse.SparseConvTranspose3d,
    "sumpool": sparse.SumPool3d,
    "avgpool": sparse.AvgPool3d,
    "maxpool": sparse.MaxPool3d,
    "globalsum": sparse.GlobalSumPool,
    "globalavg": sparse.GlobalAvgPool,
    "globalmax": sparse.GlobalMaxPool,
    "bn_train": sparse.BatchNorm,
    "bn_eval": sparse.BatchNorm,
    "inorm": sparse.InstanceNorm,
}


def build(case: dict, arrays: dict, dtype: torch.dtype) -> torch.nn.Module:
    op, arguments = case["op"], dict(case["args"])
    if op in ("conv", "convtr"):
        layer = LAYERS[op](INDEX["cin"], INDEX["cout"], **{"stride": 1} | arguments)
        values = {"kernel": "weight", "bias": "bias"}
    elif op.startswith("bn"):
        layer = LAYERS[op](INDEX["cin"], momentum=BATCH_NORM_MOMENTUM).train(op == "bn_train")
        values = {f"bn.{key}": key for key in ("weight", "bias", "running_mean", "running_var")}
    elif op == "inorm":
        layer = LAYERS[op](INDEX["cin"])
        values = {"weight": "weight", "bias": "bias"}
    else:
        return LAYERS[op](**arguments)
    state = {name: torch.tensor(arrays[key]) for name, key in values.items() if key in arrays}
    layer.load_state_dict(layer.state_dict() | state)
    return layer.to(dtype)


def gradients(layer: torch.nn.Module) -> dict:
    named = {name.rpartition(".")[2]: parameter.grad for name, parameter in layer.named_parameters()}
    return {f"grad_{'weight' if name == 'kernel' else name}": value for name, value in named.items()}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", INDEX["cases"])
def test_layer_equals_golden(name, dtype, device, golden_arrays):
    case = INDEX["cases"][name]
    arrays = golden_arrays(case)
    layer = build(case, arrays, dtype).to(device)
    features = torch.tensor(arrays["feats"]).to(device, dtype).requires_grad_()
    manager = None
    if "existing_fine_coords" in arrays:
        fine = torch.tensor(arrays["existing_fine_coords"], device=device)
        fine_stride = case["in_tensor_stride"] // case["args"]["stride"]
        manager = SparseTensor(torch.zeros(len(fine), 1, device=device), fine, stride=fine_stride).manager
    coordinates = torch.tensor(arrays["in_coords"], device=device)
    x = SparseTensor(features, coordinates, case["in_tensor_stride"], manager)

    y = layer(x)
    assert y.stride == arrays["out_stride"][0]
    rows = torch.tensor(align(arrays["out_coords"], y.coordinates.cpu().numpy()))
    upstream = torch.empty_like(y.features)
    upstream[rows] = torch.tensor(arrays["grad_out"]).to(device, dtype)
    y.features.backward(upstream)

    results = {"out_feats": y.features[rows], "grad_feats": features.grad, **gradients(layer)}
    if case["op"].startswith("bn"):
        results["after_running_mean"], results["after_running_var"] = (
            layer.bn.running_mean,
            layer.bn.running_var,
        )
    exact = case["exact_in_float32"]
    tolerance = 0 if exact else 1e-12 if dtype == torch.float64 else 1e-5
    compared = {key for key in arrays if key.startswith(("out_feats", "grad_", "after_running"))} - {
        "grad_out"
    }
    assert compared == set(results)
    for key, value in results.items():
        error = (value.detach().cpu().double() - torch.tensor(arrays[key]).double()).abs().max().item()
        assert error <= tolerance, key
