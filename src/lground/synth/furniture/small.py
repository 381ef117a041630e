"""Small things on tops, floors and shelves."""

import numpy as np

from lground.synth import materials as m
from lground.synth.furniture.electronics import BLACK
from lground.synth.parts import Model, Part, Top, ball, box, lathe, post, ring, tub

Rng = np.random.Generator


def book(rng: Rng) -> Model:
    """One book, a pile, lying flat."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 5))):
        thick = rng.uniform(0.025, 0.05)
        parts.append(
            box(
                (rng.uniform(0.16, 0.22), rng.uniform(0.22, 0.28), thick),
                (0, 0, z),
                m.bright(rng),
                yaw=rng.normal(0, 0.15),
                backed=True,
            )
        )
        z += thick
    return Model(tuple(parts), (Top((-0.08, -0.1), (0.08, 0.1), z),))


def books(rng: Rng) -> Model:
    """A row of books on a shelf, spines to the front."""
    count, x, parts = int(rng.integers(3, 7)), 0.0, []
    for _ in range(count):
        thick = rng.uniform(0.05, 0.09)
        size = (thick - 0.003, rng.uniform(0.17, 0.22), rng.uniform(0.18, 0.26))
        parts.append((x + thick / 2, size))
        x += thick
    return Model(tuple(box(size, (at - x / 2, 0, 0), m.spines(rng)) for at, size in parts))


def paper(rng: Rng) -> Model:
    sheets = [
        box(
            (0.22, 0.3, 0.012),
            (*rng.normal(0, 0.03, 2), 0.004 * i),
            m.paper(rng),
            yaw=rng.normal(0, 0.3),
            backed=True,
        )
        for i in range(3)
    ]
    return Model(tuple(sheets))


def plant(rng: Rng) -> Model:
    return potted(rng, rng.uniform(0.35, 0.8))


def potted_plant(rng: Rng) -> Model:
    """A small one, for sills and desks."""
    return potted(rng, rng.uniform(0.2, 0.3))


def potted(rng: Rng, height: float) -> Model:
    pot, green = m.card(rng) if rng.random() < 0.5 else m.ceramic(rng), m.leaf(rng)
    radius = 0.26 * height
    parts: list[Part] = [lathe([(0, 0.7 * radius), (0.3 * height, radius)], (0, 0, 0), pot)]
    for yaw in np.arange(5) * 1.26 + rng.random():
        parts.append(
            ball(
                (0.05 + 0.05 * height, 0.03 + 0.03 * height, 0.38 * height),
                (0, 0, 0.28 * height),
                green,
                yaw=yaw,
                tilt=rng.uniform(0.25, 0.7),
            )
        )
    parts.append(
        ball(
            (0.2 * height, 0.2 * height, 0.22 * height),
            (0, 0, 0.35 * height),
            green,
            bumps=0.06 * height,
            phase=rng.uniform(0, 6),
        )
    )
    return Model(tuple(parts))


def backpack(rng: Rng) -> Model:
    cloth = m.fabric(rng)
    return Model(
        (
            box((0.3, 0.18, 0.42), (0, 0, 0), cloth, rounding=0.08),
            box((0.22, 0.1, 0.2), (0, 0.1, 0.04), cloth, rounding=0.04),
            ring(0.05, 0.014, (0, -0.04, 0.36), cloth, tilt=np.pi / 2),
        )
    )


def bag(rng: Rng) -> Model:
    cloth = m.fabric(rng)
    body = ball(
        (rng.uniform(0.16, 0.22), 0.12, rng.uniform(0.13, 0.17)),
        (0, 0, 0),
        cloth,
        bumps=0.02,
        phase=rng.uniform(0, 6),
    )
    return Model((body, ring(0.09, 0.014, (0, 0, 0.18), cloth, tilt=np.pi / 2)))


def purse(rng: Rng) -> Model:
    skin = m.bright(rng)
    return Model(
        (
            box((0.28, 0.12, 0.2), (0, 0, 0), skin, rounding=0.04),
            ring(0.08, 0.012, (0, 0, 0.14), skin, tilt=np.pi / 2),
        )
    )


def paper_bag(rng: Rng) -> Model:
    return Model(
        (
            lathe(
                [(0, 0.11), (0.3, 0.13)],
                (0, 0, 0),
                m.card(rng) if rng.random() < 0.6 else m.bright(rng),
                squash=0.6,
                wall=0.015,
            ),
        )
    )


def shoe(rng: Rng) -> Model:
    """A pair."""
    skin = m.fabric(rng)
    parts = []
    for x in (-0.07, 0.07):
        parts.append(ball((0.048, 0.14, 0.045), (x, 0, 0), skin))
        parts.append(ball((0.045, 0.065, 0.075), (x, -0.06, 0), skin))
    return Model(tuple(parts))


def ball_(rng: Rng) -> Model:
    radius = rng.choice([0.11, 0.12, 0.3])
    return Model((ball((radius,) * 3, (0, 0, 0), m.bright(rng)),))


def dumbbell(rng: Rng) -> Model:
    ends = [post(0.06, 0.08, (x, 0, 0.06), BLACK, roll=np.pi / 2) for x in (-0.14, 0.06)]
    return Model((*ends, post(0.016, 0.2, (-0.1, 0, 0.06), m.metal(rng), roll=np.pi / 2)))


def tissue_box(rng: Rng) -> Model:
    return Model(
        (
            box((0.24, 0.12, 0.09), (0, 0, 0), m.bright(rng)),
            ball((0.05, 0.03, 0.05), (0, 0, 0.06), m.paper(rng), bumps=0.01),
        )
    )


def hat(rng: Rng) -> Model:
    cloth = m.fabric(rng)
    return Model(
        (
            post(0.15, 0.02, (0, 0, 0), cloth, backed=True),
            lathe([(0, 0.095), (0.1, 0.08)], (0, 0, 0.01), cloth),
        )
    )


def stuffed_animal(rng: Rng) -> Model:
    fur = m.fabric(rng)
    limbs = [ball((0.04, 0.09, 0.04), (s * 0.08, 0.1, 0), fur) for s in (-1, 1)]
    ears = [ball((0.035, 0.02, 0.035), (s * 0.07, 0, 0.34), fur) for s in (-1, 1)]
    return Model(
        (
            ball((0.11, 0.1, 0.12), (0, 0, 0), fur),
            ball((0.09, 0.085, 0.08), (0, 0.01, 0.21), fur),
            *limbs,
            *ears,
        )
    )


def guitar(rng: Rng) -> Model:
    """Leaning on a wall."""
    wood, lean = m.wood(rng), 0.15
    bodies = [
        post(r, 0.09, (0, 0.06 - 0.15 * z, z), wood, tilt=np.pi / 2 + lean)
        for r, z in ((0.19, 0.2), (0.14, 0.43))
    ]
    return Model((*bodies, box((0.06, 0.035, 0.62), (0, -0.05, 0.5), m.wood(rng), tilt=lean)))


def ladder(rng: Rng) -> Model:
    """A step-ladder, open."""
    steel, height = m.metal(rng), rng.uniform(1.1, 1.6)
    rails = [box((0.05, 0.05, height), (s * 0.22, 0.3, 0), steel, tilt=0.25) for s in (-1, 1)]
    stays = [box((0.04, 0.04, height * 0.97), (s * 0.2, -0.3, 0), steel, tilt=-0.15) for s in (-1, 1)]
    steps = [
        box((0.42, 0.1, 0.035), (0, 0.3 - 0.25 * z, z), steel) for z in np.arange(0.25, height - 0.05, 0.26)
    ]
    return Model((*rails, *stays, *steps))


def ironing_board(rng: Rng) -> Model:
    steel = m.metal(rng)
    stays = [box((0.04, 0.04, 1.05), (s * 0.33, 0, 0), steel, roll=-0.65 * s) for s in (-1, 1)]
    return Model((box((1.25, 0.36, 0.045), (0, 0, 0.84), m.fabric(rng), rounding=0.02), *stays))


def vacuum_cleaner(rng: Rng) -> Model:
    shell = m.bright(rng)
    tube = box((0.04, 0.04, 1.0), (0, 0.1, 0.06), m.metal(rng), tilt=0.15)
    return Model(
        (
            box((0.3, 0.22, 0.09), (0, 0.12, 0), shell, rounding=0.03),
            lathe([(0, 0.1), (0.42, 0.08)], (0, 0.02, 0.1), shell),
            tube,
        )
    )


def broom(rng: Rng) -> Model:
    """Leaning on a wall."""
    return Model(
        (
            box((0.32, 0.07, 0.13), (0, 0.12, 0), m.bright(rng)),
            post(0.015, 1.25, (0, 0.11, 0.1), m.wood(rng), tilt=0.16),
        )
    )


def dustpan(rng: Rng) -> Model:
    return Model(
        (
            tub((0.24, 0.24, 0.06), 0.02, (0, 0, 0), m.bright(rng)),
            box((0.04, 0.18, 0.03), (0, 0.2, 0.03), BLACK),
        )
    )


def person(rng: Rng) -> Model:
    """Somebody sitting upright: trunk, head, thighs, shins."""
    shirt, trousers, skin = m.fabric(rng), m.fabric(rng), m.Material((0.78, 0.58, 0.46), (0.7, 0.5, 0.4))
    parts = [
        ball((0.21, 0.14, 0.3), (0, -0.05, 0.42), shirt),
        ball((0.09, 0.11, 0.13), (0, -0.03, 1.02), skin),
    ]
    for side in (-1, 1):
        parts.append(ball((0.08, 0.26, 0.085), (side * 0.1, 0.16, 0.4), trousers))
        parts.append(lathe([(0, 0.05), (0.44, 0.065)], (side * 0.1, 0.38, 0), trousers))
        parts.append(ball((0.055, 0.12, 0.25), (side * 0.23, 0.04, 0.55), shirt))
    parts.append(box((0.3, 0.3, 0.36), (0, -0.05, 0.06), m.wood(rng)))
    return Model(tuple(parts))


def bicycle(rng: Rng) -> Model:
    tyre, paint = BLACK, m.bright(rng)
    wheels = [ring(0.3, 0.022, (x, 0, 0.3), tyre, tilt=np.pi / 2) for x in (-0.5, 0.5)]
    bars = [
        box((0.75, 0.04, 0.04), (0.0, 0, 0.72), paint),
        box((0.04, 0.04, 0.62), (-0.12, 0, 0.28), paint, roll=-0.35),
        box((0.04, 0.04, 0.7), (0.5, 0, 0.3), paint, roll=-0.25),
        box((0.5, 0.04, 0.04), (-0.28, 0, 0.3), paint),
        box((0.05, 0.5, 0.04), (0.33, 0, 0.98), BLACK),
        box((0.24, 0.13, 0.06), (-0.35, 0, 0.85), BLACK, rounding=0.02),
    ]
    return Model((*wheels, *bars))


def object_(rng: Rng) -> Model:
    """Some thing nobody named: a few shapes put together."""
    parts, z = [], 0.0
    for _ in range(int(rng.integers(1, 4))):
        kind, size = rng.integers(3), rng.uniform(0.06, 0.16, 3)
        material = m.plastic(rng)
        if kind == 0:
            parts.append(box(tuple(2 * size), (0, 0, z), material, yaw=rng.uniform(0, 3)))
        elif kind == 1:
            parts.append(post(float(size[0]), float(2 * size[2]), (0, 0, z), material))
        else:
            parts.append(ball(tuple(size), (0, 0, z), material, bumps=0.01))
        z += 1.6 * size[2]
    return Model(tuple(parts))


def decoration(rng: Rng) -> Model:
    """A vase or a figure."""
    h, r = rng.uniform(0.2, 0.4), rng.uniform(0.06, 0.1)
    return Model(
        (lathe([(0, 0.6 * r), (0.35 * h, r), (0.75 * h, 0.45 * r), (h, 0.6 * r)], (0, 0, 0), m.bright(rng)),)
    )


def case_of_water_bottles(rng: Rng) -> Model:
    """A shrink-wrapped case of bottles."""
    clear = m.glass(rng)
    tops = [post(0.02, 0.03, (x, y, 0.19), m.bright(rng)) for x in (-0.14, 0, 0.14) for y in (-0.08, 0.08)]
    return Model((box((0.4, 0.26, 0.2), (0, 0, 0), clear, rounding=0.03), *tops))


def music_stand(rng: Rng) -> Model:
    height = rng.uniform(0.9, 1.2)
    feet = [
        box((0.3, 0.03, 0.03), (0.12 * np.cos(a), 0.12 * np.sin(a), 0.04), BLACK, yaw=a)
        for a in (0.5, 2.6, 4.7)
    ]
    return Model(
        (
            *feet,
            post(0.014, height, (0, 0, 0.03), BLACK),
            box((0.48, 0.03, 0.32), (0, 0.02, height - 0.05), BLACK, tilt=0.35),
        )
    )
