"""Scores of labels against the truth, by ScanNet's definitions."""

from lground.metrics.semantic import SemanticScores, confusion_matrix, semantic_scores, sum_over_processes

__all__ = ["SemanticScores", "confusion_matrix", "semantic_scores", "sum_over_processes"]
