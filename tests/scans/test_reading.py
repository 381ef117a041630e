"""What every format shares: units, extents, one clear line for no scan; and the formats other than PLY."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lground as lg
from lground.errors import InputError
from lground.scans import Scan, check_scan, read_scan, write_scan
from lground.scans.pcd import lzf_decompress

RNG = np.random.default_rng(1)
POINTS = RNG.uniform(0, [5, 4, 2.5], (80, 3)).astype("f4")
COLORS = RNG.integers(0, 256, (80, 3)).astype("u1")


def npz(path, points, **arrays):
    np.savez(path, points=points, **arrays)
    return path


def refused(path, *words, **options):
    with pytest.raises(InputError) as caught:
        read_scan(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    "units,factor", [("m", 1), ("cm", 100), ("mm", 1000), ("ft", 1 / 0.3048), ("in", 1 / 0.0254)]
)
def test_units(tmp_path, units, factor):
    path = npz(tmp_path / "a.npz", POINTS.astype("f8") * factor)
    np.testing.assert_allclose(read_scan(path, units=units).points, POINTS, atol=1e-5)


def test_a_scan_in_other_units_is_told(tmp_path):
    refused(npz(tmp_path / "a.npz", POINTS * 1000), "a.npz", "--units mm")
    refused(npz(tmp_path / "a.npz", POINTS * 100), "a.npz", "--units cm")
    refused(npz(tmp_path / "a.npz", POINTS * 1000), "check --units", units="ft")
    refused(npz(tmp_path / "a.npz", POINTS), "read as mm", "--units", units="mm")
    refused(npz(tmp_path / "a.npz", POINTS / 1e5), "all points lie within", "--units")
    refused(npz(tmp_path / "a.npz", POINTS), "--units km", "mm", units="km")


def test_what_cannot_be_a_scan(tmp_path):
    refused(npz(tmp_path / "a.npz", POINTS[:0]), "is empty")
    refused(npz(tmp_path / "a.npz", POINTS[:1]), "one point")
    bad = POINTS.copy()
    bad[7, 1], bad[9] = np.nan, np.inf
    refused(npz(tmp_path / "a.npz", bad), "2 of 80", "vertex 7", "NaN")
    refused(npz(tmp_path / "a.npz", POINTS, faces=np.array([[0, 1, 80]])), "1 of 1 faces", "0..79")
    refused(npz(tmp_path / "a.npz", POINTS, colors=COLORS[:5]), "a.npz", "colors has 5 rows for 80")
    refused(npz(tmp_path / "a.npz", POINTS, colors=np.full((80, 3), np.nan)), "a.npz", "colors hold NaN")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.ply", "no such file")
    (tmp_path / "a.docx").touch()
    refused(tmp_path / "a.docx", "unknown suffix '.docx'", ".ply", ".pcd", ".laz")


def test_scans_made_in_python_are_checked():
    check_scan(Scan(POINTS))
    for points, faces in (
        (POINTS * np.nan, None),
        (POINTS + 2e6, None),
        (POINTS, [[0, 1, 99]]),
        (POINTS[:1], None),
    ):
        with pytest.raises(InputError):
            check_scan(Scan(points, faces=faces))
    with pytest.raises(InputError, match="shape"):
        Scan(POINTS[:, :2])


def test_too_big_for_memory(tmp_path, monkeypatch):
    write_scan(Scan(POINTS), tmp_path / "a.ply")
    np.save(tmp_path / "a.npy", POINTS)
    monkeypatch.setattr("lground.scans.raw.available_memory", lambda: 1000)
    refused(tmp_path / "a.ply", "GiB of memory", "thin the cloud out")
    refused(tmp_path / "a.npy", "GiB of memory", "thin the cloud out")


@pytest.mark.parametrize("keys", [("points", "colors"), ("coord", "color"), ("xyz", "rgb")])
def test_npz_names(tmp_path, keys):
    arrays = {keys[0]: POINTS, keys[1]: COLORS, "label": np.arange(80), "about": np.array([1, 2])}
    np.savez(tmp_path / "a.npz", **arrays)
    scan = lg.read_scan(tmp_path / "a.npz")
    np.testing.assert_array_equal(scan.points, POINTS)
    np.testing.assert_array_equal(scan.colors, COLORS)
    assert set(scan.extras) == {"label"}


def test_npz_round_trip_and_npy(tmp_path):
    scan = Scan(POINTS, COLORS, [[0, 1, 2]], {"normals": POINTS, "feature": POINTS[:, :2]})
    write_scan(scan, tmp_path / "a.npz")
    back = read_scan(tmp_path / "a.npz")
    for name in scan.extras:
        np.testing.assert_array_equal(back.extras[name], scan.extras[name])
    np.testing.assert_array_equal(back.faces, scan.faces)
    np.save(tmp_path / "a.npy", np.concatenate([POINTS, COLORS], axis=1))
    back = read_scan(tmp_path / "a.npy")
    np.testing.assert_array_equal(back.points, POINTS)
    np.testing.assert_array_equal(back.colors, COLORS)


def test_numpy_files_that_are_not_plain(tmp_path):
    np.savez(tmp_path / "a.npz", points=np.array([{"a": 1}], dtype=object))
    refused(tmp_path / "a.npz", "damaged")
    np.savez(tmp_path / "b.npz", vertices=POINTS)
    refused(tmp_path / "b.npz", "no array named points", "vertices")
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-40])
    refused(tmp_path / "c.npz", "damaged")
    np.save(tmp_path / "d.npy", POINTS)
    content = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(content.replace(b"(80, 3)", b"(8 << 40, 3)"[:7]))
    refused(tmp_path / "d.npy")
    (tmp_path / "e.npy").write_bytes(content[:-100])
    refused(tmp_path / "e.npy", "damaged")


def test_obj(tmp_path):
    path = tmp_path / "a.obj"
    lines = [
        f"v {x} {y} {z} {r / 255} {g / 255} {b / 255}"
        for (x, y, z), (r, g, b) in zip(POINTS, COLORS, strict=True)
    ]
    path.write_text("\n".join([*lines, "f 1 2 3", "f 4 5 6 7"]))
    scan = read_scan(path)
    np.testing.assert_allclose(scan.points, POINTS, rtol=1e-6)
    np.testing.assert_array_equal(scan.colors, COLORS)
    assert sorted(map(sorted, scan.faces.tolist())) == [[0, 1, 2], [3, 4, 5], [3, 5, 6]]
    path.write_text("\n".join(lines))  # a cloud
    assert len(read_scan(path)) == 80
    path.write_text("nothing here")
    refused(path, "a.obj")


def pcd(path, data, rows, fields, extra=""):
    types = {"f4": ("4", "F"), "u4": ("4", "U"), "u1": ("1", "U")}
    sizes, kinds = zip(*(types[kind] for _, kind in fields), strict=True)
    header = [
        "# .PCD v.7",
        "FIELDS " + " ".join(name for name, _ in fields),
        "SIZE " + " ".join(sizes),
        "TYPE " + " ".join(kinds),
        "COUNT " + " ".join("1" for _ in fields),
        f"WIDTH {rows}",
        "HEIGHT 1",
        f"POINTS {rows}",
        extra,
    ]
    path.write_bytes("\n".join(header).encode() + data)
    return path


def lzf_literals(content):
    """LZF without any reference: what a lazy but valid packer writes."""
    chunks = [content[i : i + 32] for i in range(0, len(content), 32)]
    return b"".join(bytes([len(chunk) - 1]) + chunk for chunk in chunks)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path, encoding):
    packed = COLORS.astype("u4") @ np.array([65536, 256, 1], "u4")
    fields = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "u4"), ("curvature", "f4")]
    table = np.empty(80, fields)
    table["x"], table["y"], table["z"] = POINTS.T
    table["rgb"], table["curvature"] = packed, POINTS[:, 0] / 9
    if encoding == "ascii":
        data = "\n".join(" ".join(str(value) for value in row) for row in table.tolist()).encode()
    elif encoding == "binary":
        data = table.tobytes()
    else:
        columns = b"".join(table[name].tobytes() for name, _ in fields)
        data = lzf_literals(columns)
        data = struct.pack("<II", len(data), len(columns)) + data
    path = pcd(tmp_path / "a.pcd", data, 80, fields, f"DATA {encoding}\n")
    scan = read_scan(path)
    np.testing.assert_allclose(scan.points, POINTS, rtol=1e-6)
    np.testing.assert_array_equal(scan.colors, COLORS)
    np.testing.assert_allclose(scan.extras["curvature"], POINTS[:, 0] / 9, rtol=1e-6)
    path.write_bytes(path.read_bytes()[:-200])
    refused(path, "a.pcd")
    refused(pcd(path, data, 10**12, fields, f"DATA {encoding}\n"), "a.pcd")


def test_lzf_references_repeat_what_was_unpacked():
    # "ab", then 9 bytes from two back: a reference longer than its distance; by the format's definition.
    assert lzf_decompress(bytes([1]) + b"ab" + bytes([7 << 5, 0, 1]), 11) == b"ababababab" + b"a"
    with pytest.raises(ValueError):
        lzf_decompress(bytes([1]) + b"ab" + bytes([1 << 5, 9]), 5)


@settings(max_examples=150)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_lzf_never_runs_away(content, size):
    try:
        assert len(lzf_decompress(content, size)) == size
    except (ValueError, IndexError):
        pass


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_las(tmp_path, suffix, capsys):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales, header.offsets = np.full(3, 1e-4), np.array([500000.0, 5400000.0, 300.0])
    cloud = laspy.LasData(header)
    exact = POINTS + header.offsets
    cloud.x, cloud.y, cloud.z = exact.T
    cloud.red, cloud.green, cloud.blue = COLORS.astype("u2").T * 257
    cloud.write(tmp_path / f"a{suffix}")
    scan = read_scan(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(scan.points + scan.offset, exact, atol=1e-4)
    np.testing.assert_array_equal(scan.colors, COLORS)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[: len(content) // 2])
    refused(tmp_path / f"b{suffix}", f"b{suffix}")


def test_a_missing_reader_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "laspy", None)
    (tmp_path / "a.las").write_bytes(b"LASF")
    refused(tmp_path / "a.las", "needs laspy", 'pip install "lground[formats]"')
