"""Kitchens: a counter over fronts, white or steel machines, and what stands on the counter."""

from itertools import pairwise

import numpy as np

from lground.synth import materials as m
from lground.synth.furniture.electronics import BLACK
from lground.synth.furniture.storage import _doors
from lground.synth.parts import Model, Top, ball, box, lathe, part, post, tub
from lground.synth.shapes import Tub

Rng = np.random.Generator


def _machine(rng: Rng) -> m.Material:
    return (
        m.ceramic(rng)
        if rng.random() < 0.5
        else m.Material((0.6, 0.61, 0.62), (0.7, 0.7, 0.71), "grain", 0.4)
    )


BASIN = 0.18  # depth of a kitchen sink, metres


def base_unit(rng: Rng, width: float, face: m.Material) -> Model:
    """A base unit that ends under the worktop."""
    return _unit(rng, width, 0.6, 0.67, 0.85, face)


def wall_unit(rng: Rng, width: float, face: m.Material) -> Model:
    """The same fronts, shallower, above the worktop."""
    return _unit(rng, width, 0.34, 0.65, 0.65, face)


def kitchen_cabinet(rng: Rng) -> Model:
    return base_unit(rng, rng.uniform(0.5, 1.0), m.board(rng))


def wall_cabinet(rng: Rng) -> Model:
    return wall_unit(rng, rng.uniform(0.6, 1.2), m.board(rng))


def _unit(rng: Rng, width: float, depth: float, body: float, height: float, face: m.Material) -> Model:
    """A body (lower than the front where a sink hangs in) behind door leaves."""
    parts = [
        box((width, depth - 0.06, body), (0, -0.03, 0), face),
        box((width, 0.05, height), (0, depth / 2 - 0.05, 0), face),
    ]
    return Model(
        (*parts, *_doors(width, depth, 0.08, height, max(1, round(width / 0.45)), face, m.metal(rng)))
    )


def kitchen_counter(rng: Rng) -> Model:
    """A worktop on panels, without a sink."""
    width, stone = rng.uniform(1.4, 2.2), m.board(rng)
    legs = [box((0.05, 0.56, 0.86), (s * (width / 2 - 0.05), 0, 0), stone) for s in (-1, 1)]
    return Model(
        (*legs, box((width, 0.63, 0.05), (0, 0, 0.86), stone)),
        (Top((-width / 2, -0.26), (width / 2, 0.3), 0.91, 0.4),),
    )


def worktop(width: float, x: float, sink: Model, stone: m.Material) -> Model:
    """A board 5 cm thick with a splashback and an opening at `x` for a sink; its underside is z = 0."""
    (x0, y0, _), (x1, y1, _) = sink.bounds
    left, right, near, far = x + x0 + 0.03, x + x1 - 0.03, y0 + 0.06, y1 - 0.01
    half, thick = width / 2, 0.05
    boards = [
        box((left + half, 0.63, thick), ((left - half) / 2, 0, 0), stone),
        box((half - right, 0.63, thick), ((right + half) / 2, 0, 0), stone),
        box((right - left, near + 0.315, thick), ((left + right) / 2, (near - 0.315) / 2, 0), stone),
        box((right - left, 0.315 - far, thick), ((left + right) / 2, (far + 0.315) / 2, 0), stone),
        box((width, 0.025, 0.12), (0, -0.3, thick), stone, backed=True),
    ]
    sides = [
        Top((-half, -0.26), (left - 0.03, 0.3), thick, 0.45),
        Top((right + 0.03, -0.26), (half, 0.3), thick, 0.45),
    ]
    return Model(tuple(boards), tuple(t for t in sides if t.high[0] - t.low[0] > 0.25))


def sink(rng: Rng) -> Model:
    """A basin to hang into a worktop, with a tap behind it."""
    steel = _machine(rng)
    width, depth = rng.uniform(0.45, 0.6), rng.uniform(0.38, 0.44)
    basin = part(Tub((width / 2, depth / 2, BASIN / 2), 0.03, 0.03), (0, 0, 0), steel)
    tap = [
        post(0.018, 0.2, (0, -depth / 2 + 0.01, BASIN - 0.02), steel),
        box((0.035, 0.16, 0.03), (0, -depth / 2 + 0.08, BASIN + 0.17), steel),
    ]
    return Model((basin, *tap))


def refrigerator(rng: Rng) -> Model:
    width, height, skin = rng.uniform(0.6, 0.85), rng.uniform(1.55, 1.85), _machine(rng)
    return _fridge(rng, width, 0.65, height, skin, split=0.68)


def mini_fridge(rng: Rng) -> Model:
    return _fridge(
        rng,
        rng.uniform(0.45, 0.52),
        0.5,
        rng.uniform(0.6, 0.88),
        _machine(rng) if rng.random() < 0.6 else BLACK,
        split=1.0,
    )


def _fridge(rng: Rng, width: float, depth: float, height: float, skin: m.Material, split: float) -> Model:
    parts = [box((width, depth - 0.06, height), (0, -0.03, 0), skin)]
    edges = [0.04, split * height, height] if split < 1 else [0.04, height]
    for low, high in pairwise(edges):
        parts.append(box((width, 0.06, high - low - 0.02), (0, depth / 2 - 0.02, low), skin, rounding=0.015))
        parts.append(
            box(
                (0.025, 0.04, 0.3 * (high - low)),
                (width / 2 - 0.06, depth / 2 + 0.02, low + 0.5 * (high - low)),
                m.metal(rng),
                backed=True,
            )
        )
    return Model(tuple(parts), (Top((-width / 2, -depth / 2), (width / 2, depth / 2), height),))


def _front_loader(rng: Rng, door: str) -> Model:
    skin = _machine(rng)
    parts = [
        box((0.6, 0.58, 0.85), (0, -0.02, 0), skin),
        box((0.56, 0.03, 0.1), (0, 0.27, 0.73), m.metal(rng), backed=True),
    ]
    if door == "round":
        parts.append(lathe([(0, 0.2), (0.03, 0.16)], (0, 0.26, 0.4), BLACK, tilt=-np.pi / 2))
    else:
        parts.append(box((0.54, 0.03, 0.6), (0, 0.27, 0.1), skin, backed=True))
        parts.append(box((0.45, 0.04, 0.025), (0, 0.29, 0.66), m.metal(rng), backed=True))
    return Model(tuple(parts), (Top((-0.28, -0.26), (0.28, 0.24), 0.85),))


def washing_machine(rng: Rng) -> Model:
    return _front_loader(rng, "round")


def clothes_dryer(rng: Rng) -> Model:
    dryer = _front_loader(rng, "round")
    return Model((*dryer.parts, box((0.6, 0.1, 0.16), (0, -0.24, 0.85), dryer.parts[0].material)), dryer.tops)


def dishwasher(rng: Rng) -> Model:
    return _front_loader(rng, "flap")


def oven(rng: Rng) -> Model:
    skin = _machine(rng)
    return Model(
        (
            box((0.6, 0.56, 0.6), (0, 0, 0), skin),
            box((0.5, 0.03, 0.38), (0, 0.28, 0.08), BLACK, backed=True),
            box((0.48, 0.05, 0.03), (0, 0.3, 0.5), m.metal(rng), backed=True),
        )
    )


def stove(rng: Rng) -> Model:
    """An oven under four burners, with a back panel."""
    skin = _machine(rng)
    parts = [
        box((0.62, 0.6, 0.9), (0, 0, 0), skin),
        box((0.5, 0.03, 0.42), (0, 0.3, 0.3), BLACK, backed=True),
    ]
    parts += [
        box((0.5, 0.05, 0.03), (0, 0.32, 0.74), m.metal(rng), backed=True),
        box((0.62, 0.06, 0.16), (0, -0.27, 0.9), skin),
    ]
    parts += [
        post(0.09, 0.02, (sx * 0.15, 0.02 + sy * 0.13, 0.9), BLACK, backed=True)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return Model(tuple(parts), (Top((-0.28, -0.2), (0.28, 0.26), 0.92, room=0.5),))


def range_hood(rng: Rng) -> Model:
    steel = _machine(rng)
    return Model(
        (
            lathe([(0, 0.31), (0.16, 0.14)], (0, 0, 0), steel, squash=0.75),
            box((0.24, 0.24, 0.6), (0, -0.08, 0.12), steel),
        )
    )


def microwave(rng: Rng) -> Model:
    skin = _machine(rng)
    w, h = rng.uniform(0.45, 0.52), rng.uniform(0.26, 0.3)
    return Model(
        (
            box((w, 0.36, h), (0, 0, 0), skin),
            box((0.66 * w, 0.02, h - 0.06), (-0.12 * w, 0.18, 0.03), BLACK, backed=True),
        ),
        (Top((-w / 2, -0.15), (w / 2, 0.15), h, 0.3),),
    )


def toaster_oven(rng: Rng) -> Model:
    return Model(
        (
            box((0.4, 0.3, 0.22), (0, 0, 0.01), _machine(rng)),
            box((0.26, 0.02, 0.15), (-0.05, 0.15, 0.05), BLACK, backed=True),
        )
    )


def toaster(rng: Rng) -> Model:
    return Model(
        (
            box((0.28, 0.17, 0.19), (0, 0, 0), _machine(rng), rounding=0.04),
            box((0.2, 0.05, 0.015), (0, 0, 0.182), BLACK, backed=True),
        )
    )


def coffee_maker(rng: Rng) -> Model:
    skin = BLACK if rng.random() < 0.6 else _machine(rng)
    pot = lathe([(0, 0.065), (0.08, 0.07), (0.13, 0.045)], (0, 0.05, 0.04), m.glass(rng))
    return Model(
        (
            box((0.2, 0.26, 0.04), (0, 0, 0), skin),
            box((0.2, 0.1, 0.34), (0, -0.08, 0), skin),
            box((0.2, 0.24, 0.1), (0, 0, 0.26), skin),
            pot,
        )
    )


def coffee_kettle(rng: Rng) -> Model:
    steel = _machine(rng)
    return Model(
        (
            lathe([(0, 0.09), (0.08, 0.09), (0.19, 0.05)], (0, 0, 0), steel),
            ball((0.03, 0.03, 0.03), (0, 0, 0.18), BLACK),
            box((0.03, 0.1, 0.03), (0, 0.12, 0.13), steel, tilt=0.4),
        )
    )


def plate(rng: Rng) -> Model:
    return Model(
        (lathe([(0, 0.07), (0.03, rng.uniform(0.11, 0.14))], (0, 0, 0), m.ceramic(rng), backed=True),)
    )


def bowl(rng: Rng) -> Model:
    radius = rng.uniform(0.09, 0.14)
    return Model(
        (
            lathe(
                [(0, 0.5 * radius), (0.04, 0.85 * radius), (0.09, radius)],
                (0, 0, 0),
                m.ceramic(rng) if rng.random() < 0.5 else m.bright(rng),
                wall=0.012,
            ),
        )
    )


def cup(rng: Rng) -> Model:
    mug = m.ceramic(rng) if rng.random() < 0.5 else m.bright(rng)
    return Model(
        (
            lathe([(0, 0.036), (rng.uniform(0.09, 0.12), 0.042)], (0, 0, 0), mug, wall=0.01),
            box((0.03, 0.02, 0.06), (0.05, 0, 0.02), mug),
        )
    )


def bottle(rng: Rng) -> Model:
    height, radius = rng.uniform(0.2, 0.32), rng.uniform(0.032, 0.042)
    return Model(
        (
            lathe(
                [(0, radius), (0.6 * height, radius), (0.75 * height, 0.4 * radius), (height, 0.38 * radius)],
                (0, 0, 0),
                m.bright(rng),
            ),
        )
    )


def water_bottle(rng: Rng) -> Model:
    return Model(
        (
            lathe([(0, 0.036), (0.2, 0.036)], (0, 0, 0), m.glass(rng)),
            post(0.03, 0.04, (0, 0, 0.2), m.bright(rng)),
        )
    )


def water_pitcher(rng: Rng) -> Model:
    glass = m.glass(rng)
    return Model(
        (
            lathe([(0, 0.07), (0.24, 0.08)], (0, 0, 0), glass, wall=0.015),
            box((0.03, 0.03, 0.16), (0.11, 0, 0.04), glass),
            box((0.06, 0.03, 0.03), (0.09, 0, 0.18), glass),
        )
    )


def dish_rack(rng: Rng) -> Model:
    steel = m.metal(rng)
    plates = [post(0.1, 0.018, (x, 0.0, 0.13), m.ceramic(rng), roll=np.pi / 2) for x in (-0.12, -0.05, 0.02)]
    return Model((tub((0.42, 0.32, 0.09), 0.02, (0, 0, 0), steel), *plates))


def tray(rng: Rng) -> Model:
    return Model(
        (tub((0.4, 0.28, 0.045), 0.02, (0, 0, 0), m.wood(rng), backed=True),),
        (Top((-0.17, -0.11), (0.17, 0.11), 0.02),),
    )


def paper_towel_roll(rng: Rng) -> Model:
    return Model(
        (
            post(0.06, 0.26, (0, 0, 0.01), m.paper(rng)),
            post(0.075, 0.015, (0, 0, 0), m.metal(rng)),
            post(0.012, 0.3, (0, 0, 0), m.metal(rng)),
        )
    )


def water_cooler(rng: Rng) -> Model:
    white, jug = m.ceramic(rng), m.Material((0.5, 0.68, 0.85), (0.62, 0.78, 0.9), "mottled", 0.2, clear=0.1)
    return Model(
        (
            box((0.32, 0.32, 0.98), (0, 0, 0), white),
            lathe([(0, 0.06), (0.06, 0.13), (0.38, 0.13)], (0, 0, 0.97), jug),
            box((0.2, 0.04, 0.08), (0, 0.17, 0.7), BLACK),
        )
    )
