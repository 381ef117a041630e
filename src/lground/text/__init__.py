"""Words to anchors: text encoders, and the vectors of class names that features are drawn to."""

from lground.text.anchors import Anchors, build_anchors, load_anchors, save_anchors
from lground.text.encoders import encode_texts

__all__ = ["Anchors", "build_anchors", "encode_texts", "load_anchors", "save_anchors"]
