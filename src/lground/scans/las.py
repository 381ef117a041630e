"""LAS and LAZ through laspy."""

from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.scans.raw import RawScan, ensure_memory, one_line, require


def read_las(path: Path) -> RawScan:
    """Points in float64; 16-bit colours; intensity and classification as extras where the file has them."""
    laspy = require("laspy", path)
    try:
        with laspy.open(path) as reader:
            header = reader.header
            _check_size(header, path)
            cloud = reader.read()
    except InputError:
        raise
    except Exception as error:  # laspy and its decompressors each have their own errors
        hint = ' (for .laz: pip install "lground[formats]")' if "backend" in str(error).lower() else ""
        raise InputError(f"{path}: cannot be read: {one_line(error)}{hint}") from None
    if len(cloud.points) != header.point_count:
        raise InputError(
            f"{path}: is truncated: {len(cloud.points)} of {header.point_count} points; copy it again"
        )
    names = set(cloud.point_format.dimension_names)
    colors = (
        np.stack([cloud.red, cloud.green, cloud.blue], axis=1) if {"red", "green", "blue"} <= names else None
    )
    extras = {name: np.asarray(cloud[name]) for name in ("intensity", "classification") if name in names}
    return RawScan(
        np.asarray(cloud.xyz),
        colors if colors is not None and colors.any() else None,  # all black: the field was never filled
        extras={name: values for name, values in extras.items() if values.any()},
    )


def _check_size(header, path: Path) -> None:
    record, count = header.point_format.size, header.point_count
    room = path.stat().st_size - header.offset_to_point_data
    if not header.are_points_compressed and count * record > room:
        raise InputError(
            f"{path}: is truncated: its header promises {count} points, it has room for {room // record}"
        )
    ensure_memory(count * (2 * record + 64), str(path), "thin the cloud out or cut out a part")
