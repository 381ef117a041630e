"""Where to look at a room from, and what stands in the way."""

from dataclasses import dataclass

import numpy as np

VIEWS = {"corner": (33.0, 38.0), "top": (0.0, 89.9)}  # degrees off the room's walls, degrees above the floor
DISTANCE = 2.6  # of the camera, in half diagonals of the room
MARGIN = 0.05  # of the picture stays empty on each side
WALL = 0.22  # metres: a wall with its sensor noise, and what hangs on it


@dataclass(frozen=True)
class Camera:
    """A perspective camera: pixel = scale * (right, down) / depth + shift."""

    eye: np.ndarray  # (3,) metres
    axes: np.ndarray  # (3, 3): right, down, forward as rows
    scale: float  # pixels per (metre / metre of depth)
    shift: np.ndarray  # (2,) pixels

    @classmethod
    def look_at(cls, points: np.ndarray, size: tuple[int, int], view: str = "corner") -> "Camera":
        """Frame `points` (N, 3), +Z up, in a picture of (width, height) pixels."""
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}; choose from {', '.join(VIEWS)}")
        yaw, pitch = VIEWS[view]
        backward = _direction(wall_angle(points) + np.radians(yaw), np.radians(pitch))
        low, high = np.percentile(points, [0.2, 99.8], axis=0)
        eye = (low + high) / 2 + backward * DISTANCE * max(np.linalg.norm(high - low) / 2, 1e-3)
        right = np.cross(backward, [0, 0, 1.0])
        right /= -np.linalg.norm(right)
        axes = np.stack([right, np.cross(right, backward), -backward])
        flat = cls(eye, axes, 1.0, np.zeros(2)).project(points)[0]
        first, last = np.percentile(flat, [0.1, 99.9], axis=0)
        room = np.array(size) * (1 - 2 * MARGIN)
        scale = float((room / np.maximum(last - first, 1e-6)).min())
        return cls(eye, axes, scale, np.array(size) / 2 - scale * (first + last) / 2)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) as x, y and depths (N,) in metres."""
        x, y, depth = self.axes @ (points - self.eye).T
        depth = np.maximum(depth, 1e-3)
        return self.scale * np.stack([x, y], axis=1) / depth[:, None] + self.shift, depth


def _direction(yaw: float, pitch: float) -> np.ndarray:
    return np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])


def wall_angle(points: np.ndarray) -> float:
    """Angle about z, in [0, pi/2), of the smallest rectangle round the floor plan: along the walls."""
    plan = points[:: max(1, len(points) // 5000), :2].astype(np.float64)
    angles = np.radians(np.arange(0, 90, 2.0))
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = plan.T
    turned = np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=-1)  # (angles, n, 2)
    sides = np.subtract(*np.percentile(turned, [99, 1], axis=1))
    return float(angles[sides.prod(axis=1).argmin()])


def cut_away(points: np.ndarray, view: str = "corner") -> np.ndarray:
    """(N,) bool: True for what stays when the ceiling and the walls before the camera are taken off.

    A ceiling is a layer at the top that covers a third of the floor plan. A wall before the camera is, in
    each vertical strip along the line of sight, the nearest 22 cm if they reach up most of the room's height;
    its foot stays.
    """
    low, high = np.percentile(points[:, 2], [0.5, 99.7])
    height = points[:, 2] - low
    room = high - low
    keep = np.ones(len(points), dtype=bool)
    if room < 1.0:  # an object, not a room
        return keep
    cells = np.floor(points[:, :2] / 0.25).astype(np.int64)
    top = height > room - 0.3
    if len(np.unique(cells[top], axis=0)) > 0.35 * len(np.unique(cells, axis=0)):
        keep &= ~top
    if view == "corner":
        keep &= ~_near_walls(points, height, room)
    return keep


def _near_walls(points: np.ndarray, height: np.ndarray, room: float) -> np.ndarray:
    """(N,) bool: the walls before the camera, and what is high right behind them (deep door frames)."""
    backward = _direction(wall_angle(points) + np.radians(VIEWS["corner"][0]), 0.0)[:2]
    near = points[:, :2] @ backward  # metres towards the camera
    across = points[:, :2] @ np.array([-backward[1], backward[0]])
    strip = np.floor((across - across.min()) / 0.06).astype(np.int64)
    everything = np.ones(len(points), dtype=bool)
    walls = _front(near, strip, everything, height, 0.6 * room)
    behind = _front(near, strip, ~walls, height, 0.85 * room) & (height > 0.5 * room)
    behind &= near > _most(near, strip, everything)[strip] - 3 * WALL
    return (walls & (height > 0.12)) | behind


def _front(
    near: np.ndarray, strip: np.ndarray, among: np.ndarray, height: np.ndarray, tall: float
) -> np.ndarray:
    """(N,) bool: of the points `among`, the nearest 22 cm of each strip that reaches above `tall`."""
    front = among & (near > _most(near, strip, among)[strip] - WALL)
    return front & (_most(height, strip, front)[strip] > tall)


def _most(values: np.ndarray, strip: np.ndarray, among: np.ndarray) -> np.ndarray:
    most = np.full(strip.max() + 1, -np.inf)
    np.maximum.at(most, strip[among], values[among])
    return most
