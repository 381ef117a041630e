"""Scores of labels and of objects against the truth: ScanNet's definitions, and panoptic quality."""

from lground.metrics.instance import InstanceEvaluator, instance_ap
from lground.metrics.instance_scores import InstanceScores
from lground.metrics.panoptic import PanopticEvaluator
from lground.metrics.panoptic_scores import PanopticScores
from lground.metrics.semantic import SemanticScores, confusion_matrix, semantic_scores, sum_over_processes

__all__ = [
    "InstanceEvaluator",
    "InstanceScores",
    "PanopticEvaluator",
    "PanopticScores",
    "SemanticScores",
    "confusion_matrix",
    "instance_ap",
    "semantic_scores",
    "sum_over_processes",
]
