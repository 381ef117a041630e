"""Losses: text anchors, points against points, segmentation, offsets to objects; functions of tensors.

Where the original is broken, the corrected form is the default and the original's goes by name (see each
docstring). Random choices are made apart, by the `draw_*` and `sample_*` functions, so that a loss is a
pure function.
"""

from lground.losses.attributes import AttributeProjections, draw_attributes
from lground.losses.common import Reduction
from lground.losses.distance import Distance
from lground.losses.language import (
    COLDEST,
    anchor_similarity,
    draw_negatives,
    embedding_regression,
    feature_norm_loss,
    language_contrastive_loss,
    language_contrastive_terms,
    language_cross_entropy,
    temperature_of,
)
from lground.losses.lovasz import lovasz_softmax
from lground.losses.offsets import object_centers, offset_direction_loss, offset_norm_loss, offset_targets
from lground.losses.points import draw_confused, draw_same_class, point_supervised_contrastive
from lground.losses.segmentation import (
    cross_entropy,
    focal_loss,
    keep_ratios,
    recall_cross_entropy,
    recall_weights,
    sample_for_balancing,
    soft_iou_loss,
    soft_iou_loss_per_point,
)
from lground.losses.simsiam import point_simsiam, supervised_simsiam
from lground.losses.weights import inverse_log_frequency, log_frequency, log_prior

__all__ = [
    "COLDEST",
    "AttributeProjections",
    "Distance",
    "Reduction",
    "anchor_similarity",
    "cross_entropy",
    "draw_attributes",
    "draw_confused",
    "draw_negatives",
    "draw_same_class",
    "embedding_regression",
    "feature_norm_loss",
    "focal_loss",
    "inverse_log_frequency",
    "keep_ratios",
    "language_contrastive_loss",
    "language_contrastive_terms",
    "language_cross_entropy",
    "log_frequency",
    "log_prior",
    "lovasz_softmax",
    "object_centers",
    "offset_direction_loss",
    "offset_norm_loss",
    "offset_targets",
    "point_simsiam",
    "point_supervised_contrastive",
    "recall_cross_entropy",
    "recall_weights",
    "sample_for_balancing",
    "soft_iou_loss",
    "soft_iou_loss_per_point",
    "supervised_simsiam",
    "temperature_of",
]
