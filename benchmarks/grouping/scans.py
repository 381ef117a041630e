"""Made-up rooms side by side, and what a network might predict for them."""

from pathlib import Path

import numpy as np

from lground.data import voxelize
from lground.labels import load_labels
from lground.synth import make_scene

VOXEL_SIZE = 0.02  # metres
NOISE = 0.03  # metres, standard deviation of offsets
REACHED = (0.8, 1.0)  # share of the way to the centre that the offsets of a superpoint go
MISTAKEN = 0.1  # share of superpoints of another class of the room


def predicted(vertices: int, seed: int = 0) -> dict[str, np.ndarray]:
    """points (M, 3), offsets (M, 3), labels (M,), superpoints (M,) of M voxels that hold a vertex each."""
    names = {name: index for index, name in enumerate(load_labels("scannet200").names)}
    rooms, count, shift = [], 0, np.zeros(3, np.float32)
    while count < vertices:
        room = _room(seed, len(rooms), names, vertices - count)
        low, high = room["points"].min(axis=0), room["points"].max(axis=0)
        room["points"] += shift - low
        shift[0] += high[0] - low[0] + 1
        room["superpoints"] += count
        count += len(room["points"])
        rooms.append(room)
    return {name: np.concatenate([room[name] for room in rooms]) for name in rooms[0]}


def _room(seed: int, index: int, names: dict[str, int], most: int) -> dict[str, np.ndarray]:
    """One room, or the `most` voxels of least x."""
    scene = make_scene(seed, index, "normal", VOXEL_SIZE)
    chosen = voxelize(scene.points, VOXEL_SIZE).index
    chosen = np.sort(chosen[np.argsort(scene.points[chosen, 0], kind="stable")[:most]])
    points, objects = scene.points[chosen], scene.objects[chosen]
    superpoints = np.unique(scene.segments[chosen], return_inverse=True)[1]
    rng = np.random.default_rng([seed, index])
    patches = superpoints.max() + 1

    sizes = np.maximum(np.bincount(objects), 1)
    centers = np.stack([np.bincount(objects, axis) / sizes for axis in points.T], axis=1)
    offsets = (centers[objects] - points) * rng.uniform(*REACHED, (patches, 1))[superpoints]
    offsets += rng.normal(0, NOISE, offsets.shape)

    classes = np.array([names.get(name, 0) for name in scene.names])  # the few without a class become wall
    mistaken = rng.random(patches) < MISTAKEN
    other = rng.choice(np.unique(classes), patches)
    labels = np.where(mistaken[superpoints], other[superpoints], classes[objects])
    return {
        "points": points,
        "offsets": offsets.astype(np.float32),
        "labels": labels,
        "superpoints": superpoints,
    }


def save(path: Path, vertices: int) -> None:
    np.savez(path, **predicted(vertices))
