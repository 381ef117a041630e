"""The shell of a room: floor, ceiling, walls with openings, doors, windows."""

from dataclasses import dataclass

import numpy as np

from lground.synth import materials as m
from lground.synth.furniture import hung
from lground.synth.layout import YAWS, Room, Thing
from lground.synth.parts import Model, Part, box, frame, pierced

THICK = 0.2  # metres: walls, floor and ceiling


@dataclass(frozen=True)
class Opening:
    """A door or window in a wall: middle `s` along the wall, `width`, from `low` to `high` metres."""

    kind: str
    wall: int
    s: float
    width: float
    low: float
    high: float


def build(room: Room, rng: np.random.Generator, windows: tuple[int, int], walls: str) -> None:
    """Add the shell, with one door or two and some windows; doors stay free to open."""
    openings = _openings(room, rng, windows)
    paint = m.tiles(rng) if walls == "tiles" and rng.random() < 0.7 else m.paint(rng)
    for wall in range(4):
        own = [o for o in openings if o.wall == wall]
        coat = paint if rng.random() < 0.8 else m.paint(rng)
        room.add(_wall(room, wall, own, coat), solid=False)
    _slabs(room, rng)
    trim = m.ceramic(rng) if rng.random() < 0.5 else m.wood(rng)
    for opening in openings:
        {"door": _door, "closet door": _closet, "window": _window}[opening.kind](room, rng, opening, trim)


def _openings(room: Room, rng: np.random.Generator, windows: tuple[int, int]) -> list[Opening]:
    found: list[Opening] = []
    height = min(room.size[2] - 0.25, rng.uniform(2.0, 2.1))
    wanted = ["door"] * (2 if rng.random() < 0.15 else 1) + ["closet door"] * int(rng.random() < 0.12)
    wanted += ["window"] * int(rng.integers(windows[0], windows[1] + 1))
    for kind in wanted:
        width = {"door": rng.uniform(0.82, 0.95), "closet door": 1.4, "window": rng.uniform(0.9, 1.7)}[kind]
        low, high = (rng.uniform(0.8, 1.0), height) if kind == "window" else (0.0, height)
        for _ in range(10):
            wall = int(rng.integers(4))
            span = room.length(wall) - width - 0.5
            if span <= 0:
                continue
            new = Opening(kind, wall, 0.25 + width / 2 + span * rng.random(), width, low, high)
            if all(o.wall != wall or abs(o.s - new.s) > (o.width + width) / 2 + 0.35 for o in found):
                found.append(new)
                break
    return found


def _wall(room: Room, wall: int, openings: list[Opening], coat: m.Material) -> Thing:
    length, height = room.length(wall), room.size[2]
    holes = [
        (o.s - length / 2, (o.low + o.high) / 2 - height / 2, o.width / 2, (o.high - o.low) / 2)
        for o in openings
    ]
    slab = pierced(
        (length + 2 * THICK, THICK, height + 2 * THICK), holes, (0, -THICK / 2, -THICK), coat, backed=True
    )
    return Thing("wall", Model((slab,)), YAWS[wall], room.on_wall(wall, length / 2, 0.0))


def _slabs(room: Room, rng: np.random.Generator) -> None:
    width, depth, height = room.size
    middle = np.array([width / 2, depth / 2, 0.0])
    size = (width + 2 * THICK, depth + 2 * THICK, THICK)
    room.add(
        Thing("floor", Model((box(size, (0, 0, -THICK), m.flooring(rng), backed=True),)), 0.0, middle),
        solid=False,
    )
    white = m.paint(rng) if rng.random() < 0.3 else m.ceramic(rng)
    room.add(
        Thing("ceiling", Model((box(size, (0, 0, height), white, backed=True),)), 0.0, middle), solid=False
    )


def _door(room: Room, rng: np.random.Generator, o: Opening, trim: m.Material) -> None:
    at, yaw = room.on_wall(o.wall, o.s, 0.0), YAWS[o.wall]
    room.add(Thing("doorframe", Model((_jamb(o, trim),)), yaw, at), solid=False)
    face = trim if rng.random() < 0.4 else m.board(rng)
    side = rng.choice([-1, 1]) * (o.width / 2 - 0.08)
    leaf = box((o.width - 0.02, 0.05, o.high - 0.02), (0, -0.06, 0.01), face)
    panels = [
        box((o.width * 0.62, 0.07, o.high * 0.34), (0, -0.06, z * o.high), face, backed=True)
        for z in (0.08, 0.54)
        if rng.random() < 0.5
    ]
    grip = box((0.12, 0.06, 0.03), (side, -0.01, 1.0), m.metal(rng))
    room.add(Thing("door", Model((leaf, *panels, grip)), yaw, at), solid=False)
    swing = Thing("", Model((box((o.width + 0.2, 0.75, o.high), (0, 0.375, 0), face),)), yaw, at)
    room.keep_free(swing.footprint(), 0.0, o.high)


def _jamb(o: Opening, trim: m.Material) -> Part:
    """Two posts and a lintel that stand out of the wall by 4 cm."""
    opening = (0, -0.55, o.width / 2, o.high / 2 + 0.5)  # open at the floor
    return pierced((o.width + 0.2, 0.16, o.high + 0.1), [opening], (0, -0.04, 0), trim, backed=True)


def _closet(room: Room, rng: np.random.Generator, o: Opening, trim: m.Material) -> None:
    """Two sliding leaves, one behind the other."""
    face, at = m.board(rng), room.on_wall(o.wall, o.s, 0.0)
    leaves = [
        box((o.width / 2 + 0.03, 0.05, o.high), (s * o.width / 4, -0.1 - 0.03 * s, 0), face) for s in (-1, 1)
    ]
    room.add(Thing("closet door", Model(tuple(leaves)), YAWS[o.wall], at), solid=False)
    room.keep_free(
        Thing("", Model((box((o.width, 0.5, o.high), (0, 0.25, 0), face),)), YAWS[o.wall], at).footprint(),
        0,
        o.high,
    )


def _window(room: Room, rng: np.random.Generator, o: Opening, trim: m.Material) -> None:
    at, yaw, height = room.on_wall(o.wall, o.s, 0.0, o.low), YAWS[o.wall], o.high - o.low
    pane = box((o.width, 0.03, height), (0, -0.15, 0), m.glass(rng))
    rim = frame((o.width, 0.07, height), 0.07, (0, -0.13, 0), trim)
    bars = [
        box((0.06, 0.06, height), (x * o.width, -0.13, 0), trim)
        for x in ((0,) if rng.random() < 0.6 else (-0.17, 0.17))
    ]
    room.add(Thing("window", Model((pane, rim, *bars)), yaw, at), solid=False)
    sill = box((o.width + 0.1, 0.22, 0.04), (0, 0.0, -0.04), trim)
    if rng.random() < 0.6:
        room.add(Thing("windowsill", Model((sill,)), yaw, at))
    cover = rng.random()
    if cover < 0.25:
        model = hung.blinds(rng, o.width - 0.04, height)
        room.add(Thing("blinds", model, yaw, room.on_wall(o.wall, o.s, -0.05, o.low)))
    elif cover < 0.6:
        _curtains(room, rng, o)
    front = Thing("", Model((box((o.width, 0.3, height), (0, 0.15, 0), trim),)), yaw, at)
    room.keep_free(front.footprint(), o.low + 0.1, o.high)


def _curtains(room: Room, rng: np.random.Generator, o: Opening) -> None:
    model = hung.curtain(rng)
    low, high = model.bounds
    for side in (-1, 1):
        s = o.s + side * (o.width / 2 + 0.1)
        if not high[0] < s < room.length(o.wall) - high[0]:
            continue
        z = min(o.high + 0.12, room.size[2] - 0.03) - high[2]
        room.put(Thing("curtain", model, YAWS[o.wall], room.on_wall(o.wall, s, 0.02 - low[1], max(z, 0.02))))


def column(room: Room, rng: np.random.Generator) -> None:
    """A pier at a wall or in a corner, floor to ceiling."""
    side = rng.uniform(0.25, 0.45)
    model = Model((box((side, side, room.size[2] + 0.1), (0, 0, -0.05), m.paint(rng)),))
    wall = int(rng.integers(4))
    s = rng.uniform(side / 2, room.length(wall) - side / 2)
    pier = Thing("column", model, YAWS[wall], room.on_wall(wall, s, side / 2 - 0.005))
    room.add(pier)
