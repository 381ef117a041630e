"""The network over the voxels of a scan, within the memory that there is."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lground.data import Voxels
from lground.errors import InputError
from lground.models import Model
from lground.predict.views import PLAIN, View
from lground.progress import say
from lground.scans import Scan, check_scan
from lground.scans.raw import ensure_memory
from lground.sparse import SparseTensor

ADVICE = "use larger voxels (--voxel-size) or cut the scan into parts"

Forward = Callable[[SparseTensor], tuple[Tensor, ...]]


def run(
    model: Model,
    scan: Scan,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    view: View = PLAIN,
    forward: Forward | None = None,
) -> tuple[Voxels, Tensor, Tensor] | tuple[Voxels, Tensor, Tensor, Tensor]:
    """The voxels of `scan` (M of them) in one view, their logits (M, C) and features (M, d), on `device`.

    forward: what to call in place of the model, such as its `with_offsets`; then what that returns.
    """
    check(scan)
    voxels = view.voxelize(scan.points, model.voxel_size if voxel_size is None else voxel_size)
    return voxels, *run_voxels(model, scan.colors, voxels, device, forward)


def check(scan: Scan) -> None:
    """Raise InputError for a scan that cannot be worked with; say what will make the labels worse."""
    check_scan(scan)
    if scan.colors is None:
        say("warning: the scan has no colours; it is taken as grey and labels will be less certain")


def run_voxels(
    model: Model,
    colors: np.ndarray | None,
    voxels: Voxels,
    device: torch.device | str | None = None,
    forward: Forward | None = None,
) -> tuple[Tensor, ...]:
    """What `forward`, by default the model, says of the voxels of N vertices with colors (N, 3), 0..255, or none.

    device: by default where the model is. Raises InputError where that has too little memory.
    """
    device = torch.device(device or next(model.parameters()).device)
    if device.type == "cpu":
        ensure_memory(
            len(voxels.index) * bytes_per_voxel(model), f"a scan of {len(voxels.index)} voxels", ADVICE
        )
    half = torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")  # logits are off by 0.3 %
    model.to(device).eval()
    try:
        with torch.inference_mode(), half:
            return (forward or model)(_input(colors, voxels, device))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error):
            raise InputError(
                f"{len(voxels.index)} voxels do not fit in the memory of {device}; {ADVICE}"
            ) from None
        raise


def _input(colors: np.ndarray | None, voxels: Voxels, device: torch.device) -> SparseTensor:
    """Colours of the voxels' first vertices as -0.5..0.5, grey where there are none."""
    features = np.zeros((len(voxels.index), 3), dtype=np.float32)
    if colors is not None:
        features = colors[voxels.index].astype(np.float32) / 255 - 0.5
    coordinates = np.pad(voxels.coordinates, ((0, 0), (1, 0)))  # batch 0
    return SparseTensor(torch.from_numpy(features).to(device), torch.from_numpy(coordinates).to(device))


def bytes_per_voxel(model: Model) -> int:
    """Peak memory of a run per voxel, a quarter to spare: last block, kernel map and logits.

    Without the quarter it is 3.7 kB for Res16UNet34C and 10.4 kB for 34D; measured: 2.6 and 11.9 kB.
    """
    width = model.network.feature_channels
    block = 32 + width + 3 * width  # the joined input of the last block, and three arrays inside it
    return int(1.25 * (4 * (block + 2 * len(model.label_set)) + 27 * 16))


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (M, C) float32 in the memory of the logits where those are float32, too."""
    probabilities = logits.float().contiguous()
    with torch.inference_mode():
        for rows in probabilities.split(2**16):
            rows.copy_(rows.softmax(dim=1))
    return probabilities
