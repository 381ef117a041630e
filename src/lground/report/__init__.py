"""Pictures for people: rendered scans, panels, heat, bar charts. Draws without a display."""

from lground.report.camera import Camera, cut_away
from lground.report.charts import class_bars
from lground.report.heat import heat_colors
from lground.report.panels import label_legend, panels
from lground.report.render import render_points

__all__ = ["Camera", "class_bars", "cut_away", "heat_colors", "label_legend", "panels", "render_points"]
