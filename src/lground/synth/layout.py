"""Where things stand: a room of things, none of which runs into another.

Walls are numbered 0..3 from y = 0 against the clock; along each, `s` is metres from its start, seen from
inside. A thing's footprint is a turned rectangle with a range of heights; things collide when both overlap.
"""

from dataclasses import dataclass, field

import numpy as np

from lground.synth.parts import Model, Part, Top, turn

YAWS = (0.0, np.pi / 2, np.pi, -np.pi / 2)  # turn the front (+y) of a thing away from wall 0..3
TOUCH = 0.01  # metres that things may overlap: they touch


@dataclass(frozen=True)
class Thing:
    """A placed object: what class it is, its model, and where its origin is in the room."""

    name: str
    model: Model
    yaw: float
    at: np.ndarray

    def parts(self) -> list[Part]:
        rotation = turn(self.yaw)
        return [part.moved(rotation, self.at) for part in self.model.parts]

    def point(self, x: float, y: float, z: float = 0.0) -> np.ndarray:
        """Room coordinates (3,) of a point in the thing's frame."""
        return turn(self.yaw) @ np.array([x, y, z]) + self.at

    def footprint(self) -> np.ndarray:
        """Four corners (4, 2) in the room."""
        low, high = self.model.bounds
        corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
        return corners @ turn(self.yaw)[:2, :2].T + self.at[:2]

    def heights(self) -> tuple[float, float]:
        low, high = self.model.bounds
        return float(low[2] + self.at[2]), float(high[2] + self.at[2])


@dataclass
class Room:
    """An empty box of `size` (width x, depth y, height z) metres that things are put into."""

    size: tuple[float, float, float]
    things: list[Thing] = field(default_factory=list)
    _corners: list[np.ndarray] = field(default_factory=list)
    _heights: list[tuple[float, float]] = field(default_factory=list)
    _owner: list[Thing | None] = field(default_factory=list)

    def length(self, wall: int) -> float:
        return self.size[wall % 2]

    def on_wall(self, wall: int, s: float, out: float, z: float = 0.0) -> np.ndarray:
        """The point (3,) `s` along a wall and `out` metres into the room."""
        width, depth, _ = self.size
        start = np.array([(0, 0), (width, 0), (width, depth), (0, depth)][wall], dtype=float)
        x, y = turn(YAWS[wall])[:2, :2].T
        return np.append(start + s * x + out * y, z)

    def keep_free(self, corners: np.ndarray, low: float, high: float) -> None:
        """Nothing may be put over the rectangle `corners` (4, 2) between two heights: the swing of a door."""
        self._remember(corners, (low, high), None)

    def add(self, thing: Thing, solid: bool = True) -> Thing:
        self.things.append(thing)
        if solid:
            self._remember(thing.footprint(), thing.heights(), thing)
        return thing

    def _remember(self, corners: np.ndarray, heights: tuple[float, float], owner: Thing | None) -> None:
        self._corners.append(corners)
        self._heights.append(heights)
        self._owner.append(owner)

    def fits(self, thing: Thing, host: Thing | None = None) -> bool:
        """Inside the room and clear of everything but its host."""
        corners, (low, high) = thing.footprint(), thing.heights()
        inside = (corners > -TOUCH).all() and (corners < np.array(self.size[:2]) + TOUCH).all()
        if not inside or high > self.size[2] + TOUCH:
            return False
        level = [
            i
            for i, (below, above) in enumerate(self._heights)
            if low < above - TOUCH and below < high - TOUCH and (host is None or self._owner[i] is not host)
        ]
        return not level or not _overlap(corners, np.array([self._corners[i] for i in level])).any()

    def put(self, thing: Thing, host: Thing | None = None) -> Thing | None:
        return self.add(thing) if self.fits(thing, host) else None


def _overlap(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Which rectangles `many` (n, 4, 2) overlap the rectangle `one` (4, 2): separating axes."""
    apart = np.zeros(len(many), dtype=bool)
    for axes in (np.broadcast_to(_axes(one), (len(many), 2, 2)), _axes(many)):
        a = one @ np.swapaxes(axes, 1, 2)
        b = many @ np.swapaxes(axes, 1, 2)
        gap = np.maximum(a.min(axis=1) - b.max(axis=1), b.min(axis=1) - a.max(axis=1))
        apart |= (gap > -TOUCH).any(axis=1)
    return ~apart


def _axes(corners: np.ndarray) -> np.ndarray:
    sides = np.stack(
        [corners[..., 1, :] - corners[..., 0, :], corners[..., 3, :] - corners[..., 0, :]], axis=-2
    )
    return sides / np.maximum(np.linalg.norm(sides, axis=-1, keepdims=True), 1e-9)


class Placer:
    """Puts models into a room by the rules that recipes name; each rule returns the thing, or None."""

    def __init__(self, room: Room, rng: np.random.Generator, tries: int = 30):
        self.room, self.rng, self.tries = room, rng, tries

    def wall(self, name: str, model: Model, low: float = 0.0, high: float = 0.0) -> Thing | None:
        """Back to a wall; with heights, hung between them."""
        (x0, y0, _), (x1, _, _) = model.bounds
        for _ in range(self.tries):
            wall = int(self.rng.integers(4))
            span = self.room.length(wall) - (x1 - x0) - 0.04
            if span <= 0:
                continue
            s = 0.02 - x0 + span * _edgy(self.rng)
            at = self.room.on_wall(wall, s, 0.0 - y0, self.rng.uniform(low, high))
            if thing := self.room.put(Thing(name, model, YAWS[wall], at)):
                return thing
        return None

    def free(self, name: str, model: Model) -> Thing | None:
        """Anywhere on the floor, turned anyhow."""
        reach = 0.5 * float(np.linalg.norm(np.subtract(*model.bounds)[:2]))
        for _ in range(self.tries):
            x, y = (self.rng.uniform(min(reach, s / 2), max(s - reach, s / 2)) for s in self.room.size[:2])
            if thing := self.room.put(
                Thing(name, model, self.rng.uniform(0, 2 * np.pi), np.array([x, y, 0.0]))
            ):
                return thing
        return None

    def centre(self, name: str, model: Model) -> Thing | None:
        """In the middle of the room, along a wall's direction."""
        for _ in range(self.tries):
            at = np.array([s * (0.5 + self.rng.normal(0, 0.07)) for s in self.room.size[:2]] + [0.0])
            along = 0 if (self.room.size[0] > self.room.size[1]) == (self.rng.random() < 0.85) else 1
            if thing := self.room.put(Thing(name, model, YAWS[along], at)):
                return thing
        return None

    def ceiling(self, name: str, model: Model) -> Thing | None:
        top = self.room.size[2] - model.bounds[1][2]
        at = np.array([s * self.rng.uniform(0.3, 0.7) for s in self.room.size[:2]] + [top])
        return self.room.put(Thing(name, model, YAWS[int(self.rng.integers(2))], at))

    def around(self, name: str, model: Model, host: Thing) -> Thing | None:
        """At a side of a table, facing it, a little pushed under it."""
        low, high = host.model.bounds
        for _ in range(self.tries):
            side = int(self.rng.integers(4))
            half = (high - low)[[1, 0, 1, 0][side]] / 2
            run = max((high - low)[[0, 1, 0, 1][side]] / 2 - 0.3, 0.0)
            slide, gap = self.rng.uniform(-run, run), self.rng.uniform(-0.12, 0.15)
            outward = half + gap + model.bounds[1][1]
            x, y = turn(YAWS[side])[:2, :2] @ np.array([slide, outward])
            yaw = host.yaw + YAWS[side] + np.pi + self.rng.normal(0, 0.12)
            at = host.point(x, y)
            at[2] = 0.0
            if thing := self.room.put(Thing(name, model, yaw, at), host if gap < 0 else None):
                return thing
        return None

    def front(
        self, name: str, model: Model, host: Thing, low: float, high: float, towards: bool
    ) -> Thing | None:
        """Before a thing, `low`..`high` metres away; `towards` turns its front to the host."""
        for _ in range(self.tries):
            gap = self.rng.uniform(low, high)
            ahead = model.bounds[1][1] if towards else -model.bounds[0][1]
            slide = self.rng.normal(0, 0.1)
            at = host.point(slide, host.model.bounds[1][1] + gap + ahead)
            at[2] = 0.0
            yaw = host.yaw + (np.pi + self.rng.normal(0, 0.2) if towards else 0.0)
            if thing := self.room.put(Thing(name, model, yaw, at), host if gap < 0 else None):
                return thing
        return None

    def beside(self, name: str, model: Model, host: Thing) -> Thing | None:
        """Left or right of a thing, backs in line."""
        low, high = host.model.bounds
        for side in self.rng.permutation([-1, 1]):
            gap = self.rng.uniform(0.02, 0.1)
            x = high[0] + gap - model.bounds[0][0] if side > 0 else low[0] - gap - model.bounds[1][0]
            at = host.point(x, low[1] - model.bounds[0][1])
            at[2] = 0.0
            if thing := self.room.put(Thing(name, model, host.yaw, at)):
                return thing
        return None

    def on(self, name: str, model: Model, host: Thing, tops: tuple[Top, ...], loose: bool) -> Thing | None:
        """On one of the host's tops; `loose` things are turned a little, others stand at the back."""
        low, high = model.bounds
        for _ in range(self.tries):
            top = tops[int(self.rng.integers(len(tops)))]
            start, room = (
                np.array(top.low) - low[:2],
                np.array(top.high) - np.array(top.low) - (high - low)[:2],
            )
            if (room < 0).any() or high[2] > top.room:
                continue
            x, y = start + room * (
                self.rng.random(2) if loose else (self.rng.random(), 0.15 * self.rng.random())
            )
            yaw = host.yaw + (self.rng.normal(0, 0.25) if loose else self.rng.normal(0, 0.05))
            if thing := self.room.put(Thing(name, model, yaw, host.point(x, y, top.height)), host):
                return thing
        return None

    def near(self, name: str, model: Model, host: Thing, x: float, y: float) -> Thing | None:
        """At an offset from a thing, on the same level: the keyboard before the monitor."""
        x, y = x + self.rng.normal(0, 0.02), y + self.rng.normal(0, 0.015)
        return self.room.put(Thing(name, model, host.yaw + self.rng.normal(0, 0.06), host.point(x, y)))

    def above(self, name: str, model: Model, host: Thing, low: float, high: float) -> Thing | None:
        """Hung above a thing that stands at a wall, its back in line."""
        back = host.model.bounds[0][1] - model.bounds[0][1]
        at = host.point(self.rng.normal(0, 0.08), back)
        at[2] = self.rng.uniform(low, high)
        return self.room.put(Thing(name, model, host.yaw, at))

    def edge(self, name: str, model: Model, host: Thing) -> Thing | None:
        """Hanging along the front edge of a thing: a shower curtain at the tub."""
        at = host.point(self.rng.uniform(-0.35, 0.35), host.model.bounds[1][1] - model.bounds[0][1] + 0.02)
        at[2] = 0.0
        return self.room.put(Thing(name, model, host.yaw, at))


def _edgy(rng: np.random.Generator) -> float:
    """A share of a wall's length; every third is a corner."""
    kind = rng.integers(6)
    return float(kind) if kind < 2 else float(rng.random())
