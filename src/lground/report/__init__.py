"""Pictures for people: rendered scans, panels, heat, bar charts. Draws without a display."""

from lground.report.answers import draw_answers, paint_answers
from lground.report.camera import Camera, cut_away
from lground.report.charts import class_bars
from lground.report.heat import heat_colors
from lground.report.objects import draw_objects, draw_segmentation
from lground.report.panels import label_legend, panels
from lground.report.render import render_points
from lground.report.scores import write_scores

__all__ = [
    "Camera",
    "class_bars",
    "cut_away",
    "draw_answers",
    "draw_objects",
    "draw_segmentation",
    "heat_colors",
    "label_legend",
    "paint_answers",
    "panels",
    "render_points",
    "write_scores",
]
