"""The scan: points in metres and what belongs to them."""

from dataclasses import dataclass, field

import numpy as np

from lground.errors import InputError

LARGEST_ROOM = 200.0  # metres; wider than this and the coordinates are hardly metres
SMALLEST_SCAN = 0.01  # metres; narrower than this and everything would fall into one 2 cm voxel
FAR = 1000.0  # metres from the origin at which float32 still resolves 0.06 mm


@dataclass
class Scan:
    """A coloured mesh or point cloud, +Z up.

    points: (N, 3) float32, metres.
    colors: (N, 3) uint8, or None.
    faces: (F, 3) int32 vertex indices, or None for a cloud.
    extras: per-vertex arrays of length N, such as "normals" (N, 3) float32, "label", "instance", "score".
    offset: (3,) float64, metres: what was subtracted from the file's coordinates because float32 cannot hold
        them (map coordinates, 1e6 m). `points + offset` is where the scan is; writing puts it back.
    """

    points: np.ndarray
    colors: np.ndarray | None = None
    faces: np.ndarray | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        self.points = np.ascontiguousarray(self.points, dtype=np.float32)
        self.offset = np.asarray(self.offset, dtype=np.float64)
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise InputError(f"scan: points have shape {self.points.shape}, expected (N, 3)")
        if self.colors is not None:
            self.colors = colors_to_uint8(self.colors)
        if self.faces is not None:
            self.faces = np.ascontiguousarray(self.faces, dtype=np.int32).reshape(-1, 3)
        self.extras = {name: np.asarray(values) for name, values in self.extras.items()}
        for name, values in [("colors", self.colors), *self.extras.items()]:
            if values is not None and len(values) != len(self.points):
                raise InputError(f"scan: {name} has {len(values)} rows for {len(self.points)} points")

    def __len__(self) -> int:
        return len(self.points)


def colors_to_uint8(colors: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 from the colours files hold: uint8, floats in 0..1 or 0..255, 16-bit integers."""
    colors = np.asarray(colors)
    if colors.ndim != 2 or colors.shape[1] < 3:
        raise InputError(f"scan: colors have shape {colors.shape}, expected (N, 3)")
    colors = colors[:, :3]
    if colors.dtype == np.uint8:
        return np.ascontiguousarray(colors)
    values = colors.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("scan: colors hold NaN or infinite values; leave the colours out or repair them")
    top = values.max(initial=0.0)
    if colors.dtype.kind == "f" and top <= 1.001:
        values = values * 255.0
    elif top > 255.0:  # 16 bits, as LAS and some PLY files have
        values = values / 257.0
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def check_points(points: np.ndarray, source: str, units: str = "m") -> None:
    """Raise InputError unless `points` (N, 3), metres, can be a scan: two or more, finite, room-sized."""
    if len(points) < 2:
        held = "holds one point" if len(points) else "is empty"
        raise InputError(f"{source}: {held}; a scan needs at least two points, usually thousands")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise InputError(
            f"{source}: {int(bad.sum())} of {len(points)} vertices have NaN or infinite coordinates "
            f"(the first is vertex {int(bad.argmax())}); remove them"
        )
    with np.errstate(over="ignore"):
        extent = points.max(axis=0).astype(np.float64) - points.min(axis=0)
    if extent.max() > LARGEST_ROOM:
        raise InputError(_too_large(extent, source, units))
    if extent.max() < SMALLEST_SCAN:
        given = f"they were read as {units}; " if units != "m" else ""
        raise InputError(
            f"{source}: all points lie within {extent.max() * 1000:.3g} mm; {given}"
            "say what the coordinates are in with --units (m, cm, mm, ft, in)"
        )


def check_scan(scan: Scan, source: str = "scan") -> None:
    """Raise InputError unless `scan` can be worked with (see `check_points`; face indices in range)."""
    check_points(scan.points, source)
    distance = np.abs(scan.points).max()
    if distance > 100 * FAR:
        raise InputError(
            f"{source}: points lie {distance:.3g} m from the origin, where float32 is too coarse; "
            "subtract an offset in float64 and pass it as Scan(points, offset=...)"
        )
    check_faces(scan.faces, len(scan), source)


def check_faces(faces: np.ndarray | None, count: int, source: str) -> None:
    """Raise InputError if a face names a vertex outside 0..count-1."""
    if faces is None or not len(faces):
        return
    bad = ((faces < 0) | (faces >= count)).any(axis=1)
    if bad.any():
        raise InputError(
            f"{source}: {int(bad.sum())} of {len(faces)} faces name vertices outside 0..{count - 1} "
            f"(the first is face {int(bad.argmax())}); the file is damaged, export it again"
        )


def _too_large(extent: np.ndarray, source: str, units: str) -> str:
    spans = " x ".join(f"{side:.4g}" for side in extent)
    message = f"{source}: spans {spans} m, which no room does"
    if units != "m":
        return f"{message}; it was read as {units}: check --units"
    unit, scale = ("mm", 1000.0) if extent.max() >= 1000.0 else ("cm", 100.0)
    smaller = " x ".join(f"{side / scale:.3g}" for side in extent)
    hint = f"if its coordinates are in {unit}, add --units {unit} (then {smaller} m)"
    return f"{message}; {hint}, else cut out a part"
