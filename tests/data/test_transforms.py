"""Each augmentation against an independent statement of what it does."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.signal import convolve
from scipy.stats import kstest

from lground.data import Transforms, training_transforms, validation_transforms, voxelize, voxelize_sample
from lground.data.color import AutoContrast, ColorDrop, ColorJitter, ColorScale, ColorTranslation
from lground.data.geometry import (
    Dropout,
    ElasticDistortion,
    Flip,
    RotateScale,
    Shift,
    noise_grid,
    rotation,
    trilinear,
)
from lground.errors import InputError


@pytest.fixture
def sample(make_sample):
    return make_sample()


@pytest.fixture
def scene(sample):
    return voxelize_sample(sample, 0.02, "first")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def same(one, two) -> bool:
    return all(np.array_equal(value, getattr(two, name)) for name, value in vars(one).items())


def occurrences(transform, scene, trials: int = 2000) -> float:
    """How often the transform does something."""
    rng = np.random.default_rng(0)
    return np.mean([not same(transform(scene, rng), scene) for _ in range(trials)])


def test_elastic_displacement_is_scipys_interpolation_of_a_smoothed_grid(sample):
    granularity, magnitude = 0.2, 0.4
    bent = ElasticDistortion(((granularity, magnitude),), probability=1.0)(sample, np.random.default_rng(3))

    replay = np.random.default_rng(3)
    replay.random()  # the decision to distort
    low, high = sample.points.min(axis=0), sample.points.max(axis=0)
    shape = ((high - low) // granularity).astype(int) + 3
    noise = replay.standard_normal((*shape, 3), dtype=np.float32).astype(np.float64)
    for _ in range(2):
        for axis in range(3):
            box = np.full([3 if a == axis else 1 for a in range(4)], 1 / 3)
            noise = convolve(noise, box, mode="same", method="direct")
    axes = [low[a] - granularity + granularity * np.arange(shape[a]) for a in range(3)]
    field = RegularGridInterpolator(axes, noise, bounds_error=False, fill_value=0)
    expected = sample.points + field(sample.points) * magnitude
    np.testing.assert_allclose(bent.points, expected, atol=2e-5)
    assert np.abs(bent.points - sample.points).max() > 0.01


def test_elastic_passes_follow_each_other(sample):
    both = ElasticDistortion(probability=1.0)(sample, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    rng.random()
    points = sample.points
    for granularity, magnitude in ((0.2, 0.4), (0.8, 1.6)):
        low = points.min(axis=0)
        noise = noise_grid(points.max(axis=0) - low, granularity, rng)
        points = points + trilinear(noise, (points - low) / granularity + 1) * magnitude
    np.testing.assert_allclose(both.points, points, atol=1e-5)


def test_trilinear_hits_nodes_is_linear_between_and_zero_outside(rng):
    grid = rng.standard_normal((4, 6, 5, 3)).astype(np.float32)
    nodes = np.array([[0, 0, 0], [3, 5, 4], [1, 2, 3]], dtype=np.float32)
    np.testing.assert_allclose(trilinear(grid, nodes), grid[tuple(nodes.astype(int).T)], atol=1e-5)
    middle = trilinear(grid, np.array([[1, 2.5, 3]], dtype=np.float32))
    np.testing.assert_allclose(middle[0], (grid[1, 2, 3] + grid[1, 3, 3]) / 2, atol=1e-5)
    outside = np.array([[-1.5, 0, 0], [0, 6.5, 0], [9, 9, 9]], dtype=np.float32)
    assert (trilinear(grid, outside) == 0).all()


def test_elastic_refuses_a_scene_that_would_fill_the_memory(sample, rng):
    far = replace(sample, points=np.array([[0, 0, 0], [1e5, 1e5, 0]], dtype=np.float32))
    with pytest.raises(InputError, match="remove far outliers"):
        ElasticDistortion(probability=1.0)(far, rng)


def test_elastic_on_a_single_point(sample, rng):
    one = ElasticDistortion(probability=1.0)(replace(sample, points=sample.points[:1]), rng)
    assert one.points.shape == (1, 3) and np.isfinite(one.points).all()


def test_rotation_and_scale_stay_in_their_ranges(sample, rng):
    matrices = np.array([RotateScale()(sample, rng).matrix for _ in range(2000)])
    scales = np.cbrt(np.linalg.det(matrices))
    assert kstest(scales, "uniform", (0.9, 0.2)).pvalue > 1e-3
    rotations = matrices / scales[:, None, None]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.eye(3)[None].repeat(2000, 0), atol=1e-9
    )
    tilt = np.arccos(rotations[:, 2, 2])  # of the vertical axis: at most the sum, with half a turn between
    assert np.pi / 64 < tilt.max() <= 2 * np.pi / 64
    heading = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    assert kstest(heading, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


def test_rotation_order_varies(sample):
    matrices = [
        RotateScale((0.5, 0.5, 0.5), (1, 1))(sample, np.random.default_rng(s)).matrix for s in range(40)
    ]
    upright = [
        sum(
            np.allclose(m, rotation(a, x[a]) @ rotation(b, x[b]) @ rotation(c, x[c]))
            for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        )
        for s, m in enumerate(matrices)
        for x in [np.random.default_rng(s).uniform(-0.5, 0.5, 3)]
    ]
    assert upright == [1] * 40  # each is a product of the three turns in one order


def test_matrix_reaches_the_voxels(sample, rng):
    turned = RotateScale()(sample, rng)
    scene = voxelize_sample(turned, 0.02, "first")
    assert np.array_equal(scene.coordinates, voxelize(sample.points, 0.02, matrix=turned.matrix).coordinates)


def test_flip_mirrors_within_the_occupied_range(scene, rng):
    mirror = Flip(probability=1.0, axis_probability=1.0)
    flipped = mirror(scene, rng).coordinates
    assert (flipped[:, 2] == scene.coordinates[:, 2]).all()
    for axis in (0, 1):
        assert (flipped[:, axis] + scene.coordinates[:, axis] == scene.coordinates[:, axis].max()).all()
        assert flipped[:, axis].min() == 0
    again = mirror(mirror(mirror(scene, rng), rng), rng).coordinates
    assert np.array_equal(again, flipped)  # an involution on scenes that start at zero


def test_flip_frequency(scene):
    assert abs(occurrences(Flip(), scene) - 0.95 * 0.75) < 0.04


def test_auto_contrast_blends_towards_the_full_range(scene, rng):
    dull = replace(scene, colors=(60 + scene.colors / 4).astype(np.float32))
    colors = AutoContrast(1.0)(dull, rng).colors
    low, high = dull.colors.min(axis=0), dull.colors.max(axis=0)
    full = (dull.colors - low) / (high - low) * 255
    weight = (colors[0] - dull.colors[0]) / (full[0] - dull.colors[0])
    assert 0 <= weight[0] <= 1
    np.testing.assert_allclose(weight, weight[0], rtol=1e-3)
    np.testing.assert_allclose(colors, (1 - weight[0]) * dull.colors + weight[0] * full, atol=0.05)
    assert colors.min() >= 0 and colors.max() <= 255


def test_auto_contrast_keeps_a_channel_of_one_value(scene, rng):
    colors = scene.colors.copy()
    colors[:, 1] = 90
    result = AutoContrast(1.0)(replace(scene, colors=colors), rng).colors
    assert (result[:, 1] == 90).all() and np.isfinite(result).all()


def test_color_translation_is_one_step_per_channel(scene, rng):
    middle = replace(scene, colors=(100 + scene.colors / 10).astype(np.float32))
    steps = []
    for _ in range(300):
        step = ColorTranslation(0.1, 1.0)(middle, rng).colors - middle.colors
        assert np.ptp(step, axis=0).max() < 1e-3
        steps.append(step[0])
    assert kstest(np.ravel(steps), "uniform", (-25.5, 51)).pvalue > 1e-3


def test_color_jitter_is_normal_and_clipped(scene, rng):
    grey = replace(scene, colors=np.full_like(scene.colors, 127))
    noise = ColorJitter(0.05, 1.0)(grey, rng).colors - 127
    assert kstest(noise.ravel() / (0.05 * 255), "norm").pvalue > 1e-3
    clipped = ColorJitter(0.5, 1.0)(scene, rng).colors
    assert clipped.min() == 0 and clipped.max() == 255


def test_color_scale_and_drop(scene, rng):
    np.testing.assert_allclose(ColorScale(0.5)(scene, rng).colors, scene.colors / 2)
    assert (ColorDrop(1.0)(scene, rng).colors / 255 - 0.5 == 0).all()


@pytest.mark.parametrize(
    ("transform", "frequency"),
    [
        (AutoContrast(), 0.2),
        (ColorTranslation(), 0.95),
        (ColorJitter(), 0.95),
        (Dropout(), 0.2),
        (ColorDrop(0.3), 0.3),
    ],
)
def test_frequency(transform, frequency, make_sample):
    scene = voxelize_sample(make_sample(50), 0.02, "first")
    assert abs(occurrences(transform, scene) - frequency) < 0.04


def test_elastic_frequency(make_sample):
    assert abs(occurrences(ElasticDistortion(), make_sample(20)) - 0.95) < 0.03


def test_dropout_keeps_voxels_whole_and_marks_lost_vertices(scene, rng):
    dropped = Dropout(0.2, 1.0)(scene, rng)
    assert len(dropped) == round(0.8 * len(scene))
    kept = dropped.inverse >= 0
    assert (dropped.coordinates[dropped.inverse[kept]] == scene.coordinates[scene.inverse[kept]]).all()
    rows = {tuple(c): (*rgb, l, i) for c, rgb, l, i in rows_of(scene)}
    assert all(rows[tuple(c)] == (*rgb, l, i) for c, rgb, l, i in rows_of(dropped))
    assert set(dropped.inverse[kept]) == set(range(len(dropped)))


def rows_of(scene):
    return zip(scene.coordinates.tolist(), scene.colors.tolist(), scene.labels, scene.instances, strict=True)


def test_shift_is_one_whole_vector(scene):
    rng = np.random.default_rng(0)
    shifts = np.array([Shift(99)(scene, rng).coordinates - scene.coordinates for _ in range(500)])
    assert (shifts == shifts[:, :1]).all()
    assert shifts.min() == 0 and shifts.max() == 99
    assert Shift()(scene, rng).coordinates.dtype == np.int32


def test_order_and_options():
    def names(transforms):
        return [type(step).__name__ for step in (*transforms.points, *transforms.voxels)]

    original = [
        "ElasticDistortion",
        "RotateScale",
        "Flip",
        "AutoContrast",
        "ColorTranslation",
        "ColorJitter",
        "Shift",
    ]
    assert names(training_transforms()) == original
    extra = training_transforms(color_scale=0.9, color_drop=0.1, dropout=0.2)
    assert names(extra) == [*original[:-1], "ColorScale", "ColorDrop", "Dropout", "Shift"]
    off = dict.fromkeys(("elastic", "rotation", "flip"), False)
    zero = dict.fromkeys(("auto_contrast", "color_translation", "color_jitter", "shift"), 0)
    assert training_transforms(**off, **zero, scale=(1, 1)) == Transforms() == validation_transforms()


def test_scale_without_rotation(sample, rng):
    (step,) = training_transforms(elastic=False, rotation=False).points
    matrix = step(sample, rng).matrix
    np.testing.assert_allclose(matrix, matrix[0, 0] * np.eye(3), atol=1e-12)


@pytest.mark.parametrize("reduce", ["first", "majority"])
def test_nothing_is_written_to_the_input(sample, reduce):
    arrays = (sample.points, sample.colors, sample.labels, sample.instances, sample.matrix)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False  # a write would raise
    augment = training_transforms(auto_contrast=1.0, color_drop=1.0, dropout=1.0)
    scene = augment(sample, np.random.default_rng(0), voxel_size=0.02, reduce=reduce)
    assert all(np.array_equal(one, two) for one, two in zip(arrays, before, strict=True))
    assert len(np.unique(scene.coordinates, axis=0)) == len(scene)


def test_a_step_of_ones_own_slots_in(sample, rng):
    def paste(sample, rng):
        """Append the first ten vertices once more, beside the scene."""
        more = {
            name: np.concatenate([v, v[:10]])
            for name, v in vars(sample).items()
            if name not in ("name", "matrix")
        }
        more["points"][-10:] += 5
        return replace(sample, **more)

    elastic, turn = training_transforms().points
    augment = replace(training_transforms(), points=(elastic, paste, turn))
    scene = augment(sample, rng, voxel_size=0.02, reduce="first")
    assert len(scene.inverse) == len(scene.vertex_labels) == len(sample.points) + 10
