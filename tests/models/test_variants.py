"""Names, order and shapes of every network's tensors are those of the original."""

import json
from pathlib import Path

import pytest
import torch

from lground import models
from lground.errors import InputError
from lground.models import VARIANTS, build

STATE_DICTS = Path(__file__).parents[1] / "golden" / "state_dicts"
CANNOT_RUN = ("Res16UNet50", "Res16UNet101")
# Parameters with 3 input channels, stem kernel 3, 200 classes (Rozenberszki et al.'s classes).
PARAMETERS = {
    "14": 22177832,
    "14A": 8032552,
    "14A2": 10799144,
    "14B": 8975400,
    "14B2": 12516392,
    "14B3": 13677480,
    "14C": 11933736,
    "14D": 43375656,
    "18": 41039784,
    "18A": 15501224,
    "18B": 17218472,
    "18D": 79934376,
    "34": 57191592,
    "34A": 36609704,
    "34B": 36223016,
    "34C": 37864104,
    "34C100": 38825800,
    "34C200": 41414664,
    "34D": 79429800,
}


def golden_networks() -> list[str]:
    names = (
        path.stem.removeprefix("state_dict_") for path in sorted(STATE_DICTS.glob("state_dict_*Res16*.json"))
    )
    return [name for name in names if name not in CANNOT_RUN]


def on_meta(name: str, **arguments) -> torch.nn.Module:
    with torch.device("meta"):  # shapes without memory
        return build(name, **arguments)


@pytest.mark.parametrize("file", golden_networks())
def test_state_dict_equals_golden(file):
    golden = json.loads((STATE_DICTS / f"state_dict_{file}.json").read_text())
    given = golden["args"]
    name = ("insseg_" if file.startswith("insseg_") else "") + golden["model"]
    net = on_meta(
        name,
        in_channels=given["in_channels"],
        out_channels=given["out_channels"],
        stem_kernel_size=given["conv1_kernel_size"],
        bn_momentum=given["bn_momentum"],
        representation_only=given.get("representation_only", False),
    )
    found = [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in net.state_dict().items()]
    assert found == golden["entries"]
    assert sum(p.numel() for p in net.parameters()) == golden["n_params"]
    norms = {k: m.momentum for k, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm1d)}
    assert norms == golden["bn_momentum"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    assert sum(p.numel() for p in on_meta(f"Res16UNet{name}").parameters()) == PARAMETERS[name]


def test_every_instance_variant_adds_one_head():
    for name in (n for n in VARIANTS if n.startswith("insseg_")):
        net = on_meta(name)
        width = net.feature_channels
        extra = width * width + width + 2 * width + 3 * width + 3
        plain = sum(p.numel() for p in on_meta(name.removeprefix("insseg_")).parameters())
        assert sum(p.numel() for p in net.parameters()) == plain + extra


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="'res16unet34c'; the nearest is 'Res16UNet34C'"):
        build("res16unet34c")
    with pytest.raises(InputError, match="nearest is 'insseg_Res16UNet34C'"):
        build("inseg_Res16UNet34C")
    with pytest.raises(InputError, match="Res16UNet50 cannot run"):
        build("Res16UNet50")


@pytest.mark.parametrize("representation_only", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_architecture_is_told_from_the_tensors(name, representation_only):
    arguments = {"in_channels": 4, "stem_kernel_size": 5, "representation_only": representation_only}
    if not representation_only:
        arguments["out_channels"] = 20
    state = on_meta(name, **arguments).state_dict()
    found, inferred = models.infer_architecture(state)
    again = on_meta(found, **inferred).state_dict()
    assert [(k, v.shape) for k, v in again.items()] == [(k, v.shape) for k, v in state.items()]
    assert models.infer_architecture(state, name=name)[0] == name
    if not (representation_only and name in ("Res16UNet34Dv2", "Res16UNet34Dv3")):
        assert models.infer_architecture(state, hint=name)[0] == name


def test_names_that_share_a_layout_follow_the_rule():
    def told(name, **arguments):
        return models.infer_architecture(on_meta(name, **arguments).state_dict())[0]

    assert told("Res16UNet34CR") == "Res16UNet34C"
    assert told("Res16UNet34C", representation_only=True) == "Res16UNet34CR"
    assert told("Res16UNet34DPaired") == "Res16UNet34D"
    assert told("Res16UNet34D", representation_only=True) == "Res16UNet34D"


def test_another_architecture_is_described():
    state = on_meta("Res16UNet14A").state_dict()
    with pytest.raises(
        InputError, match="not the weights of Res16UNet34C: stages of 1, 1, 1, 1, 1, 1, 1, 1 blocks"
    ):
        models.infer_architecture(state, "x.ckpt", "Res16UNet34C")
    odd = {k.replace("block3.0", "block3.7"): v for k, v in on_meta("Res16UNet18A").state_dict().items()}
    odd |= {k.replace("block3.1", "block3.2"): v for k, v in odd.items()}
    with pytest.raises(InputError, match=r"x\.ckpt: no known network has stages of 2, 2, 3"):
        models.infer_architecture(odd, "x.ckpt")
    with pytest.raises(InputError, match="not a Res16UNet: its tensors are called conv1"):
        models.infer_architecture({"conv1.weight": torch.zeros(1)})
