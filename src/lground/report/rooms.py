"""One room as a trained model sees it."""

import os

import numpy as np
import torch

from lground.data import SceneDataset, collate
from lground.models import Model
from lground.report.panels import label_legend, panels
from lground.scannet import open_scene
from lground.training.score import sparse_input

UNLABELLED = 200  # grey


@torch.no_grad()
def draw_room(
    path: str | os.PathLike,
    model: Model,
    dataset: SceneDataset,
    device: torch.device | str,
    index: int = 0,
) -> None:
    """Write a PNG of one scene of `dataset`: its colours, the truth, and what `model` on `device` predicts."""
    scene = open_scene(dataset.folders[index])
    batch = collate([dataset[0, index]])[0]
    logits, _ = model(sparse_input(batch.to(device)))
    predicted = logits.argmax(1).cpu().numpy()[batch.scenes[0].inverse]
    truth = batch.scenes[0].vertex_labels
    classes = model.label_set
    coord = np.asarray(scene.coord)
    right = np.mean(predicted[truth >= 0] == truth[truth >= 0]) if (truth >= 0).any() else 0.0
    pictures = [
        (scene.name, coord, np.asarray(scene.color)),
        ("truth", coord, _painted(truth, classes.colors)),
        (
            f"prediction: {100 * right:.0f} % of the vertices right",
            coord,
            _painted(predicted, classes.colors),
        ),
    ]
    legend = label_legend(np.concatenate([truth, predicted]), classes.names, classes.colors)
    panels(path, pictures, legend=legend)


def _painted(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    return np.where(labels[:, None] >= 0, colors[labels], UNLABELLED).astype(np.uint8)
