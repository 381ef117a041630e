"""Pictures show what they should: checked on their pixels."""

import numpy as np
import pytest
from matplotlib.image import imread

from lground.labels import load_labels
from lground.report import (
    Camera,
    class_bars,
    cut_away,
    draw_objects,
    heat_colors,
    label_legend,
    panels,
    render_points,
)

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 180, 30), (30, 30, 200), (128, 128, 128)


def sheet(origin, u, v, spacing=0.03):
    u, v = np.array(u, float), np.array(v, float)
    a, b = (np.arange(0, 1, spacing / np.linalg.norm(side)) for side in (u, v))
    a, b = (grid.ravel()[:, None] for grid in np.meshgrid(a, b))
    return np.array(origin) + a * u + b * v


@pytest.fixture(scope="module")
def room():
    """Floor green, ceiling blue, walls grey, a red box in the middle; turned by 20 degrees."""
    x, y, z = (4, 0, 0), (0, 3, 0), (0, 0, 2.5)
    parts = [
        (sheet((0, 0, 0), x, y), GREEN),
        (sheet((0, 0, 2.5), x, y), BLUE),
        *(
            (sheet(o, side, z), GREY)
            for o, side in (((0, 0, 0), x), ((0, 0, 0), y), ((0, 3, 0), x), ((4, 0, 0), y))
        ),
        (sheet((1.5, 1, 0.8), (1, 0, 0), (0, 1, 0)), RED),
    ]
    points = np.concatenate([part for part, _ in parts])
    colors = np.concatenate([np.tile(np.uint8(color), (len(part), 1)) for part, color in parts])
    c, s = np.cos(0.35), np.sin(0.35)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]), colors


def share(picture, color):
    """Of the pixels, those of the colour at any brightness."""
    pixels = picture.reshape(-1, 3) / np.maximum(picture.reshape(-1, 3).max(1, keepdims=True), 1)
    wanted = np.array(color) / max(color)
    return (np.abs(pixels - wanted).max(1) < 0.12).mean()


def test_the_inside_shows(room):
    points, colors = room
    picture = render_points(points, colors, (320, 240))
    assert picture.shape == (240, 320, 3) and picture.dtype == np.uint8
    assert share(picture, RED) > 0.012 and share(picture, GREEN) > 0.1 and share(picture, BLUE) == 0
    assert (picture[:3] == 255).all() and (picture[:, -3:] == 255).all()  # a margin
    closed = render_points(points, colors, (320, 240), cut_ceiling=False)
    assert share(closed, RED) == 0 and share(closed, BLUE) > 0.15


def test_what_is_cut(room):
    points, colors = room
    kept = cut_away(points)
    assert kept[(colors == RED).all(1)].all() and kept[(colors == GREEN).all(1)].mean() > 0.95
    assert not kept[(colors == BLUE).all(1)].any()
    walls = (colors == GREY).all(1)
    assert 0.3 < kept[walls].mean() < 0.75  # the two far walls, without what the ceiling takes
    object_alone = np.random.default_rng(0).random((500, 3)) * 0.5
    assert cut_away(object_alone).all()


def test_surfaces_have_no_holes_and_hide_what_is_behind(room):
    rng = np.random.default_rng(0)
    front = sheet((0, 0, 0.5), (3, 0, 0), (0, 3, 0), 0.05)
    front += rng.uniform(-0.015, 0.015, front.shape) * [1, 1, 0]
    behind = front - [0, 0, 0.4]
    colors = np.repeat(np.uint8([RED, GREEN]), len(front), axis=0)
    picture = render_points(np.concatenate([front, behind]), colors, (200, 200), "top", cut_ceiling=False)
    middle = picture[40:160, 40:160]
    assert share(middle, RED) > 0.995


@pytest.mark.parametrize("count", [2, 3, 5])
def test_hardly_any_points(count):
    points = np.random.default_rng(0).random((count, 3))
    picture = render_points(points, np.zeros((count, 3), np.uint8), (64, 48))
    assert picture.shape == (48, 64, 3) and picture.min() < 255


def test_a_camera_sees_what_it_frames(room):
    points, _ = room
    camera = Camera.look_at(points, (640, 480))
    pixels, depth = camera.project(points)
    assert (depth > 0).all() and (np.abs(pixels / (640, 480) - 0.5) < 0.5).mean() > 0.999
    up = camera.project(np.array([[2.0, 1.5, 0.0], [2.0, 1.5, 1.0]]))[0]
    assert up[1, 1] < up[0, 1]  # higher is higher in the picture
    np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(camera.axes) == pytest.approx(1)  # not mirrored


def test_heat():
    scores = np.concatenate([np.zeros(600), np.linspace(0, 1, 400)])
    colors = np.full((1000, 3), 100, np.uint8)
    heat = heat_colors(scores, colors).astype(int)
    cold = heat[:600]
    assert (cold == cold[0]).all() and np.ptp(cold[0]) <= 1  # grey
    assert np.ptp(heat[-1]) > 100
    np.testing.assert_array_equal(heat_colors(scores * 5 - 3, colors), heat)  # any scale
    assert heat_colors(np.zeros(10)).shape == (10, 3)
    assert heat_colors(np.array([0.1, np.nan, 0.3])).shape == (3, 3)


def test_legend_lists_what_is_there():
    colors = np.arange(15).reshape(5, 3).astype(np.uint8)
    labels = np.array([3, 3, 3, 1, 1, -1, -1, -1, -1, 0])
    assert label_legend(labels, list("abcde"), colors) == [
        ("d", (9, 10, 11)),
        ("b", (3, 4, 5)),
        ("a", (0, 1, 2)),
    ]
    assert [name for name, _ in label_legend(labels, list("abcde"), colors, limit=1)] == ["d", "and 2 more"]


def test_panels(room, tmp_path):
    points, colors = room
    pictures = [
        ("one", points, colors),
        ("two", points, np.zeros_like(colors)),
        ("three", points[::2], colors[::2]),
    ]
    panels(tmp_path / "p.png", pictures, label_legend(np.arange(3), list("abc"), colors), size=(200, 150))
    picture = np.rint(imread(tmp_path / "p.png")[..., :3] * 255).astype(int)
    assert picture.shape[1] == 600 and picture.shape[0] > 150
    first, second, third = (picture[40:180, k * 200 : k * 200 + 200] for k in range(3))
    assert share(first, RED) > 0.012 and share(second, RED) == 0
    outline = [(panel < 250).any(2) for panel in (first, second, third)]
    assert (outline[0] == outline[1]).all() and (outline[0] == outline[2]).mean() > 0.97  # one camera


@pytest.mark.parametrize("name", ["scannet200", "scannet20"])
def test_class_bars(name, tmp_path):
    labels = load_labels(name)
    iou = np.linspace(0, 1, len(labels))
    iou[~labels.in_val] = np.nan
    class_bars(tmp_path / "bars.png", labels.names, iou, labels.splits, labels.colors)
    assert min(imread(tmp_path / "bars.png").shape[:2]) > 300
    class_bars(tmp_path / "none.png", labels.names, np.full(len(labels), np.nan), {}, labels.colors)


def test_objects_are_named_where_there_is_room(tmp_path, monkeypatch):
    """The largest first; no name over another, or outside of the picture."""
    from matplotlib.axes import Axes

    written = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **_: written.append((text, x, y)))
    points = np.random.default_rng(0).uniform(0, [4, 3, 0.1], (900, 3))
    left, corner = points[:, 0] < 1.5, (points < [0.3, 0.3, 1]).all(axis=1)
    instances = np.select([corner, left], [0, 1], 2)
    draw_objects(tmp_path / "objects.png", points, [("found", instances, ["speck", "table", "bed"])] * 2)
    first, second = written[: len(written) // 2], written[len(written) // 2 :]
    assert first == second and [name for name, *_ in first][:2] == ["bed", "table"]
    assert len(first) == 3
    (_, *bed), (_, *table), *_ = first
    assert np.linalg.norm(np.subtract(bed, table)) > 50
    written.clear()
    strips = np.floor(points[:, 0] * 20).astype(
        np.int64
    )  # 5 cm wide: their names cannot all stand beside each other
    draw_objects(tmp_path / "objects.png", points, [("", strips, ["something narrow"] * 80)])
    places = np.array([(x, y) for _, x, y in written])
    apart = np.abs(places[:, None] - places)
    apart[range(len(places)), range(len(places))] = np.inf
    assert 3 < len(places) < 60 and ((apart[..., 1] > 10) | (apart[..., 0] > 60)).all()
    written.clear()
    above, below = sheet((0, 0, 0.5), (4, 0, 0), (0, 3, 0)), sheet((1, 1, 0), (2, 0, 0), (0, 1, 0))
    things = np.repeat([0, 1], [len(above), len(below)])
    picture = [("", things, ["seen", "covered"])]
    draw_objects(tmp_path / "objects.png", np.concatenate([above, below]), picture)
    assert [name for name, *_ in written] == ["seen"]
