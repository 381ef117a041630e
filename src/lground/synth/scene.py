"""One scene: furnish a room, fuse its surface, look at it, colour it, segment it, annotate it."""

from dataclasses import dataclass

import numpy as np

from lground.synth import light, sensor
from lground.synth.fusion import Mesh, Volume, extract, fill
from lground.synth.layout import Room
from lground.synth.oversegment import min_vertices, oversegment
from lground.synth.parts import turn
from lground.synth.rooms import furnish, room_type
from lground.synth.scannet_format import classes

UNANNOTATED = 0.03  # share of objects that nobody annotated


@dataclass(frozen=True)
class Scene:
    """What ScanNet's files of one scan hold, and the truth they were made from.

    points (N, 3) float32 metres in the raw frame, colors (N, 3) uint8, faces (F, 3) int32, segments (N,)
    int64, groups [(raw category, segment ids)], alignment (4, 4) from the raw to the aligned frame; `objects`
    (N,) int32 is the object that each vertex really belongs to and `names` the class of each object.
    """

    kind: str
    points: np.ndarray
    colors: np.ndarray
    faces: np.ndarray
    segments: np.ndarray
    groups: list[tuple[str, list[int]]]
    alignment: np.ndarray
    objects: np.ndarray
    names: list[str]


def make_scene(seed: int, index: int, size: str = "normal", spacing: float = 0.02) -> Scene:
    """Scene `index` of the data set `seed`; depends on nothing else. `spacing`: metres between vertices."""
    rng = np.random.default_rng([seed, 0, index])
    kind = room_type(seed, index)
    room = furnish(rng, kind, size)
    mesh, colors, owner = _scan(rng, room, spacing)
    alignment = _alignment(rng, room)
    points = ((mesh.points - alignment[:3, 3]) @ alignment[:3, :3]).astype(np.float32)
    segments = oversegment(mesh.points, mesh.faces, mesh.normals(), min_vertices=min_vertices(spacing))
    names = [thing.name for thing in room.things]
    objects = owner[mesh.part]
    groups = _annotate(rng, segments, objects, names)
    return Scene(kind, points, colors, mesh.faces, segments, groups, alignment, objects, names)


def _scan(rng: np.random.Generator, room: Room, spacing: float) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """The scanned surface, its colours, and the object of each part."""
    things = [thing.parts() for thing in room.things]
    owner = np.repeat(np.arange(len(things)), [len(parts) for parts in things]).astype(np.int32)
    parts = [part for parts in things for part in parts]
    size = np.array(room.size)
    low = np.full(3, -0.19) + rng.uniform(0, 0.5 * spacing, 3)  # the grid must not lie in the walls' planes
    volume = fill(parts, low, size + 0.19, spacing)
    mesh = extract(volume)
    colours = light.paint(mesh, parts) * light.shading(rng, mesh, volume, room.size)
    mesh, index, nearest = _seen(rng, mesh, volume, parts, room, spacing)
    colours = light.record(rng, mesh, colours[index])
    mesh.points = sensor.jitter(rng, mesh, nearest, spacing)
    mesh, index = sensor.thin_out(rng, mesh, nearest, spacing)
    mesh, kept = mesh.kept(sensor.large_pieces(mesh, min_vertices(spacing)))
    return mesh, colours[index][kept], owner


def _seen(
    rng: np.random.Generator, mesh: Mesh, volume: Volume, parts: list, room: Room, spacing: float
) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """What a walk with the sensor saw: the mesh, the indices of its points, and how near each was seen."""
    count = int(6 + room.size[0] * room.size[1] * rng.uniform(0.7, 1.2))
    cameras = sensor.camera_path(rng, volume, room.size[:2], count)
    up = rng.uniform(0.75, 1.4) if rng.random() < 0.3 else rng.uniform(0.2, 0.6)
    seen, nearest = sensor.look(rng, mesh, cameras, spacing, up)
    clear = np.array([part.material.clear for part in parts])[mesh.part]
    mesh, index = mesh.kept(~sensor.lost(rng, mesh.points, seen, clear))
    return mesh, index, nearest[index]


def _alignment(rng: np.random.Generator, room: Room) -> np.ndarray:
    """Raw to aligned (4, 4): undoes a random turn about z and a shift; the aligned floor is z = 0."""
    alignment = np.eye(4)
    alignment[:3, :3] = turn(rng.uniform(-np.pi, np.pi))
    alignment[:3, 3] = -alignment[:3, :3] @ np.array([*rng.uniform(2, 4, 2), rng.uniform(0, 0.2)])
    return np.round(alignment, 6)


def _annotate(
    rng: np.random.Generator, segments: np.ndarray, objects: np.ndarray, names: list[str]
) -> list[tuple[str, list[int]]]:
    """Each segment goes to the object that most of its vertices show, as annotators click segments."""
    ids, segment = np.unique(segments, return_inverse=True)
    pairs, count = np.unique(segment * len(names) + objects, return_counts=True)
    order = np.lexsort((-count, pairs // len(names)))
    _, first = np.unique(pairs[order] // len(names), return_index=True)
    winner = pairs[order][first] % len(names)
    groups = []
    for number, name in enumerate(names):
        mine = ids[winner == number].tolist()
        forgotten, usual, other = rng.random() < UNANNOTATED, rng.random() < 0.8, rng.random()
        if mine and not forgotten:
            raw = classes()[name][1]
            groups.append((raw[0] if usual else raw[int(other * len(raw))], mine))
    return groups
