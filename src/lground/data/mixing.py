"""Scene mixing: one scene laid into another (Mix3D, Nekrasov et al., 3DV 2021)."""

import numpy as np

from lground.data.scenes import VoxelScene
from lground.data.voxels import first_rows

FLOOR = 0.01  # share of the voxels below the floor


def mix(scene: VoxelScene, other: VoxelScene) -> VoxelScene:
    """The voxels of both scenes, centred on one another in x and y, with their floors at one height.

    `other` moves by whole voxels, so nothing is rounded twice, and `scene` stays where it is; in a voxel of both,
    `scene` wins. Its vertices come first, and the instances of `other` are counted on after its own.
    """
    move = (_anchor(scene.coordinates) - _anchor(other.coordinates)).astype(np.int32)
    coordinates = np.concatenate([scene.coordinates, other.coordinates + move])
    kept, voxel = first_rows(coordinates)
    used = int(max(scene.instances.max(initial=-1), scene.vertex_instances.max(initial=-1))) + 1
    moved, moved_vertices = (
        np.where(instances >= 0, instances + used, -1)
        for instances in (other.instances, other.vertex_instances)
    )
    values = {
        "colors": (scene.colors, other.colors),
        "labels": (scene.labels, other.labels),
        "instances": (scene.instances, moved),
        "attributes": (scene.attributes, other.attributes),
    }
    inverse = np.where(other.inverse >= 0, voxel[len(scene) + other.inverse], -1)
    return VoxelScene(
        name=f"{scene.name}+{other.name}",
        coordinates=coordinates[kept],
        inverse=np.concatenate([scene.inverse, inverse]),
        vertex_labels=np.concatenate([scene.vertex_labels, other.vertex_labels]),
        vertex_instances=np.concatenate([scene.vertex_instances, moved_vertices]),
        **{name: np.concatenate(pair)[kept] for name, pair in values.items()},
    )


def _anchor(coordinates: np.ndarray) -> np.ndarray:
    """Mean x and y, and the height of the floor: (3,) whole numbers."""
    x, y, z = coordinates.T
    floor = np.partition(z, int(FLOOR * len(z)))[int(FLOOR * len(z))]
    return np.array([np.rint(x.mean()), np.rint(y.mean()), floor])
