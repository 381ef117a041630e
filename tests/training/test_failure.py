"""Training that diverges: it stops at the update that did it, and nothing good is overwritten."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lground.errors import InputError
from lground.training import load_recipe
from lground.training.stopping import StopSignal
from lground.training.trainer import Trainer


@pytest.fixture
def trainer(tiny, tmp_path):
    recipe = load_recipe("demo", "finetune", [*tiny, "data.workers=0", "epochs=3"])
    return Trainer(recipe, tmp_path / "run", resume=False, weights=None, stop=StopSignal())


def at_update(trainer, number: int, act) -> list[list[str]]:
    """Have `act()` called at the first gradient of update `number`; returns the scenes of every update so far."""
    scenes, update = [], trainer._update

    def watched(batches):
        scenes.append([name for batch in batches for name in batch.names])
        if len(scenes) == number + 1:
            act()
        return update(batches)

    trainer._update = watched
    return scenes


def poison(trainer):
    """Make the gradients of one parameter NaN from now on, as a 0/0 in a backward pass does."""
    next(trainer.stage.parameters()).register_hook(lambda gradient: gradient * float("nan"))


def finite(tensors: dict[str, torch.Tensor]) -> bool:
    return all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_a_gradient_that_is_not_finite_stops_before_its_step(trainer, tmp_path):
    """On a GPU after it, at the next update, but with the same scenes."""
    late = trainer.accelerator.device.type == "cuda"
    scenes = at_update(trainer, 1, lambda: poison(trainer))
    with pytest.raises(InputError) as stopped:
        trainer.run()
    message, folder = str(stopped.value), tmp_path / "run" / "nan-1"
    since = ", the weights are so since" if late else ""
    assert (
        f"gradient of {', '.join(scenes[1])} is not finite at update 1{since}: training diverged" in message
    )
    assert str(folder) in message and len(scenes) == 2 + late
    assert finite(load_file(folder / "stage.safetensors")) != late
    about = json.loads((folder / "process-0.json").read_text())
    assert (about["epoch"], about["update"], about["scenes"]) == (0, 1, [scenes[1]])


def test_sigterm_does_not_save_weights_that_are_not_finite(trainer, tmp_path):
    """Update 4, the second of the second epoch, spoils them; the signal comes right after."""

    def spoil_and_stop():
        torch.nn.init.constant_(next(trainer.stage.parameters()), float("nan"))
        trainer.stop.asked = True

    at_update(trainer, 4, spoil_and_stop)
    with pytest.raises(InputError, match="weights are not finite in epoch 2: training diverged"):
        trainer.run()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0) and finite(state["stage"])
