"""Made-up indoor rooms, written in ScanNet's raw format: to try everything without the data set."""

from lground.synth.dataset import write_dataset
from lground.synth.scene import Scene, make_scene

__all__ = ["Scene", "make_scene", "write_dataset"]
