"""What is not finite: what is needed to look at it again is saved, then training ends with one line."""

import math
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import get_total_norm

from lground.data import Batch
from lground.errors import InputError
from lground.files import atomic_file, write_json

ARRAYS = ("coordinates", "features", "labels", "instances", "attributes")


def stop_with_reproduction(
    folder: Path, recipe: str, stage: nn.Module, batches: list[Batch], losses: list[float], **where: int
) -> NoReturn:
    """Write `folder`, then raise InputError with the scenes whose loss is not finite. All processes call it.

    Where all losses are finite, a gradient was not, and all scenes of the update are named.

    recipe.yaml; stage.safetensors, weights and buffers of the stage (weights as before the update, but of a gradient
    on a GPU, seen late, as after it; batch norm's running statistics have seen it); and of every process its
    micro-batches: process-<rank>.json with what `where` says, their losses and scenes, and process-<rank>-<k>.npz
    with their arrays (see `Batch`).
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    names = [batch.names for batch in batches]
    try:
        if rank == 0:
            _save_stage(folder, recipe, stage)
        for k, batch in enumerate(batches):
            with atomic_file(folder / f"process-{rank}-{k}.npz") as part, open(part, "wb") as file:
                np.savez(file, **{n: getattr(batch, n).cpu().numpy() for n in ARRAYS if hasattr(batch, n)})
        write_json(folder / f"process-{rank}.json", {**where, "losses": _text(losses), "scenes": names})
        saved = f"saved for a closer look: {folder}"
    except (OSError, SafetensorError) as error:
        saved = f"{folder} cannot be written ({getattr(error, 'strerror', None) or error})"
    bad = [name for group, loss in zip(names, losses, strict=True) if not np.isfinite(loss) for name in group]
    bad, what, already = _everywhere(bad), "loss", ", the weights had been so already"
    if not bad:
        bad, what = _everywhere([name for group in names for name in group]), "gradient"
        already = ", the weights are so since"
    already = "" if _finite(stage) else already
    raise InputError(
        f"the {what} of {', '.join(bad)} is not finite at update {where['update']}{already}: training diverged; "
        f"{saved}; lower optimizer.lr and start again, or look at the scenes"
    )


def check_weights(folder: Path, stage: nn.Module, epoch: int) -> None:
    """Raise InputError before weights that are not finite take the place of good ones in `folder`."""
    if not _finite(stage):
        raise InputError(
            f"{folder}: the weights are not finite in epoch {epoch}: training diverged; what was saved "
            "before is whole; lower optimizer.lr and start again in another folder"
        )


def _text(losses: list[float]) -> list[str]:
    return [str(loss) for loss in losses]  # JSON has no NaN


def _save_stage(folder: Path, recipe: str, stage: nn.Module) -> None:
    with atomic_file(folder / "recipe.yaml") as part:
        part.write_text(recipe)
    with atomic_file(folder / "stage.safetensors") as part:
        save_file({k: v.detach().cpu().clone() for k, v in stage.state_dict().items()}, part)


def _finite(stage: nn.Module) -> bool:
    largest = get_total_norm(stage.parameters(), norm_type=math.inf)  # in few launches, with one wait
    return math.isfinite(largest.item())


def _everywhere(names: list[str]) -> list[str]:
    if not dist.is_initialized():
        return names
    gathered: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(gathered, names)
    return [name for part in gathered for name in part]
