"""Rare objects set into a furnished room: standing on something, meeting nothing, the same for the same seed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import grey_closing, maximum_filter

from lground.data import Paste, Sample, SceneDataset, objects, voxelize_sample
from lground.data.pasting import CARRIED, HIGHEST, LEVEL, SCALE, Ground, Pasting, closed, object_boxes
from lground.errors import InputError
from lground.labels import load_labels
from lground.scannet import build_bank

LABELS = load_labels("scannet200")
TAIL = LABELS.splits["tail"][:2]
FLOOR, WALL, CEILING, TABLE = (LABELS.names.index(name) for name in ("floor", "wall", "ceiling", "table"))


def sheet(low, high, step: float = 0.025) -> np.ndarray:
    """Points (N, 3) float32 of an axis-aligned rectangle or of the faces' grid of a box."""
    axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


PARTS = [  # of a room 3 m by 2 m: class, instance, points
    (FLOOR, 0, sheet((0, 0, 0), (3, 2, 0))),
    (WALL, 1, sheet((0, 0, 0), (0, 2, 2.4))),
    (CEILING, 2, sheet((0, 0, 2.4), (3, 2, 2.4))),
    (TABLE, 3, sheet((1, 0.5, 0.7), (2, 1.2, 0.75))),
    (TAIL[0], 4, sheet((0.3, 0.3, 0), (0.4, 0.4, 0.2))),
    (TAIL[1], 5, sheet((2.5, 1.5, 0), (2.8, 1.7, 0.1))),
]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A store of two such rooms, with its bank."""
    root = tmp_path_factory.mktemp("furnished")
    points = np.concatenate([part for *_, part in PARTS])
    label, instance = (
        np.repeat([part[k] for part in PARTS], [len(part[2]) for part in PARTS]) for k in (0, 1)
    )
    for name in ("scene0000_00", "scene0001_00"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        arrays = {"coord": points, "color": np.full(points.shape, 90, np.uint8)}
        arrays |= {"segment200": label.astype(np.int16), "instance": instance.astype(np.int32)}
        for key, array in arrays.items():
            np.save(folder / f"{key}.npy", array)
        np.save(folder / "annotated.scene-20.npy", (label != TAIL[0]) & (np.arange(len(label)) % 7 == 0))
        (folder / "scene.json").write_text(json.dumps({"name": name}))
    build_bank(root, workers=1)
    return root


def pasting_of(store, count: int = 5, **options) -> tuple[Pasting, Sample]:
    dataset = SceneDataset(store, "train", paste=Paste(count=count), **options)
    return dataset.transforms.points[0], dataset._sample(0)


def added(pasting: Pasting, room: Sample, seed: int) -> tuple[Sample, list[np.ndarray]]:
    """The new scene, and the rows of each object that was set into it."""
    result = pasting(room, np.random.default_rng(seed))
    numbers = range(room.instances.max() + 1, result.instances.max() + 1)
    return result, [np.flatnonzero(result.instances == number) for number in numbers]


@pytest.mark.parametrize("voxel_size", [0.02, 0.05, 0.1])
def test_objects_stand_on_what_is_there_and_meet_nothing(furnished, voxel_size):
    """Of every object: its box meets no other; what lies below it, of the room alone, carries it."""
    pasting, room = pasting_of(furnished, voxel_size=voxel_size)
    old = object_boxes(room, pasting.background)
    tops = [
        (p[:, :2].min(0), p[:, :2].max(0), p[:, 2].max())
        for kind, _, p in PARTS
        if kind not in (WALL, CEILING)
    ]
    grounds, count = [], 0
    for seed in range(15):
        result, things = added(pasting, room, seed)
        assert np.array_equal(result.points[: len(room.points)], room.points)
        boxes = list(old)
        for rows in things:
            points = result.points[rows]
            low, high = points.min(axis=0), points.max(axis=0)
            for box in boxes:
                assert not ((low < box[1] - 1e-6) & (high > box[0] + 1e-6)).all()
            boxes.append(np.stack([low, high]))
            footprint = np.unique(np.floor(points[:, :2] / 0.01), axis=0) * 0.01 + 0.005
            carried = np.zeros(len(footprint), dtype=bool)
            for least, most, top in tops:  # edges are as fine as the cells
                over = ((footprint >= least - voxel_size) & (footprint <= most + voxel_size)).all(axis=1)
                carried |= over & (low[2] - LEVEL - 1e-5 <= top) & (top <= low[2] + 1e-5)
            assert carried.mean() >= CARRIED - 0.05
            under = [top for least, most, top in tops if ((low[:2] < most) & (high[:2] > least)).all()]
            assert low[2] == pytest.approx(
                max(top for top in under if top <= low[2] + 0.01), abs=voxel_size + 1e-5
            )
            assert high[2] <= 2.4
            grounds.append(round(float(low[2]), 2))
        count += len(things)
    assert count > 70  # of 75: there is room for all, under the ceiling too
    assert {0.0, 0.75} <= set(grounds) <= {0.0, 0.1, 0.2, 0.75}  # floor, objects, table; no ceiling or wall


@given(
    arrays(
        np.float32, array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from([-np.inf, 0, 1, 1.03, 2])
    )
)
def test_gaps_are_closed_as_scipy_closes_them(heights):
    """But where one of 5 x 5 cells is higher than what the gap would be filled to."""
    wide = np.pad(heights, 2, constant_values=-np.inf)
    filled, highest = (array[2:-2, 2:-2] for array in (grey_closing(wide, 3), maximum_filter(wide, 5)))
    assert np.array_equal(closed(heights), np.where(highest <= filled + np.float32(LEVEL), filled, heights))


@pytest.mark.parametrize(("beside", "carries"), [(0.2, True), (0.75, False), (1.9, False)])
def test_a_narrow_gap_carries_only_between_things_of_one_height(beside, carries):
    """Ten centimetres of floor between a box and another box, a table, or a wardrobe; cells of as much."""
    step = 0.05
    floor, box = sheet((0, 0, 0), (2, 2, 0), step), sheet((1.05, 0, 0.2), (2, 2, 0.2), step)
    ground = Ground.of(np.concatenate([floor, box, sheet((0, 0, beside), (0.9, 2, beside), step)]), 0.1)
    thing = sheet((0, 0, 0), (0.18, 0.18, 0.1), 0.02)
    first = np.array([[9, 5]])  # one column of cells over the gap, one over the box
    cells = np.add.outer([0, ground.heights.shape[1]], [0, 1]).ravel()
    corners = ground._free(first, cells, np.arange(4), thing.max(axis=0), np.empty((0, 2, 3), np.float32))
    assert len(corners) == carries and (not carries or corners[0, 2] == np.float32(0.2))


@settings(max_examples=60, deadline=None)
@given(
    cell=st.sampled_from([0.02, 0.05, 0.1]),
    spacing=st.floats(0.5, 1.0),
    size=st.floats(0.04, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_nothing_hangs_over_the_edge_of_a_table(cell, spacing, size, seed):
    """Wherever a thing is tried around a table above a floor, most of it is above what it stands on."""
    rng = np.random.default_rng(seed)
    corner, end = rng.uniform(0.8, 1.0, 2), rng.uniform(1.6, 2.0, 2)
    table = sheet((*corner, 0.7), (*end, 0.7), spacing * cell)
    ground = Ground.of(np.concatenate([sheet((0, 0, 0), (3, 3, 0), spacing * cell), table]), cell)
    thing = sheet((0, 0, 0), (size, size / 2, 0.1), 0.01)
    low, high = table[:, :2].min(axis=0), table[:, :2].max(axis=0)
    free = int((1 - CARRIED) * np.prod(np.floor(thing.max(axis=0)[:2] / np.float32(cell)) + 1))  # cells of it
    share = free * cell**2 / np.prod(np.ptp(thing[:, :2], axis=0) + 0.01)
    boxes = np.array([[[*low, 0.69], [*high, 0.7]]], np.float32)
    for _ in range(40):
        place = ground.find_place(thing, thing.max(axis=0), boxes, 50, rng)
        assert place is not None and place[2] in (0, np.float32(0.7))
        points = (thing + place)[:, :2]
        over = ((points >= low - cell) & (points <= high + cell)).all(axis=1).mean()
        inside = ((points > low + cell) & (points < high - cell)).all(axis=1).mean()
        assert over >= 1 - share - 1e-6 if place[2] else inside == 0


def test_a_thing_keeps_its_shape_class_and_colour(furnished):
    """Turned about z and scaled alike along all axes; both classes are drawn."""
    pasting, room = pasting_of(furnished)
    seen = set()
    for seed in range(10):
        result, things = added(pasting, room, seed)
        for rows in things:
            (label,) = np.unique(result.labels[rows])
            source = next(part for kind, _, part in PARTS if kind == label)
            points = result.points[rows]
            scale = np.ptp(points[:, 2]) / np.ptp(source[:, 2])
            assert SCALE[0] - 1e-3 <= scale <= SCALE[1] + 1e-3
            spread = [np.linalg.norm(p - p.mean(axis=0), axis=1) for p in (points, source)]
            assert np.allclose(spread[0], scale * spread[1], atol=1e-3)
            assert (result.colors[rows] == 90).all()
            seen.add(int(label))
    assert seen == set(map(int, TAIL))


def test_without_a_place_it_is_given_up(furnished):
    """No floor, no table: walls and a ceiling carry nothing."""
    pasting, room = pasting_of(furnished)
    kept = np.isin(room.labels, (WALL, CEILING))
    names = ("points", "colors", "labels", "instances", "attributes")
    bare = replace(room, **{name: getattr(room, name)[kept] for name in names})
    for seed in range(5):
        assert len(pasting(bare, np.random.default_rng(seed)).points) == len(bare.points)


def test_what_hangs_low_is_not_met(furnished):
    """A ceiling at 2.1 m: things as high as 2.2 m have no place, things of 2 m have."""
    points = np.concatenate([sheet((0, 0, 0), (2, 2, 0)), sheet((0, 0, 2.1), (2, 2, 2.1))])
    ground, none = Ground.of(points, 0.02), np.empty((0, 2, 3), np.float32)
    assert ground.top == pytest.approx(HIGHEST)
    for height, fits in ((2.2, False), (2.0, True)):
        thing = sheet((0, 0, 0), (0.3, 0.3, height), 0.1)
        assert (
            ground.find_place(thing, thing.max(axis=0), none, 50, np.random.default_rng(0)) is not None
        ) == fits


def test_one_voxelisation_for_scene_and_objects(furnished):
    """Voxels of a pasted scene are those of its vertices in metres, turned with the scene."""
    pasting, room = pasting_of(furnished)
    result = replace(
        pasting(room, np.random.default_rng(0)), matrix=1.05 * np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    )
    scene = voxelize_sample(result, 0.02, "first")
    expected = np.floor(result.points.astype(np.float64) @ result.matrix.T / 0.02)
    assert np.abs(scene.coordinates[scene.inverse] - expected).max() <= 1  # rounding of sums alone
    assert (scene.coordinates[scene.inverse] == expected).mean() > 0.999


def test_limited_annotation_pastes_only_labels_that_may_be_seen(furnished):
    pasting, room = pasting_of(furnished, annotation="scene-20")
    shapes = set()
    for seed in range(5):
        result = pasting(room, np.random.default_rng(seed))
        new = slice(len(room.points), None)
        assert set(np.unique(result.labels[new])) <= {-1, TAIL[1]}
        assert 0.05 < (result.labels[new] == TAIL[1]).mean() < 0.3
        shapes.add(len(result.points[new]))
    assert shapes == {5 * len(PARTS[5][2])}  # the whole object, few labels


def test_objects_in_memory_are_those_on_disk(furnished, monkeypatch):
    kept, room = pasting_of(furnished)
    monkeypatch.setattr(objects, "IN_MEMORY", 0)
    read, _ = pasting_of(furnished)
    one, two = (pasting(room, np.random.default_rng(0)) for pasting in (kept, read))
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ("points", "labels"))


def test_a_bank_that_is_missing_or_of_other_scenes_is_named(furnished, tmp_path):
    (tmp_path / "train").symlink_to(furnished / "train")
    with pytest.raises(InputError, match=r"lground prepare .* --bank"):
        pasting_of(tmp_path)
    bank = json.loads((furnished / "bank.json").read_text())
    del bank["scenes"]["scene0001_00"]
    (tmp_path / "bank.json").write_text(json.dumps(bank))
    with pytest.raises(InputError, match="does not know scene0001_00"):
        pasting_of(tmp_path)
    bank["scenes"] = {"scene0000_00": {}}
    (tmp_path / "bank.json").write_text(json.dumps(bank))
    with pytest.raises(InputError, match="damaged"):
        pasting_of(tmp_path)
