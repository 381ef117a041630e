"""A scan in, labels and answers out."""

from lground.predict.classes import FoundClass, found_classes, write_classes
from lground.predict.colors import object_colors
from lground.predict.evaluate import evaluate
from lground.predict.loading import choose_device, load_model
from lground.predict.objects import FoundObject, OrientedBox, found_objects, oriented_box, write_objects
from lground.predict.open_vocabulary import segment_words
from lground.predict.queries import Spot, best_spot, query
from lground.predict.segmentation import Segmentation, segment
from lground.predict.submission import Submitted, submit
from lground.predict.superpoints import cloud_superpoints, mesh_superpoints, read_superpoints, surface_patches
from lground.predict.words import read_words

__all__ = [
    "FoundClass",
    "FoundObject",
    "OrientedBox",
    "Segmentation",
    "Spot",
    "Submitted",
    "best_spot",
    "choose_device",
    "cloud_superpoints",
    "evaluate",
    "found_classes",
    "found_objects",
    "load_model",
    "mesh_superpoints",
    "object_colors",
    "oriented_box",
    "query",
    "read_superpoints",
    "read_words",
    "segment",
    "segment_words",
    "submit",
    "surface_patches",
    "write_classes",
    "write_objects",
]
