"""A small model with random weights, a grounded one, and a scan of a made-up corner of a room."""

import json

import numpy as np
import pytest
import torch

from lground.labels import LabelSet, load_labels
from lground.models import Model, save_model
from lground.predict.running import run
from lground.scans import Scan, write_scan

NAMES = ["wall", "floor", "chair", "lamp"]
VOXEL = 0.1


@pytest.fixture(scope="session")
def label_set(tmp_path_factory) -> LabelSet:
    path = tmp_path_factory.mktemp("labels") / "mine.json"
    rows = [{"name": name, "instance_class": name not in ("wall", "floor")} for name in NAMES]
    path.write_text(json.dumps(rows))
    return load_labels(path)


@pytest.fixture(scope="session")
def scan() -> Scan:
    """A grid of floor and wall as a mesh, two vertices to a voxel and more, with colours."""
    side = np.arange(0, 2.0, 0.05) + 0.025  # no vertex on the border of a voxel
    x, y = (a.ravel() for a in np.meshgrid(side, side, indexing="ij"))
    points = np.concatenate([np.stack([x, y, 0 * x + 0.025], 1), np.stack([x, 0 * x + 0.025, y], 1)])
    n = len(side)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + n, corner + 1], 1), np.stack([corner + n, corner + n + 1, corner + 1], 1)]
    )
    faces = np.concatenate([faces, faces + n * n])
    colors = np.random.default_rng(0).integers(0, 256, (len(points), 3)).astype(np.uint8)
    return Scan(points, colors, faces, {"normals": np.zeros((len(points), 3), np.float32)})


@pytest.fixture(scope="session")
def scan_file(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "room.ply"
    write_scan(scan, path)
    return path


@pytest.fixture(scope="session")
def classifier(label_set) -> Model:
    torch.manual_seed(0)
    return Model.fresh("Res16UNet14A", label_set, VOXEL).eval()


@pytest.fixture(scope="session")
def pointing(label_set, scan) -> Model:
    """A network that also points at the centres of objects; its random weights see every class in `scan`."""
    torch.manual_seed(0)
    model = Model.fresh("insseg_Res16UNet14A", label_set, VOXEL).eval()
    _, logits, _ = run(model, scan)
    with torch.no_grad():
        final = model.network.final
        final.kernel /= logits.std(dim=0)
        final.bias.copy_((final.bias - logits.mean(dim=0)) / logits.std(dim=0))
        model.network.offsets.kernel *= 0.1  # by centimetres
    return model


@pytest.fixture(scope="session")
def grounded(label_set) -> Model:
    """A network as wide as MiniLM's vectors (384), its class anchors encoded by it."""
    from lground.text import build_anchors

    torch.manual_seed(0)
    model = Model.fresh("Res16UNet14D", label_set, VOXEL, representation_only=True).eval()
    anchors = build_anchors(label_set.names, "minilm")
    model.anchors = anchors.vectors
    model.grounding = {"encoder": anchors.encoder, "prompt": anchors.prompt}
    return model


@pytest.fixture(scope="session")
def weights(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "best.safetensors"
    save_model(classifier, path)
    return path


@pytest.fixture(scope="session")
def grounded_weights(grounded, tmp_path_factory):
    path = tmp_path_factory.mktemp("grounded") / "best.safetensors"
    save_model(grounded, path)
    return path


@pytest.fixture(scope="session")
def pointing_weights(pointing, tmp_path_factory):
    path = tmp_path_factory.mktemp("pointing") / "best.safetensors"
    save_model(pointing, path)
    return path
