"""A scan in, labels and answers out."""

from lground.predict.classes import FoundClass, found_classes, write_classes
from lground.predict.colors import object_colors
from lground.predict.evaluate import evaluate
from lground.predict.loading import choose_device, load_model
from lground.predict.objects import FoundObject, OrientedBox, found_objects, oriented_box, write_objects
from lground.predict.queries import Spot, best_spot, query
from lground.predict.segmentation import Segmentation, segment
from lground.predict.submission import Submitted, submit
from lground.predict.superpoints import mesh_superpoints, read_superpoints

__all__ = [
    "FoundClass",
    "FoundObject",
    "OrientedBox",
    "Segmentation",
    "Spot",
    "Submitted",
    "best_spot",
    "choose_device",
    "evaluate",
    "found_classes",
    "found_objects",
    "load_model",
    "mesh_superpoints",
    "object_colors",
    "oriented_box",
    "query",
    "read_superpoints",
    "segment",
    "submit",
    "write_classes",
    "write_objects",
]
