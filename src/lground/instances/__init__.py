"""Objects among the points of a scan."""

from lground.instances.components import connected_groups
from lground.instances.grouping import Grouping, find_objects, find_on_vertices
from lground.instances.objects import Objects
from lground.instances.panoptic import panoptic

__all__ = ["Grouping", "Objects", "connected_groups", "find_objects", "find_on_vertices", "panoptic"]
