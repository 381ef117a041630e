"""One function per kind of thing: a random generator in, a `Model` out.

`KINDS` names them; most kinds are ScanNet200 classes, `CLASS_OF` gives the class of those that are not.
"""

from collections.abc import Callable

import numpy as np

from lground.synth.furniture import (
    bath,
    beds,
    electronics,
    hung,
    kitchen,
    lamps,
    seats,
    small,
    storage,
    tables,
)
from lground.synth.parts import Model

_FAMILIES = {
    seats: "chair, office chair, armchair, stool, folded chair, couch, sofa chair, ottoman, bench, seat, "
    "cushion",
    tables: "table, dining table, coffee table, end table, desk, nightstand, dresser, tv stand, counter",
    storage: "cabinet, wardrobe, file cabinet, bookshelf, shelf, rack, storage organizer, box, trash can, "
    "trash bin, recycling bin, bin, bucket, basket, laundry basket, laundry hamper, crate, "
    "storage bin, container, suitcase, cart",
    beds: "bed, mattress, pillow, blanket, clothes, mat",
    lamps: "lamp, floor lamp, ceiling light, light, fan, candle",
    electronics: "monitor, tv, laptop, keyboard, mouse, computer tower, printer, copier, telephone, speaker, "
    "projector, power strip, headphones, alarm clock, piano, keyboard piano",
    kitchen: "kitchen cabinet, wall cabinet, kitchen counter, sink, refrigerator, mini fridge, washing "
    "machine, clothes dryer, dishwasher, oven, stove, range hood, microwave, toaster oven, "
    "toaster, coffee maker, coffee kettle, plate, bowl, cup, bottle, water bottle, water pitcher, "
    "dish rack, tray, paper towel roll, water cooler",
    bath: "toilet, bathtub, wall sink, bathroom vanity, bathroom counter, inset sink, bathroom cabinet, "
    "shower curtain, shower curtain rod, shower head, towel, folded towel, toilet paper, toilet "
    "paper dispenser, paper towel dispenser, soap dispenser, soap dish, plunger, scale, handicap "
    "bar",
    hung: "picture, mirror, whiteboard, blackboard, bulletin board, board, poster, calendar, sign, "
    "clock, projector screen, light switch, power outlet, fire alarm, fire extinguisher, vent, "
    "radiator, curtain, blinds, coat rack, jacket, pipe, mailbox",
    small: "book, books, paper, plant, potted plant, backpack, bag, purse, paper bag, shoe, ball, "
    "dumbbell, tissue box, hat, stuffed animal, guitar, ladder, ironing board, vacuum cleaner, "
    "broom, dustpan, person, bicycle, object, decoration, case of water bottles, music stand",
}


def _function(family, kind: str) -> Callable[[np.random.Generator], Model]:
    name = kind.replace(" ", "_")
    return getattr(family, f"{name}_", None) or getattr(family, name)  # box_ makes boxes, box is a part


KINDS: dict[str, Callable[[np.random.Generator], Model]] = {
    kind: _function(family, kind) for family, kinds in _FAMILIES.items() for kind in kinds.split(", ")
}
CLASS_OF = {
    "floor lamp": "lamp",
    "wall cabinet": "kitchen cabinet",
    "wall sink": "sink",
    "inset sink": "sink",
    "folded towel": "towel",
    "books": "book",
}
