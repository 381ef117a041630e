"""Objects among the points of a scan."""

from lground.instances.objects import Objects

__all__ = ["Objects"]
