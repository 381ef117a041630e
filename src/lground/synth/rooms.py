"""Furnished rooms: a recipe from `rooms.yaml`, tried row by row.

The last word of a row says where its things go; HOST is one or several kinds separated by commas:

    wall              back to a wall            hung LOW HIGH          on a wall, bottom between two heights
    free              anywhere on the floor     above HOST LOW HIGH    on the wall above a thing
    centre            middle of the room        on HOST [N]            on a top of a thing (only its N-th top)
    ceiling           below the ceiling         near HOST X Y          at an offset on the same level
    around HOST       at its sides, facing it   front HOST LOW HIGH    before it, LOW..HIGH metres away
    beside HOST       left or right of it       edge HOST              along its front edge
    column            a pier, floor to ceiling
"""

from functools import cache
from importlib.resources import files

import numpy as np
import yaml

from lground.synth import materials as m
from lground.synth import structure
from lground.synth.furniture import CLASS_OF, KINDS, kitchen
from lground.synth.layout import YAWS, Placer, Room, Thing
from lground.synth.parts import Model, box

SIZES = ("small", "normal")
FACING = ("chair", "office chair")  # these look at what they stand before
BACK_OF_TOP = ("monitor", "tv", "books", "microwave", "lamp", "inset sink", "printer")


@cache
def recipes() -> dict[str, dict]:
    """Room type -> recipe, as in `rooms.yaml`."""
    return yaml.safe_load((files("lground.synth") / "rooms.yaml").read_text(encoding="utf-8"))


def room_type(seed: int, index: int) -> str:
    """The type of room `index`: each block of rooms has every type in its share, in shuffled order."""
    names = [name for name, recipe in recipes().items() for _ in range(recipe["share"])]
    block = np.random.default_rng([seed, 1, index // len(names)])
    return names[block.permutation(len(names))[index % len(names)]]


def furnish(rng: np.random.Generator, kind: str, size: str) -> Room:
    """A room of type `kind`; `size` is "small" (3 to 4 m a side at most) or "normal"."""
    recipe = recipes()[kind]
    low, high = np.array(recipe["size"]).T
    if size == "small":
        low, high = np.minimum(low, 3.0), np.minimum(high, 4.0)
    sides = rng.permutation(rng.uniform(low, high))
    room = Room((float(sides[0]), float(sides[1]), float(rng.uniform(2.35, 2.75))))
    structure.build(room, rng, tuple(recipe["windows"]), recipe.get("walls", "paint"))
    if recipe.get("run") == "kitchen":
        _kitchen_run(room, rng)
    for row in recipe["things"]:
        _row(room, rng, *row)
    return room


def _row(room: Room, rng: np.random.Generator, kind: str, chance: float, count: str, where: str) -> None:
    least, most = (int(n) for n in count.split("-"))
    space = min(room.size[0] * room.size[1] / 12.0, 1.5)  # a large room holds more than a small one
    if rng.random() >= chance * max(space, 1.0):
        return
    wanted = least + rng.binomial(most - least, 0.5 * space)
    hosts = _hosts(room, where)
    for i in range(wanted):
        _place(room, rng, kind, where.split(), hosts[i % len(hosts)] if hosts else None)


def _hosts(room: Room, where: str) -> list[Thing]:
    """The things a rule names; kinds that share a class are not told apart."""
    words = where.split(maxsplit=1)
    if len(words) < 2:
        return []
    names = [n.strip().rstrip("-.0123456789 ") for n in words[1].split(",")]
    return [t for t in room.things if t.name in [CLASS_OF.get(n, n) for n in names]]


def _place(
    room: Room, rng: np.random.Generator, kind: str, where: list[str], host: Thing | None
) -> Thing | None:
    rule, place, numbers = where[0], Placer(room, rng), _numbers(where)
    if rule == "column":
        return structure.column(room, rng)
    name, model = CLASS_OF.get(kind, kind), KINDS[kind](rng)
    if rule in ("wall", "free", "centre", "ceiling"):
        return getattr(place, rule)(name, model)
    if rule == "hung":
        return place.wall(name, model, *numbers)
    if host is None:
        return None
    if rule == "front":
        return place.front(name, model, host, *numbers, towards=kind in FACING)
    if rule == "on":
        tops = host.model.tops[int(numbers[0]) :][:1] if numbers else host.model.tops
        return place.on(name, model, host, tops, loose=kind not in BACK_OF_TOP) if tops else None
    return getattr(place, rule)(name, model, host, *numbers)


def _numbers(words: list[str]) -> list[float]:
    found = []
    for word in words:
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def _kitchen_run(room: Room, rng: np.random.Generator) -> None:
    """A worktop along a wall with a sink, a stove beside it, units and machines below, units above."""
    for wall in rng.permutation(4):
        length = min(room.length(wall) - 0.1, rng.uniform(2.2, 3.4))
        start = rng.uniform(0.03, max(room.length(wall) - length, 0.04))
        probe = Thing(
            "",
            Model((box((length, 0.66, 1.0), (0, 0, 0), m.paper(rng)),)),
            YAWS[wall],
            room.on_wall(wall, start + length / 2, 0.34),
        )
        if room.fits(probe):
            _fill_run(room, rng, int(wall), start, length)
            return


def _fill_run(room: Room, rng: np.random.Generator, wall: int, start: float, length: float) -> None:
    def stand(name: str, model: Model, s: float, z: float = 0.0, back: float = 0.02) -> None:
        room.put(Thing(name, model, YAWS[wall], room.on_wall(wall, s, back - model.bounds[0][1], z)))

    stove_first = rng.random() < 0.5
    gap = 0.64
    stove_at = start + (gap / 2 if stove_first else length - gap / 2)
    stand("stove", kitchen.stove(rng), stove_at)
    if rng.random() < 0.4:
        stand("range hood", kitchen.range_hood(rng), stove_at, z=1.55)
    low, high = (start + gap, start + length) if stove_first else (start, start + length - gap)
    face, top = m.board(rng), m.board(rng)
    sink_at = rng.uniform(low + 0.4, max(high - 0.4, low + 0.41))
    _worktop(room, rng, wall, low, high, sink_at, top)
    s, machine = (
        low,
        str(rng.choice(["dishwasher", "oven", "washing machine", "none"], p=[0.25, 0.1, 0.05, 0.6])),
    )
    while high - s > 0.3:
        width = min(high - s, 0.6 if machine != "none" else rng.uniform(0.45, 0.8))
        if machine != "none" and abs(s + 0.3 - sink_at) > 0.55:
            stand(machine, KINDS[machine](rng), s + width / 2)
            machine = "none"
        else:
            stand("kitchen cabinet", kitchen.base_unit(rng, width - 0.01, face), s + width / 2)
        s += width
    s = low
    while high - s > 0.5 and rng.random() < 0.85:
        width = min(high - s, rng.uniform(0.6, 1.0))
        stand("kitchen cabinet", kitchen.wall_unit(rng, width - 0.01, face), s + width / 2, z=1.45)
        s += width


def _worktop(
    room: Room, rng: np.random.Generator, wall: int, low: float, high: float, sink_at: float, top: m.Material
) -> None:
    """The counter with an opening for the sink; the sink hangs in it."""
    sink, middle = kitchen.sink(rng), (low + high) / 2
    model = kitchen.worktop(high - low, sink_at - middle, sink, top)
    at = room.on_wall(wall, middle, 0.02 - model.bounds[0][1], 0.86)
    counter = room.add(Thing("kitchen counter", model, YAWS[wall], at))
    x = sink_at - middle
    rim = 0.93 - kitchen.BASIN
    room.put(Thing("sink", sink, YAWS[wall], counter.point(x, 0.02, rim - 0.86)), counter)
