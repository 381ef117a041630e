"""A scan in, labels and answers out."""

from lground.predict.classes import FoundClass, found_classes, write_classes
from lground.predict.evaluate import evaluate
from lground.predict.loading import choose_device, load_model
from lground.predict.queries import Spot, best_spot, query
from lground.predict.segmentation import Segmentation, segment
from lground.predict.superpoints import mesh_superpoints, read_superpoints

__all__ = [
    "FoundClass",
    "Segmentation",
    "Spot",
    "best_spot",
    "choose_device",
    "evaluate",
    "found_classes",
    "load_model",
    "mesh_superpoints",
    "query",
    "read_superpoints",
    "segment",
    "write_classes",
]
