"""Objects named by a list of words: the list, the words, and the command as a user runs it."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch

from lground.cli import main
from lground.errors import InputError
from lground.instances import Grouping
from lground.labels import from_rows
from lground.models import save_model
from lground.predict import cloud_superpoints, found_objects, read_words, segment_words
from lground.predict.open_vocabulary import segment_vectors
from lground.predict.running import run
from lground.predict.words import trained_names, word_shares
from lground.scans import Scan, read_scan, write_scan

WORDS = ("sofa bed", "a green lamp", "toaster")


@pytest.fixture(scope="module")
def room() -> Scan:
    """A floor with two boxes on it, each of a colour of its own; a cloud."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform((0, 0, 0), (1, 0.6, 0.02), (600, 3))]
    for x in (0.15, 0.65):
        walls = rng.uniform((x, 0.2, 0.1), (x + 0.2, 0.4, 0.4), (300, 3))
        walls[np.arange(300), np.arange(300) % 2] = np.array([x, 0.2])[np.arange(300) % 2]
        parts.append(walls)
    colors = np.repeat([[90, 90, 90], [250, 20, 20], [20, 20, 250]], [600, 300, 300], axis=0)
    return Scan(np.concatenate(parts).astype(np.float32), colors.astype(np.uint8))


PARTS = np.repeat([0, 1, 2], [600, 300, 300])


@pytest.fixture(scope="module")
def taught(grounded, room):
    """The model with names where its features are: the floor's at the floor, chair and lamp at the boxes."""
    model = deepcopy(grounded)
    voxels, _, features = run(model, room)
    unit = torch.nn.functional.normalize(features.float(), dim=1)[torch.from_numpy(voxels.inverse)]
    floor, chair, lamp = (unit[torch.from_numpy(PARTS == k)].mean(0) for k in range(3))
    model.anchors = torch.stack([-floor, floor, chair, lamp])
    return model


def test_objects_are_found_and_named(taught, room):
    label_set = from_rows("words", [{"name": name} for name in ("lamp", "chair")], "words")
    result = segment_vectors(
        taught, room, label_set, taught.anchors[[3, 2]], superpoints=PARTS, features=True
    )
    owners = [set(PARTS[result.objects.points_of(k)]) for k in range(len(result.objects))]
    assert sorted(map(sorted, owners)) == [[1], [2]]  # whole boxes; the floor is none
    np.testing.assert_array_equal(result.labels, np.array([-1, 1, 0])[PARTS])
    assert (np.diff(result.objects.scores) <= 0).all() and result.features.shape == (len(room), 384)
    np.testing.assert_array_equal(result.scores > 0, PARTS > 0)
    names = {entry.name for entry in found_objects(room, result)}
    assert names == {"lamp", "chair"}


def test_the_order_of_vertices_does_not_matter(taught, room):
    """Of whole voxels, as the first vertex of a voxel gives it its colour."""
    order = np.argsort(np.random.default_rng(0).permutation(3)[PARTS], kind="stable")
    turned = Scan(room.points[order], room.colors[order])
    label_set = from_rows("words", [{"name": name} for name in ("lamp", "chair")], "words")
    labels, again = (
        segment_vectors(taught, scan, label_set, taught.anchors[[3, 2]], superpoints=parts).labels
        for scan, parts in ((room, PARTS), (turned, PARTS[order]))
    )
    np.testing.assert_array_equal(again, labels[order])


def test_background_on_the_list_is_labelled_but_no_object(taught, room):
    rows = [{"name": "Floor", "instance_class": False}, {"name": "lamp"}]
    result = segment_vectors(
        taught, room, from_rows("words", rows, "words"), taught.anchors[[1, 3]], superpoints=PARTS
    )
    np.testing.assert_array_equal(result.labels, np.array([0, 1, 1])[PARTS])
    np.testing.assert_array_equal(result.instances < 0, PARTS == 0)
    unknown = np.where(PARTS == 2, -1, PARTS)  # vertices of no superpoint are of no object
    result = segment_vectors(
        taught, room, from_rows("words", rows, "words"), taught.anchors[[1, 3]], superpoints=unknown
    )
    assert len(result.objects) == 1 and (result.labels[PARTS == 2] == -1).all()


def test_a_new_word_wins_over_the_trained_name_beside_it(taught):
    """A feature between the two, nearer to the name: its cosine to the word is all of the word's reach."""
    name = torch.nn.functional.normalize(taught.anchors[2], dim=0)
    away = torch.nn.functional.normalize(torch.randn(384, generator=torch.Generator().manual_seed(1)), dim=0)
    away = torch.nn.functional.normalize(away - (away @ name) * name, dim=0)
    word, feature = 0.8 * name + 0.6 * away, (0.9 * name + 0.43 * away)[None]
    cosines = taught.similarity(feature, torch.stack([name, word]))[0]
    shares = word_shares(taught, feature.double().numpy(), torch.stack([name, word]))[0]
    assert shares.argmax() == 1 and shares.sum() == pytest.approx(1)
    exact = word_shares(taught, name[None].double().numpy(), torch.stack([name, -name]))[0]
    assert exact.argmax() == 0 and cosines.max() < 1


def test_what_the_recipe_held_out_is_not_trained(taught):
    assert trained_names(taught).all()
    model = deepcopy(taught)
    model.recipe = "data:\n  hold_out: [lamp]\n"
    assert trained_names(model).tolist() == [True, True, True, False]


def test_views_and_automatic_patches(taught, room):
    results = [segment_words(taught, room, WORDS, views=views) for views in (1, 2)]
    for result in results:
        assert result.label_set.names == WORDS and len(result.objects)
        assert result.objects.sizes.min() >= Grouping.for_voxels(0.03).min_points / 2
        assert set(np.unique(result.labels)) <= {-1, 0, 1, 2}
    assert not np.array_equal(results[0].objects.scores, results[1].objects.scores)


def test_a_cloud_is_cut_where_it_bends():
    rng = np.random.default_rng(0)
    floor, wall = rng.uniform(0, 1, (2, 2000, 3))
    floor[:, 2], wall[:, 0] = 0, 0
    points = np.concatenate([floor, wall]).astype(np.float32)
    patches = cloud_superpoints(points)
    inside = (np.abs(points[:, [2]] - [[0]]) > 0.1)[:, 0] | (points[:, 0] > 0.1)  # away from the edge
    owner = np.repeat([0, 1], 2000)
    for patch in np.unique(patches[inside]):
        assert len(set(owner[inside & (patches == patch)])) == 1
    largest = [
        np.bincount(np.unique(patches[inside & (owner == k)], return_inverse=True)[1]).max() for k in (0, 1)
    ]
    assert min(largest) > 500
    assert len(cloud_superpoints(points[:1])) == 1


def test_a_list_of_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# what we look for\n\n  bean   bag \nfire hydrant\r\nlamp#2\n", encoding="utf-8")
    assert read_words(path) == ["bean bag", "fire hydrant", "lamp#2"]


@pytest.fixture
def saved(taught, room, tmp_path):
    save_model(taught, tmp_path / "taught.safetensors")
    write_scan(room, tmp_path / "room.ply")
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    np.save(tmp_path / "patches.npy", PARTS)
    return tmp_path


def test_segment_with_words(saved, taught, room, capsys):
    line = (
        f"segment {saved}/room.ply -m {saved}/taught.safetensors -o {saved}/out.ply --device cpu --instances"
    )
    line += f" --words {saved}/words.txt --superpoints {saved}/patches.npy --features {saved}/f.npz"
    assert main(line.split()) == 0
    expected = segment_words(taught, room, WORDS, superpoints=PARTS)
    painted = read_scan(saved / "out.ply")
    np.testing.assert_array_equal(painted.extras["label"], expected.labels)
    np.testing.assert_array_equal(painted.extras["instance"], expected.instances)
    np.testing.assert_allclose(painted.extras["score"], expected.scores, rtol=1e-5)
    objects = json.loads((saved / "out.objects.json").read_text())
    assert len(objects) == 2
    for entry in objects:
        assert entry["class"] == WORDS[entry["class_index"]] and entry["superpoints"]
    assert {entry["name"] for entry in json.loads((saved / "out.json").read_text())} <= set(WORDS)
    assert "2 objects in out.objects.json" in capsys.readouterr().out
    assert (saved / "f.npz").exists()


@pytest.mark.parametrize(
    "text,words",
    [
        (None, "words.txt: cannot be read"),
        (b"\n# nothing\n", "words.txt: holds no words"),
        (b"\xff\xfe\x00", "words.txt: is not text"),
        (b"lamp\nchair\nLamp\n", "words.txt: line 3 says 'Lamp' again, as line 1"),
    ],
)
def test_a_bad_list_is_one_clear_line(text, words, tmp_path, weights, scan_file, capsys):
    if text is not None:
        (tmp_path / "words.txt").write_bytes(text)
    line = f"segment {scan_file} -m {weights} --instances --words {tmp_path}/words.txt -o {tmp_path}/out.ply"
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out.ply").exists()


def test_what_cannot_be_named_is_refused(saved, weights, taught, room, capsys):
    line = f"segment {saved}/room.ply --words {saved}/words.txt -m"
    assert main([*line.split(), str(weights), "--instances"]) == 2
    assert "not grounded in language" in capsys.readouterr().err
    assert main([*line.split(), str(saved / "taught.safetensors")]) == 2
    assert "add --instances" in capsys.readouterr().err
    with pytest.raises(InputError, match="one string"):
        segment_words(taught, room, "lamp")
    with pytest.raises(InputError, match="occurs more than once"):
        segment_words(taught, room, ["lamp", "LAMP"])
    with pytest.raises(InputError, match="superpoints: expected whole numbers"):
        segment_words(taught, room, WORDS, superpoints=PARTS[1:])
