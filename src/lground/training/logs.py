"""Where a run's numbers go beside `log.csv`: TensorBoard when it is installed, Weights & Biases when asked for."""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from lground.errors import InputError
from lground.progress import say
from lground.training.recipe import Recipe


class Log(Protocol):
    def write(self, row: dict[str, Any]) -> None: ...  # of one epoch, which is under "epoch"
    def show(self, picture: Path, epoch: int) -> None: ...
    def close(self) -> None: ...


def check_logs(recipe: Recipe) -> None:
    """Raise InputError when the recipe asks for a log whose library is not installed."""
    if recipe.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise InputError(
            f"wandb={recipe.wandb}: Weights & Biases is not installed: pip install 'lground[wandb]'"
        )


def open_logs(folder: Path, recipe: Recipe) -> list[Log]:
    logs: list[Log] = []
    if importlib.util.find_spec("tensorboard") is not None:
        logs.append(TensorBoardLog(folder))
    else:
        say(f"{folder}: no TensorBoard logs, it is not installed: pip install 'lground[logging]'")
    if recipe.wandb is not None:
        logs.append(WandbLog(folder, recipe))
    return logs


def epoch_row(epoch: int, sums: Mapping[str, float], metrics: dict) -> dict[str, Any]:
    """One line of the log: losses as means over the updates, scores per vertex, and how fast it went.

    waiting: the share of the training in which the process had nothing to do but wait for scenes.
    """
    training = max(sums["training"], 1e-9)
    means = metrics["vertex"]["means"] if metrics else {}
    scores = {f"val_miou_{name}": mean["mean_iou"] for name, mean in means.items()}
    if "val_miou_all" in scores:
        scores = {"val_miou": scores.pop("val_miou_all"), **scores}
    if "objects" in metrics:
        objects = metrics["objects"]["means"]["all"]
        scores |= {"val_ap": objects["ap"], "val_ap50": objects["ap50"]}
    return {
        "epoch": epoch,
        **{name: value / sums["updates"] for name, value in sums.items() if name.startswith("loss")},
        "lr": sums["lr"],
        **{name: value for name, value in scores.items() if value is not None},
        "seconds": round(sums["seconds"], 2),
        "scenes_per_second": round(sums["scenes"] / training, 3),
        "waiting": round(sums["waiting"] / training, 4),
    }


class TensorBoardLog:
    """Event files in the run folder; after a resume they take the place of what came later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = None

    def _at(self, epoch: int):
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=epoch)
        return self.writer

    def write(self, row: dict[str, Any]) -> None:
        writer = self._at(row["epoch"])
        for key, value in row.items():
            if key != "epoch":
                writer.add_scalar(key.replace("_", "/", 1), value, row["epoch"])
        writer.flush()

    def show(self, picture: Path, epoch: int) -> None:
        from matplotlib.image import imread

        self._at(epoch).add_image("val/room", imread(picture)[:, :, :3], epoch, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class WandbLog:
    """One run of the project `recipe.wandb`; its id stays in the folder, so that a resumed run goes on in it."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        import wandb

        kept = folder / "wandb-id"
        if not kept.exists():
            kept.write_text(wandb.util.generate_id())
        self.wandb = wandb
        self.run = wandb.init(
            project=recipe.wandb,
            name=folder.resolve().name,
            id=kept.read_text(),
            resume="allow",
            dir=str(folder),
            config=asdict(recipe),
        )

    def write(self, row: dict[str, Any]) -> None:
        self.run.log(row, step=row["epoch"])

    def show(self, picture: Path, epoch: int) -> None:
        self.run.log({"val_room": self.wandb.Image(str(picture))}, step=epoch)

    def close(self) -> None:
        self.run.finish()
