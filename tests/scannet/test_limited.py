import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lground.data import SceneDataset
from lground.errors import InputError
from lground.scannet import limit_annotation, list_scenes, open_scene, prepare
from lground.scannet.limited import (
    draw_scenes,
    farthest_points,
    k_means,
    object_masks,
    parse_setting,
    scene_mask,
)


@st.composite
def objects(draw):
    """Coordinates, possibly equal ones, and shuffled objects, some of them tiny, with vertices of none."""
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    instance = rng.permutation(np.repeat(np.arange(-1, len(sizes) - 1), sizes)).astype(np.int32)
    coord = rng.integers(0, draw(st.integers(1, 50)), (len(instance), 3)).astype(np.float32) / 10
    return coord, instance


@settings(max_examples=60)
@given(objects(), st.lists(st.floats(0.001, 1.0), min_size=1, max_size=3))
def test_every_object_keeps_its_share_and_at_least_five(scene, fractions):
    coord, instance = scene
    masks = object_masks(coord, instance, fractions)
    assert len(masks) == len(fractions)
    for mask, fraction in zip(masks, fractions, strict=True):
        assert mask.shape == instance.shape and mask.dtype == bool and not mask[instance < 0].any()
        for one in np.unique(instance[instance >= 0]):
            size = int((instance == one).sum())
            assert mask[instance == one].sum() == min(size, max(5, round(fraction * size)))
    smallest = masks[int(np.argmin(fractions))]
    assert all((mask >= smallest).all() for mask in masks)  # more annotation contains less


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.integers(1, 100))
def test_farthest_points_follow_their_definition(size, count, seed, spread):
    points = np.random.default_rng(seed).integers(0, spread, (size, 3)).astype(np.float32)
    chosen = farthest_points(points, min(count, size))
    assert chosen[0] == 0 and len(np.unique(chosen)) == len(chosen) == min(count, size)
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    for k in range(1, len(chosen)):
        to_sample = distance[:, chosen[:k]].min(axis=1)
        assert to_sample[chosen[k]] == pytest.approx(to_sample.max(), abs=1e-5)


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 2**32), st.integers(1, 30))
def test_scene_points_are_annotated_ones_and_exactly_as_many_as_asked(size, count, seed, spread):
    rng = np.random.default_rng(seed)
    coord = rng.integers(0, spread, (size, 3)).astype(np.float32)
    color = rng.integers(0, 256, (size, 3), dtype=np.uint8) // 128 * 128
    annotated = rng.random(size) < 0.7
    mask = scene_mask(coord, color, annotated, count, np.random.default_rng(0))
    assert mask.sum() == min(count, annotated.sum()) and (mask <= annotated).all()


def test_scene_points_stand_for_the_clusters_of_the_scene():
    centers = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [9, 9, 0], [4, 4, 9]])
    rng = np.random.default_rng(3)
    which = rng.permutation(np.repeat(np.arange(5), [500, 10, 100, 50, 5]))
    coord = (centers[which] + rng.normal(0, 0.1, (len(which), 3))).astype(np.float32)
    mask = scene_mask(coord, np.zeros((len(which), 3), np.uint8), np.ones(len(which), bool), 40, rng)
    assert set(which[mask]) == set(range(5))  # at random, 10 of 40 points on the smallest three would be rare
    ours, drawn = (
        np.linalg.norm(coord[:, None] - coord[chosen], axis=-1).min(axis=1).mean()
        for chosen in (np.flatnonzero(mask), rng.choice(len(coord), 40, replace=False))
    )
    assert ours < drawn


def test_k_means_agrees_with_scipy_on_separate_blobs():
    from scipy.cluster.vq import kmeans2

    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.3, (400, 6)) + rng.integers(0, 3, (400, 1)) * 5
    start = features[rng.choice(400, 7, replace=False)]
    cluster, distance = k_means(features, start)
    centers, expected = kmeans2(features, start, iter=50, minit="matrix")
    assert (cluster == expected).all()
    np.testing.assert_allclose(distance, np.linalg.norm(features - centers[expected], axis=1), atol=1e-9)


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.integers(0, 5))
def test_drawn_scenes_are_nested(count, fraction, seed):
    names = [f"scene{k:04d}_00" for k in range(count)]
    some, more = draw_scenes(names, fraction, seed), draw_scenes(names, min(1.0, fraction * 2), seed)
    assert len(some) == max(1, round(fraction * count)) and set(some) <= set(more) <= set(names)
    assert some == sorted(some) and draw_scenes(names, 1.0, seed) == names


WRONG = "object object- object-a object--1 objects-0.1 scene-0 scenes-2 scene-1.5 object-1e-3 scene-20/../x"


@pytest.mark.parametrize("text", ["", "object-nan", "scene-٣", *WRONG.split()])
def test_settings_that_are_none(text):
    with pytest.raises(InputError, match="--limited"):
        parse_setting(text)


def test_one_store_serves_all_settings(raw_root, tmp_path, run):
    store = tmp_path / "store"
    wanted = ["object-0.05", "object-0.50", "scene-20", "scenes-0.50"]
    code, out, err = run("prepare", raw_root, store, *(a for text in wanted for a in ("--limited", text)))
    assert (code, err) == (0, []) and "scenes-0.50: 2 of 4 scenes" in out
    for folder in list_scenes(store, "train"):
        scene = open_scene(folder)
        few, half, points = (scene.annotated(text) for text in wanted[:3])
        assert points.sum() == 20 and (few <= half).all() and few.sum() < half.sum()
        assert not half[np.asarray(scene.instance) < 0].any()
    assert scene.annotated(None) is None
    assert len(list_scenes(store, "train", subset="scenes-0.50")) == 2
    assert not list((store / "val").rglob("annotated*")) and not list((store / "test").rglob("annotated*"))


def test_settings_are_added_to_a_store_without_the_raw_scenes_and_kept_when_repeated(raw_root, tmp_path, run):
    store = tmp_path / "store"
    prepare(raw_root, store, workers=1)
    for _ in range(2):
        code, out, err = run("prepare", store, "--limited", "scene-20", "--workers", 1)
        assert (code, err) == (0, [])
    assert "scene-20: masks of 4 scenes, 0 written now" in out
    again = tmp_path / "again"
    prepare(raw_root, again, workers=1)
    limit_annotation(again, ["scene-20"], workers=2)
    for one, other in zip(list_scenes(store, "train"), list_scenes(again, "train"), strict=True):
        assert (open_scene(one).annotated("scene-20") == open_scene(other).annotated("scene-20")).all()


def test_masks_that_were_not_written_are_asked_for_by_command(raw_root, tmp_path):
    prepare(raw_root, tmp_path / "store", workers=1)
    scene = open_scene(tmp_path / "store" / "train" / "scene0000_00")
    with pytest.raises(InputError, match=f"lground prepare {tmp_path / 'store'} --limited object-0.05"):
        scene.annotated("object-0.05")
    with pytest.raises(InputError, match=r"--limited scenes-0\.10"):
        list_scenes(tmp_path / "store", "train", subset="scenes-0.10")


def test_training_sees_only_the_annotated_labels(raw_root, tmp_path):
    store = tmp_path / "store"
    prepare(raw_root, store, workers=1)
    limit_annotation(store, ["object-0.05"], workers=1)
    seen = SceneDataset(store, "train", annotation="object-0.05")[0, 0]
    every = SceneDataset(store, "train")[0, 0]
    mask = open_scene(store / "train" / seen.name).annotated("object-0.05")
    assert ((seen.vertex_labels >= 0) == (mask & (every.vertex_labels >= 0))).all()
