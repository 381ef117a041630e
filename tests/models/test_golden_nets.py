"""Outputs, loss, gradients and running statistics of whole networks against the original."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lground import sparse
from lground.models import build
from lground.sparse import SparseTensor

NETS = Path(__file__).parents[1] / "golden" / "nets"
FILES = sorted(path.stem for path in NETS.glob("*.json"))


def golden(file: str) -> tuple[dict, dict, str]:
    facts = json.loads((NETS / f"{file}.json").read_text())
    with np.load(NETS / f"{file}.npz") as arrays:
        return facts, dict(arrays), ("insseg_" if facts["insseg"] else "") + facts["model"]


def run(net: torch.nn.Module, arrays: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    outputs = net(SparseTensor(torch.tensor(arrays["feats"]).to(dtype), torch.tensor(arrays["coords"])))
    names = ("offsets", "logits", "penultimate")[-len(outputs) :]
    return {name: output.features for name, output in zip(names, outputs, strict=True)}


def difference(a: torch.Tensor, b: np.ndarray) -> float:
    return (a.detach().double() - torch.from_numpy(b).double()).abs().max().item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("file", FILES)
def test_evaluation(file, dtype, filled):
    facts, arrays, name = golden(file)
    net = filled(build(name, stem_kernel_size=facts["conv1_kernel_size"])).to(dtype).eval()
    with torch.no_grad():
        outputs = run(net, arrays, dtype)
    exact = dtype == torch.float64
    for head, values in outputs.items():
        rows = arrays["penultimate_rows" if head == "penultimate" else "rows"]
        noise = facts["eval"][head]["f32_vs_f64_max_abs"]  # of the original's own float32 run
        assert difference(values[rows], arrays[f"eval_{head}"]) < (2e-7 if exact else max(2e-6, 2 * noise))
        if exact:
            stored = arrays[f"eval_{head}_f64"]
            assert difference(values[arrays["rows_f64"][: len(stored)]], stored) < 1e-12
        if exact and f"eval_{head}_sum_per_channel" in arrays:
            assert difference(values.sum(0), arrays[f"eval_{head}_sum_per_channel"]) < 1e-9
            assert difference(values.abs().sum(0), arrays[f"eval_{head}_abs_sum_per_channel"]) < 1e-9
    assert (outputs["logits"].argmax(1).numpy() == arrays["eval_argmax"]).all()


def train_step(net: torch.nn.Module, arrays: dict, dtype: torch.dtype) -> tuple[torch.Tensor, dict]:
    outputs = run(net.to(dtype).train(), arrays, dtype)
    labels = torch.tensor(arrays["labels"]).long()
    loss = F.cross_entropy(outputs["logits"], labels, ignore_index=-1)
    if "offsets" in outputs:
        loss = loss + outputs["offsets"].abs().mean()
    loss.backward()
    return loss, outputs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("file", FILES)
def test_cuda_equals_cpu(file, filled):
    """The same code on a GPU: logits and gradients of one training step in float64."""
    facts, arrays, name = golden(file)
    results = []
    for device in ("cpu", "cuda"):
        net = filled(build(name, stem_kernel_size=facts["conv1_kernel_size"])).to(device, torch.float64)
        coordinates = torch.tensor(arrays["coords"], device=device)
        x = SparseTensor(torch.tensor(arrays["feats"], device=device).double(), coordinates)
        logits = net(x)[-2].features
        logits.square().mean().backward()
        results.append([logits.detach(), *(p.grad for p in net.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("file", FILES)
def test_training_step(file, filled):
    facts, arrays, name = golden(file)
    net = filled(build(name, stem_kernel_size=facts["conv1_kernel_size"]))
    loss, outputs = train_step(net, arrays, torch.float64)
    expected = facts["train"]["f64"]
    assert abs(loss.item() - expected["loss"]) < 1e-12
    assert difference(outputs["logits"][arrays["rows_f64"]], arrays["train_logits_f64"]) < 1e-11

    norms = {key: parameter.grad.norm().item() for key, parameter in net.named_parameters()}
    assert norms.keys() == expected["grad_norm"].keys()
    noise = {"offsets_pre.bias"}  # it feeds a batch norm: its true gradient is zero
    assert all(abs(norms[k] - v) < 1e-10 * v for k, v in expected["grad_norm"].items() if k not in noise)
    assert all(norms[k] < 1e-12 for k in noise & norms.keys())

    assert difference(net.conv0p1s1.kernel.grad, arrays["train_grad_conv0p1s1"]) < 1e-12
    final = net.final.kernel.grad[:96]
    assert difference(final, arrays["train_grad_final_kernel_96x200"]) < 1e-6
    assert (
        difference(net.convtr7p2s2.kernel.grad[:, :24, :24], arrays["train_grad_convtr7p2s2_8x24x24"]) < 1e-6
    )
    deep = net.block4[0].conv1.kernel.grad[:, :12, :12]
    assert difference(deep, arrays["train_grad_block4_0_conv1_27x12x12"]) < 1e-6

    statistics = net.state_dict()
    for key, value in expected["running_mean_norm"].items():
        assert abs(statistics[key].norm().item() - value) < 1e-12 * max(1, value)
    for key, value in expected["running_var_norm"].items():
        assert abs(statistics[key].norm().item() - value) < 1e-12 * max(1, value)


def test_training_step_in_float32(filled):
    facts, arrays, name = golden("Res16UNet14A_k3")
    net = filled(build(name))
    loss, _ = train_step(net, arrays, torch.float32)
    expected = facts["train"]["f64"]
    assert abs(loss.item() - expected["loss"]) < 1e-5
    for key, parameter in net.named_parameters():
        assert abs(parameter.grad.norm().item() / expected["grad_norm"][key] - 1) < 2e-3, key


def test_signed_and_rectified_features(filled):
    """34CR is 34C without the last ReLU; 34C100 and 34D differ in the same way from their signed kin."""
    _, arrays, _ = golden("Res16UNet14A_k3")
    rows = arrays["coords"][:, 0] == 0
    x = SparseTensor(torch.tensor(arrays["feats"][rows]), torch.tensor(arrays["coords"][rows]))
    with torch.no_grad():
        rectified, signed = (
            filled(build(n)).eval()(x)[1].features for n in ("Res16UNet34C", "Res16UNet34CR")
        )
    assert signed.min() < -0.1 and torch.equal(rectified, signed.clamp(min=0))


def test_representation_network_and_projection():
    _, arrays, _ = golden("Res16UNet14A_k3")
    rows = arrays["coords"][:, 0] == 0
    x = SparseTensor(torch.tensor(arrays["feats"][rows]), torch.tensor(arrays["coords"][rows]))
    full = build("Res16UNet34CR_Proj", out_channels=20).eval()
    pretraining = build("Res16UNet34CR_Proj", representation_only=True).eval()
    shared = {key: value for key, value in full.state_dict().items() if not key.startswith("final.")}
    pretraining.load_state_dict(shared)
    anchors = torch.randn(7, 512)
    with torch.no_grad():
        logits, features = full(x)
        alone = pretraining(x)
        same, projected = pretraining(x, anchors)
    assert logits.features.shape == (len(x), 20) and features.features.shape == (
        len(x),
        full.feature_channels,
    )
    assert torch.equal(alone.features, features.features) and torch.equal(same.features, alone.features)
    layer = full.projection_layer
    assert torch.allclose(projected, anchors @ layer.weight[:, :, 0].T + layer.bias, atol=1e-4)


@pytest.mark.parametrize("name", ["Res16UNet34Dv2", "Res16UNet34Dv3"])
def test_deeper_classifiers(name):
    """1x1 convolutions, instance norm and ReLU, stated again in plain PyTorch on one scene."""
    torch.manual_seed(0)
    net = build(name).eval()
    coordinates = torch.nn.functional.pad(torch.cartesian_prod(*[torch.arange(4)] * 3), (1, 0))
    x = SparseTensor(torch.rand(len(coordinates), net.feature_channels), coordinates)
    head, y = net.final, x.features
    with torch.no_grad():
        if name == "Res16UNet34Dv3":
            y = head[0](x).features
        for layer in list(head)[name == "Res16UNet34Dv3" :]:
            if isinstance(layer, sparse.SparseConv3d):
                y = y @ layer.kernel + layer.bias
            elif isinstance(layer, sparse.InstanceNorm):
                y = (y - y.mean(0)) / (y.var(0, correction=0) + 1e-8).sqrt() * layer.weight + layer.bias
            else:
                y = y.clamp(min=0)
        assert torch.allclose(head(x).features, y, atol=1e-3)


def test_fresh_weights_follow_the_original_initialisation():
    net = build("Res16UNet14A")
    for module in net.modules():
        if isinstance(module, sparse.SparseConv3d | sparse.SparseConvTranspose3d):
            channels = module.in_channels if isinstance(module, sparse.SparseConv3d) else module.out_channels
            bound = (channels * np.prod(module.kernel_size)) ** -0.5
            assert 0.9 * bound < module.kernel.abs().max() <= bound
        if isinstance(module, sparse.BatchNorm):
            assert (module.bn.weight == 1).all() and (module.bn.bias == 0).all() and module.bn.eps == 1e-5
