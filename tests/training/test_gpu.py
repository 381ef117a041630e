"""The same training and prediction on a CUDA device."""

import csv

import pytest
import torch

from lground.training import load_recipe, train
from lground.training.arriving import Arriving

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def losses(store, anchors, out, *more: str) -> list[float]:
    changes = [f"data.root={store}", f"text.anchors={anchors}", "data.batch_size=3", "epochs=8", *more]
    train(load_recipe("demo", "pretrain", changes), out)
    with open(out / "log.csv") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_training_on_cuda_starts_as_on_the_cpu_and_learns(store, anchors, tmp_path, monkeypatch):
    cuda = losses(store, anchors, tmp_path / "cuda")
    assert cuda[-1] < 0.7 * cuda[0]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = losses(store, anchors, tmp_path / "cpu")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert cuda[0] == pytest.approx(cpu[0], rel=0.02)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns(store, anchors, tmp_path, precision):
    seen = losses(store, anchors, tmp_path / "run", f"precision={precision}", "data.workers=2")
    assert seen[-1] < 0.7 * seen[0]


def test_segment_on_cuda_equals_the_cpu(store, anchors, tmp_path):
    import numpy as np

    import lground as lg

    losses(store, anchors, tmp_path / "run")
    rng = np.random.default_rng(0)
    scan = lg.Scan(
        points=rng.uniform(0, 2, (3000, 3)).astype(np.float32),
        colors=rng.integers(0, 256, (3000, 3)).astype(np.uint8),
    )
    model = lg.load_model(tmp_path / "run")
    results = [lg.segment(model, scan, device=device) for device in ("cpu", "cuda")]
    assert (results[0].labels == results[1].labels).mean() > 0.999
    # Half precision on CUDA: logits are off by 0.3 % of about 1.
    assert np.abs(results[0].scores - results[1].scores).mean() < 1e-3
    assert np.allclose(results[0].scores, results[1].scores, atol=5e-3)


def test_numbers_arrive_as_they_were_before_later_work():
    tensor = torch.ones(3, device="cuda")
    work = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        work = work @ work / 64
    arriving = Arriving(tensor * 2)
    tensor.fill_(7)
    assert arriving.tolist() == [2, 2, 2] and arriving.tolist() == [2, 2, 2]
