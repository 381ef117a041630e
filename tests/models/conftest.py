"""Golden networks, their deterministic weights, and checkpoints as trainers write them."""

import pytest
import torch
from golden.gen_common import det_tensor


@pytest.fixture(scope="session")
def filled():
    """`filled(net)`: the network with its deterministic weights, rounded to float32."""

    def fill(net: torch.nn.Module) -> torch.nn.Module:
        state = net.state_dict()
        values = {k: torch.from_numpy(det_tensor(k, v.shape)).to(v.dtype) for k, v in state.items() if v.ndim}
        net.load_state_dict(state | values)
        return net

    return fill
