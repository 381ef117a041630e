"""Wavefront OBJ through trimesh."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.scans.raw import RawScan, ensure_memory, one_line, require


def read_obj(path: Path) -> RawScan:
    """Vertices in file order, colours where `v` lines carry them, faces as triangles; no textures."""
    trimesh = require("trimesh", path)
    ensure_memory(8 * path.stat().st_size, str(path), "simplify the mesh or cut out a part")
    try:
        scene = trimesh.load_scene(
            path, file_type="obj", process=False, maintain_order=True, skip_materials=True
        )
    except Exception as error:  # the parser lets through whatever it stumbles over
        raise InputError(f"{path}: is not an OBJ file or is damaged ({one_line(error)})") from None
    parts = [part for part in scene.geometry.values() if hasattr(part, "vertices") and len(part.vertices)]
    if not parts:
        raise InputError(f"{path}: holds no vertices")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=False) if hasattr(part, "faces")]
    colors = [_colors(part) for part in parts]
    return RawScan(
        np.concatenate([part.vertices for part in parts]),
        None if any(color is None for color in colors) else np.concatenate(colors),
        np.concatenate(faces) if faces else None,
    )


def _colors(part) -> np.ndarray | None:
    if hasattr(part, "visual"):
        return part.visual.vertex_colors[:, :3] if part.visual.kind == "vertex" else None
    return part.colors[:, :3] if getattr(part, "colors", None) is not None and len(part.colors) else None
