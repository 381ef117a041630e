"""Language-grounded semantic segmentation of indoor 3D scans.

>>> import lground as lg
>>> scan = lg.read_scan("room.ply")
>>> model = lg.load_model("weights.safetensors")
>>> result = lg.segment(model, scan)
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> module that holds it. Resolved on first use, so that `import lground` costs no torch.
_HOME = {
    "Scan": "lground.scans",
    "read_scan": "lground.scans",
    "write_scan": "lground.scans",
    "InputError": "lground.errors",
    "load_model": "lground.predict",
    "segment": "lground.predict",
    "segment_words": "lground.predict",
    "query": "lground.predict",
}
_ROOMS = (
    "labels",
    "scans",
    "scannet",
    "synth",
    "data",
    "sparse",
    "models",
    "text",
    "losses",
    "metrics",
    "training",
)

__all__ = [*_HOME, *_ROOMS, "__version__"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"lground.{name}")
    raise AttributeError(f"module 'lground' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
