"""Golden networks, their deterministic weights, and checkpoints as trainers write them."""

import importlib.util
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def det_tensor():
    """Deterministic values of a state dict entry, from its key and shape (numpy)."""
    spec = importlib.util.spec_from_file_location("gen_common", GOLDEN / "gen_common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.det_tensor


@pytest.fixture(scope="session")
def filled(det_tensor):
    """`filled(net)`: the network with its deterministic weights, rounded to float32."""

    def fill(net: torch.nn.Module) -> torch.nn.Module:
        state = net.state_dict()
        values = {k: torch.from_numpy(det_tensor(k, v.shape)).to(v.dtype) for k, v in state.items() if v.ndim}
        net.load_state_dict(state | values)
        return net

    return fill
