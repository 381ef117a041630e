"""Free text in, scores and places out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lground.data import voxelize
from lground.errors import InputError
from lground.models import Model
from lground.predict.loading import text_width
from lground.predict.running import run
from lground.scans import Scan

REACH = 0.05  # metres: the cells that a region is joined from


@dataclass(frozen=True)
class Spot:
    """Where a text fits best: the region of highest scores."""

    center: np.ndarray  # (3,) float64, metres, in the coordinates of the scan's file
    score: float  # mean over the region
    vertices: np.ndarray  # (k,) int64


def query(
    model: Model,
    scan: Scan,
    texts: Sequence[str],
    *,
    voxel_size: float | None = None,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """(N, T) float32: cosine, -1..1, between the feature of every vertex and each text.

    The texts are encoded as they are, by the encoder that made the model's anchors. The model must be
    grounded in language: pretrained with anchors. A model fine-tuned from one answers through the features it
    kept. These answer better to the names of its classes, most where fine-tuning held them at the anchors
    (`loss.language`; measured in benchmarks/claim); what they say of other words was not measured.
    Raises InputError for a model that was never grounded, and for a scan `segment` would refuse.
    """
    vectors = _encode(model, texts)
    voxels, _, features = run(model, scan, voxel_size, device)
    with torch.inference_mode():
        scores = model.similarity(features, vectors.to(features.device))
    return scores.cpu().numpy().astype(np.float32)[voxels.inverse]


def _encode(model: Model, texts: Sequence[str]) -> torch.Tensor:
    """(T, d) embeddings by the model's own text encoder."""
    from lground.text import encode_texts

    if isinstance(texts, str) or not texts or not all(text.strip() for text in texts):
        raise InputError("query: give a list of one or more texts, none of them empty")
    return check_width(model, encode_texts(list(texts), text_encoder(model)))


def text_encoder(model: Model) -> str:
    """The encoder that made the model's anchors; InputError for a model that was never grounded in language."""
    encoder = model.grounding.get("encoder")
    if model.anchors is None or not encoder:
        raise InputError(
            "the model is not grounded in language (its file names no text encoder): query a model from "
            "`lground pretrain`, or add --anchors made with the encoder it was trained with"
        )
    return encoder


def check_width(model: Model, vectors: torch.Tensor) -> torch.Tensor:
    """The same embeddings (T, d_text); InputError where the model cannot compare its features with them."""
    if vectors.shape[1] != text_width(model):
        encoder = model.grounding.get("encoder")
        raise InputError(
            f"encoder '{encoder}' gives {vectors.shape[1]} numbers per text, the model needs "
            f"{text_width(model)}; name the encoder the model was trained with"
        )
    return vectors


def best_spot(scan: Scan, scores: np.ndarray) -> Spot:
    """The connected region of the best scores (N,): the upper third between the median and the top."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    middle, top = np.percentile(scores, [50, 99.9])
    high = np.flatnonzero(scores >= top - (top - middle) / 3)
    cells, _, cell_of = voxelize(scan.points[high], REACH)
    pairs = cKDTree(cells).query_pairs(1.8, output_type="ndarray")  # cells that touch, corners included
    links = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(cells),) * 2)
    region_of = connected_components(links, directed=False)[1][cell_of]
    weight = np.bincount(region_of, weights=scores[high] - middle)
    vertices = high[region_of == weight.argmax()]
    center = scan.points[vertices].mean(axis=0, dtype=np.float64) + scan.offset
    return Spot(center, float(scores[vertices].mean()), vertices)
