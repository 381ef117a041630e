"""What a file reader returns, before units and types are settled, and the checks that readers share."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lground.errors import InputError

COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


@dataclass
class RawScan:
    """points (N, 3) in the file's units and precision; colors (N, 3) of any number type; faces (F, 3)."""

    points: np.ndarray
    colors: np.ndarray | None = None
    faces: np.ndarray | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)


def from_table(columns: dict[str, np.ndarray], source: Path, faces: np.ndarray | None = None) -> RawScan:
    """A scan from named per-vertex columns, as PLY and PCD have; what has no known meaning is an extra."""
    columns = dict(columns)
    if missing := [name for name in "xyz" if name not in columns]:
        found = ", ".join(columns) or "nothing"
        raise InputError(f"{source}: vertices have no {', '.join(missing)} (found {found})")
    points = _take(columns, ("x", "y", "z"))
    colors = next((_take(columns, names) for names in COLOR_NAMES if all(n in columns for n in names)), None)
    extras = {}
    for names in (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z")):
        if all(name in columns for name in names):
            extras["normals"] = _take(columns, names).astype(np.float32)
            break
    extras.update({name: np.array(values) for name, values in columns.items()})
    return RawScan(points, colors, faces, extras)


def _take(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    return np.stack([columns.pop(name) for name in names], axis=1)


def ensure_memory(needed: int, source: str, advice: str) -> None:
    """Raise InputError if `needed` bytes are more than the machine has free."""
    free = available_memory()
    if free is not None and needed > free:
        sizes = f"needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB is free"
        raise InputError(f"{source}: {sizes}; {advice}")


def available_memory() -> int | None:
    """Bytes this process can still get (free memory, container limits); None if the system does not say."""
    free = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return max(0, min(free)) if free else None


def require(module: str, path: Path):
    """Import an optional reader, or say how to get it."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        need = f"reading {path.suffix} needs {module}, which is not installed"
        raise InputError(f'{path}: {need}: pip install "lground[formats]"') from None


def one_line(error: Exception) -> str:
    """What a library says of a damaged file, short enough for one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
