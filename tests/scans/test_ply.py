"""PLY files as people have them, and as they break."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement

from lground.errors import InputError
from lground.scans import Scan, read_scan, write_scan

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-2, 3, (60, 3)).astype("f4")
COLORS = RNG.integers(0, 256, (60, 3)).astype("u1")
FACES = np.stack([RNG.permutation(60)[:3] for _ in range(40)]).astype("i4")


def save(path, text=False, order="<", color="u1", faces=FACES, kind="f4", **scalars):
    columns = {k: POINTS[:, i].astype(kind) for i, k in enumerate("xyz")}
    if color:
        values = COLORS / 255 if np.dtype(color).kind == "f" else COLORS
        values = values.astype("u2") * 257 if color == "u2" else values
        columns |= {k: values[:, i].astype(color) for i, k in enumerate(("red", "green", "blue"))}
    columns |= scalars
    table = np.empty(60, [(k, v.dtype) for k, v in columns.items()])
    for name, values in columns.items():
        table[name] = values
    elements = [PlyElement.describe(table, "vertex")]
    if faces is not None:
        lists = np.empty(len(faces), [("vertex_indices", object)])
        lists["vertex_indices"] = [np.asarray(face, "i4") for face in faces]
        types = {"len_types": {"vertex_indices": "u1"}, "val_types": {"vertex_indices": "i4"}}
        elements.append(PlyElement.describe(lists, "face", **types))
    PlyData(elements, text=text, byte_order=order).write(str(path))
    return path


@pytest.mark.parametrize("text,order", [(False, "<"), (False, ">"), (True, "=")])
@pytest.mark.parametrize("color", ["u1", "u2", "f4", None])
@pytest.mark.parametrize("faces", [FACES, None])
def test_every_encoding_reads_the_same(tmp_path, text, order, color, faces):
    confidence = RNG.random(60).astype("f4")
    scan = read_scan(save(tmp_path / "a.ply", text, order, color, faces, "f8", confidence=confidence))
    np.testing.assert_array_equal(scan.points, POINTS)
    assert scan.points.dtype == np.float32
    np.testing.assert_allclose(scan.extras["confidence"], confidence, rtol=1e-6)
    if color:
        np.testing.assert_array_equal(scan.colors, COLORS)
        assert scan.colors.dtype == np.uint8
    else:
        assert scan.colors is None
    if faces is None:
        assert scan.faces is None
    else:
        np.testing.assert_array_equal(scan.faces, FACES)
        assert scan.faces.dtype == np.int32


@pytest.mark.parametrize("text", [True, False])
def test_polygons_become_fans_and_slivers_vanish(tmp_path, text):
    scan = read_scan(
        save(tmp_path / "a.ply", text, faces=[[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10, 11, 12, 13]])
    )
    expected = [[0, 1, 2], [0, 2, 3], [6, 7, 8], [9, 10, 11], [9, 11, 12], [9, 12, 13]]
    np.testing.assert_array_equal(scan.faces, expected)


def test_a_cloud_that_declares_no_faces(tmp_path):
    scan = read_scan(save(tmp_path / "a.ply", faces=[]))
    assert scan.faces is None and len(scan) == 60


def test_what_is_written_reads_back(tmp_path):
    extras = {
        "normals": RNG.normal(size=(60, 3)).astype("f4"),
        "label": np.arange(60, dtype="i8") - 1,
        "instance": np.arange(60, dtype="i4"),
        "score": RNG.random(60).astype("f4"),
        "kept": POINTS[:, 0] > 0,
        "feature": RNG.random((60, 2)),
    }
    scan = Scan(POINTS, COLORS, FACES, extras)
    write_scan(scan, tmp_path / "a.ply")
    assert b"binary_little_endian" in (tmp_path / "a.ply").read_bytes()[:60]
    back = read_scan(tmp_path / "a.ply")
    for a, b in ((scan.points, back.points), (scan.colors, back.colors), (scan.faces, back.faces)):
        np.testing.assert_array_equal(a, b)
    for name in ("normals", "label", "instance", "score", "kept"):
        np.testing.assert_array_equal(extras[name], back.extras[name])
    np.testing.assert_array_equal(extras["feature"][:, 1], back.extras["feature_1"])
    assert back.extras["label"].dtype == np.int32 and back.extras["score"].dtype == np.float32


def test_map_coordinates_survive(tmp_path, capsys):
    far = np.array([456789.25, 5432100.5, 312.0])
    table = np.empty(60, [(k, "f8") for k in "xyz"])
    exact = POINTS.astype("f8") + far
    for i, k in enumerate("xyz"):
        table[k] = exact[:, i]
    PlyData([PlyElement.describe(table, "vertex")]).write(str(tmp_path / "utm.ply"))
    scan = read_scan(tmp_path / "utm.ply")
    assert "far from the origin" in capsys.readouterr().err
    assert np.abs(scan.points).max() < 10 and (scan.offset == np.round(scan.offset)).all()
    np.testing.assert_allclose(scan.points + scan.offset, exact, atol=1e-6)
    write_scan(scan, tmp_path / "back.ply")
    assert PlyData.read(str(tmp_path / "back.ply"))["vertex"]["y"].dtype == np.float64
    again = read_scan(tmp_path / "back.ply")
    np.testing.assert_array_equal(again.points, scan.points)
    np.testing.assert_array_equal(again.offset, scan.offset)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_scan(Scan(POINTS), tmp_path / "a.ply")
    before = (tmp_path / "a.ply").read_bytes()
    with pytest.raises(ValueError):
        write_scan(Scan(POINTS, extras={"x": POINTS[:, 0], "ü": POINTS[:, 1]}), tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a.ply"]


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_scan(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("text", [True, False])
def test_truncated(tmp_path, text):
    path = save(tmp_path / "a.ply", text)
    whole = path.read_bytes()
    for keep in (len(whole) - 7, len(whole) // 2, 300, 50, 3, 0):
        path.write_bytes(whole[:keep])
        refused(path)


def test_a_lying_header_gets_no_memory(tmp_path):
    path = save(tmp_path / "a.ply", faces=None)
    path.write_bytes(path.read_bytes().replace(b"element vertex 60", b"element vertex 1000000000000"))
    refused(path, "promises 1000000000000 rows", "room for 60")
    text = save(tmp_path / "b.ply", True)
    text.write_bytes(text.read_bytes().replace(b"element face 40", b"element face 1000000000000"))
    limit = 8 << 30  # bytes of address space, far under what the header asks for
    code = "import sys, lground; lground.read_scan(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", code, str(text)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert "InputError" in run.stderr and "promises 1000000000000 rows of 'face'" in run.stderr


def test_face_indices_out_of_range(tmp_path):
    refused(
        save(tmp_path / "a.ply", faces=[[0, 1, 2], [3, 4, 60], [0, -1, 2]]), "2 of 3 faces", "0..59", "face 1"
    )


def test_no_coordinates_and_no_vertices(tmp_path):
    path = tmp_path / "a.ply"
    path.write_bytes(b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n2\n")
    refused(path, "no y, z", "found x")
    path.write_bytes(b"ply\nformat ascii 1.0\nelement point 2\nproperty float x\nend_header\n1\n2\n")
    refused(path, "no vertices")
    path.write_bytes(b"solid cube\n")
    refused(path, "not a PLY file")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    kinds = [(False, FACES[:4]), (True, FACES[:4]), (False, [[0, 1, 2, 3], [4, 5, 6]]), (True, None)]
    return [save(folder / f"{k}.ply", *kind[:1], faces=kind[1]).read_bytes() for k, kind in enumerate(kinds)]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_give_a_scan_or_an_input_error(seeds, tmp_path_factory, data):
    content = bytearray(seeds[data.draw(st.integers(0, 3))])
    header = content.index(b"end_header") + 11
    for _ in range(data.draw(st.integers(0, 4))):
        limit = header if data.draw(st.booleans()) else len(content)  # headers deserve half of the damage
        at = data.draw(st.integers(0, limit - 1))
        match data.draw(st.sampled_from(["flip", "cut", "put", "digits"])):
            case "flip":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 30))]
            case "put":
                content[at:at] = data.draw(st.binary(max_size=20))
            case "digits":
                content[at:at] = data.draw(
                    st.sampled_from([b"9", b"000000", b"-", b"1e9", b" nan ", b"uint "])
                )
        if len(content) < 20:
            break
        header = min(header, len(content))
    path = tmp_path_factory.getbasetemp() / "fuzz.ply"
    path.write_bytes(bytes(content))
    try:
        scan = read_scan(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert len(scan) >= 2 and np.isfinite(scan.points).all()
    if scan.faces is not None and len(scan.faces):
        assert 0 <= scan.faces.min() and scan.faces.max() < len(scan)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.ply"
    path.write_bytes(b"ply\nformat ascii 1.0\n" + content)
    with pytest.raises(InputError):
        read_scan(path)
