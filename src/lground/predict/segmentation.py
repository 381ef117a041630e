"""Labels for every vertex of a scan."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lground.data import Voxels
from lground.errors import InputError
from lground.files import atomic_file
from lground.labels import LabelSet
from lground.models import Model
from lground.predict.views import PLAIN, View, views_of
from lground.predict.votes import Votes, bytes_of_votes, vertex_groups
from lground.progress import say
from lground.scans import Scan, check_scan
from lground.scans.raw import ensure_memory
from lground.sparse import SparseTensor

ADVICE = "use larger voxels (--voxel-size) or cut the scan into parts"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The classes of N vertices in M voxels.

    labels: (N,) int64 class index. scores: (N,) float32, the (mean) soft-max probability of that class.
    voxels: what the network saw in the plain view; `voxels.inverse` (N,) leads from vertices to rows of
    `voxel_features`, (M, d) float32, or None if they were not asked for.
    """

    labels: np.ndarray
    scores: np.ndarray
    label_set: LabelSet
    voxels: Voxels
    voxel_features: np.ndarray | None = None

    @property
    def features(self) -> np.ndarray | None:
        """(N, d) float32 per vertex, or None if they were not asked for."""
        return None if self.voxel_features is None else self.voxel_features[self.voxels.inverse]

    def save_features(self, path: str | os.PathLike) -> None:
        """Write .npz: features (M, d) float32 of the voxels; voxel (N,) int64, each vertex's row in them."""
        with atomic_file(path) as part, open(part, "wb") as file:
            np.savez(file, features=self.voxel_features, voxel=self.voxels.inverse)

    def paint(self, scan: Scan) -> Scan:
        """The scan in the colours of its classes, with `label` (class index) and `score` as extras."""
        extras = scan.extras | {"label": self.labels.astype(np.int32), "score": self.scores}
        return Scan(scan.points, self.label_set.colors[self.labels], scan.faces, extras, scan.offset)


def segment(
    model: Model,
    scan: Scan,
    *,
    features: bool = False,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    views: int = 1,
    superpoints: np.ndarray | None = None,
) -> Segmentation:
    """Label every vertex of `scan`; all vertices of a voxel get the voxel's result.

    A fine-tuned model takes its best logit, a pretrained one the class whose anchor has the largest cosine
    with the voxel's feature. features: keep the features too. voxel_size: metres, by default the model's own
    (a larger one needs less memory and is less exact). device: where to run, by default where the model is.
    views: look at the scan this many times, turned, mirrored and shifted (`views_of`), and average the
    probabilities of each vertex. superpoints: (N,) integers, -1 none; the vertices of one take the class with
    the highest mean probability in it. Features are those of the plain view.
    Raises InputError for a scan that cannot be worked with or is too large for memory.
    """
    if views == 1 and superpoints is None:
        voxels, logits, voxel_features = run(model, scan, voxel_size, device)
        best = logits.float().softmax(dim=1).max(dim=1)
        labels, scores = (values.cpu().numpy()[voxels.inverse] for values in (best.indices, best.values))
    else:
        group = vertex_groups(len(scan), superpoints)
        ensure_memory(
            bytes_of_votes(group, len(model.label_set)),
            f"voting over {len(scan)} vertices",
            "cut the scan into parts",
        )
        votes = Votes(group, len(model.label_set))
        size = model.voxel_size if voxel_size is None else voxel_size
        for view in reversed(views_of(views, size)):  # the plain one last, whose voxels are kept
            voxels, logits, voxel_features = run(model, scan, voxel_size, device, view)
            votes.add(logits, voxels.inverse)
        labels, scores = votes.winners()
    return Segmentation(
        labels,
        scores,
        model.label_set,
        voxels,
        voxel_features.float().cpu().numpy() if features else None,
    )


def run(
    model: Model,
    scan: Scan,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
    view: View = PLAIN,
) -> tuple[Voxels, Tensor, Tensor]:
    """The voxels of `scan` (M of them) in one view, their logits (M, C) and features (M, d), on `device`."""
    check_scan(scan)
    if scan.colors is None and view is PLAIN:
        say("warning: the scan has no colours; it is taken as grey and labels will be less certain")
    device = torch.device(device or next(model.parameters()).device)
    voxels = view.voxelize(scan.points, model.voxel_size if voxel_size is None else voxel_size)
    if device.type == "cpu":
        ensure_memory(
            len(voxels.index) * bytes_per_voxel(model), f"a scan of {len(voxels.index)} voxels", ADVICE
        )
    half = torch.autocast("cuda", torch.float16, enabled=device.type == "cuda")  # logits are off by 0.3 %
    try:
        with torch.inference_mode(), half:
            return voxels, *model.to(device).eval()(_input(scan, voxels, device))
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in str(error):
            raise InputError(
                f"{len(voxels.index)} voxels do not fit in the memory of {device}; {ADVICE}"
            ) from None
        raise


def _input(scan: Scan, voxels: Voxels, device: torch.device) -> SparseTensor:
    """Colours of the voxels' first vertices as -0.5..0.5, grey where the scan has none."""
    features = np.zeros((len(voxels.index), 3), dtype=np.float32)
    if scan.colors is not None:
        features = scan.colors[voxels.index].astype(np.float32) / 255 - 0.5
    coordinates = np.pad(voxels.coordinates, ((0, 0), (1, 0)))  # batch 0
    return SparseTensor(torch.from_numpy(features).to(device), torch.from_numpy(coordinates).to(device))


def bytes_per_voxel(model: Model) -> int:
    """Peak memory of a run per voxel, a quarter to spare: last block, kernel map and logits.

    Without the quarter it is 3.7 kB for Res16UNet34C and 10.4 kB for 34D; measured: 2.6 and 11.9 kB.
    """
    width = model.network.feature_channels
    block = 32 + width + 3 * width  # the joined input of the last block, and three arrays inside it
    return int(1.25 * (4 * (block + 2 * len(model.label_set)) + 27 * 16))
