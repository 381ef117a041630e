"""Anchors: prompts, attributes, files of every kind, checks, and the command."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lground.cli import main
from lground.errors import InputError
from lground.labels import load_labels
from lground.text import Anchors, build_anchors, encode_texts, load_anchors, save_anchors
from lground.text.anchors import ATTRIBUTES

NAMES = ("chair", "office chair", "lamp")


@pytest.fixture
def made():
    vectors = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    return Anchors(vectors, NAMES, "clip", "a {} in a room")


def same(a: Anchors, b: Anchors) -> bool:
    return torch.equal(a.vectors, b.vectors) and (a.names, a.encoder, a.prompt) == (
        b.names,
        b.encoder,
        b.prompt,
    )


def test_plain_names_are_encoded_as_they_are(tiny_clip):
    anchors = build_anchors(NAMES, str(tiny_clip))
    assert torch.equal(anchors.vectors, encode_texts(NAMES, str(tiny_clip)))
    assert anchors.names == NAMES and anchors.encoder == str(tiny_clip) and anchors.prompt == "{}"


def test_several_prompts_are_averaged_after_normalisation(tiny_clip):
    prompts = ["a {} in a room", "the {}"]
    parts = [
        normalize(encode_texts([p.replace("{}", n) for n in NAMES], str(tiny_clip)), dim=1) for p in prompts
    ]
    anchors = build_anchors(NAMES, str(tiny_clip), prompts)
    torch.testing.assert_close(anchors.vectors, normalize((parts[0] + parts[1]) / 2, dim=1))
    assert anchors.prompt == "a {} in a room | the {}"
    one = build_anchors(NAMES, str(tiny_clip), prompts[:1])
    torch.testing.assert_close(normalize(one.vectors, dim=1), parts[0])


def test_attributes_are_the_eight_prefixes(tiny_clip):
    anchors = build_anchors(NAMES, str(tiny_clip), attributes=True)
    assert anchors.vectors.shape == (3, 9, 24)
    for k, word in enumerate(ATTRIBUTES):
        expected = encode_texts([f"A {word} {n}" for n in NAMES], str(tiny_clip))
        torch.testing.assert_close(anchors.vectors[:, 1 + k], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        anchors.vectors[:, 0], build_anchors(NAMES, str(tiny_clip)).vectors, rtol=1e-4, atol=1e-5
    )
    templated = build_anchors(NAMES, str(tiny_clip), "the {}", attributes=True).vectors[:, 1]
    expected = encode_texts([f"the red {n}" for n in NAMES], str(tiny_clip))
    torch.testing.assert_close(templated, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "prompt", "message"),
    [((), "{}", "no class names"), (("a", " "), "{}", "class 1 has an empty"), (("a",), "b", "has no {}")],
)
def test_wrong_words(names, prompt, message):
    with pytest.raises(InputError, match=message):
        build_anchors(names, prompt=prompt)
    with pytest.raises(InputError, match="no prompt"):
        build_anchors(("a",), prompt=[])


def test_safetensors_round_trip(made, tmp_path):
    path = tmp_path / "a.safetensors"
    save_anchors(made, path)
    assert same(load_anchors(path), made) and same(load_anchors(path, NAMES), made)
    from safetensors import safe_open

    with safe_open(path, "np") as file:  # the format others read
        assert list(file.keys()) == ["anchors"] and file.get_tensor("anchors").shape == (3, 5)
        assert json.loads(file.metadata()["names"]) == list(NAMES)
        assert file.metadata()["encoder"] == "clip" and file.metadata()["prompt"] == "a {} in a room"
    attributed = Anchors(torch.randn(3, 9, 5), NAMES, "clip", "{}")
    save_anchors(attributed, path)
    assert same(load_anchors(path), attributed)
    with pytest.raises(InputError, match="change the suffix"):
        save_anchors(made, tmp_path / "a.npy")


def test_named_files_give_the_rows_asked_for(made, tmp_path):
    save_anchors(made, tmp_path / "a.safetensors")
    some = load_anchors(tmp_path / "a.safetensors", ("lamp", "chair"))
    assert torch.equal(some.vectors, made.vectors[[2, 0]]) and some.names == ("lamp", "chair")
    with pytest.raises(InputError, match="no anchor for 'sofa', 'bed'"):
        load_anchors(tmp_path / "a.safetensors", ("lamp", "sofa", "bed"))


@pytest.mark.parametrize("kind", ["npy", "npz", "named npz", "float16 npy"])
def test_numpy_tables(kind, made, tmp_path):
    array = made.vectors.numpy()
    path = tmp_path / ("t.npy" if kind.endswith("npy") else "t.npz")
    if kind == "npy":
        np.save(path, array)
    elif kind == "float16 npy":
        np.save(path, array.astype(np.float16))
    elif kind == "npz":
        np.savez(path, clip=array, ids=np.arange(3))
    else:
        np.savez(path, anchors=array[::-1], other=array, names=np.array(NAMES[::-1]))
    loaded = load_anchors(path, NAMES)
    torch.testing.assert_close(loaded.vectors, made.vectors, rtol=1e-3, atol=1e-3)
    assert loaded.vectors.dtype == torch.float32 and loaded.names == NAMES
    if "named" not in kind:
        with pytest.raises(InputError, match="has 3 anchors for 2 classes"):
            load_anchors(path, NAMES[:2])
        assert load_anchors(path).names == ("0", "1", "2")


def test_bad_rows_are_named(tmp_path):
    table = np.ones((3, 4), np.float32)
    table[1, 2] = np.nan
    np.save(tmp_path / "t.npy", table)
    with pytest.raises(InputError, match=r"t\.npy: anchors are NaN or infinite for 'office chair'"):
        load_anchors(tmp_path / "t.npy", NAMES)
    table[1] = 0
    np.save(tmp_path / "t.npy", table)
    with pytest.raises(InputError, match="zero for 'office chair'"):
        load_anchors(tmp_path / "t.npy", NAMES)
    attributed = np.ones((3, 9, 4), np.float32)
    attributed[2, 5] = 0
    np.save(tmp_path / "t.npy", attributed)
    with pytest.raises(InputError, match="zero for 'lamp'"):
        load_anchors(tmp_path / "t.npy", NAMES)
    many = np.full((20, 4), np.inf)
    np.save(tmp_path / "t.npy", many)
    with pytest.raises(InputError, match="20 classes, such as 'wall'"):
        load_anchors(tmp_path / "t.npy", load_labels("scannet20").names)


def test_broken_files_get_one_line(made, tmp_path):
    def refuse(name, match):
        with pytest.raises(InputError, match=match) as error:
            load_anchors(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)

    refuse("none.npy", "no such file")
    (tmp_path / "a.csv").touch()
    refuse("a.csv", "not a table")
    np.savez(tmp_path / "two.npz", a=np.ones((3, 4)), b=np.ones((3, 4)))
    refuse("two.npz", "keep one table")
    np.save(tmp_path / "flat.npy", np.ones(4))
    refuse("flat.npy", "is needed")
    np.save(tmp_path / "empty.npy", np.ones((0, 4)))
    refuse("empty.npy", "is needed")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    refuse("words.npy", "not numbers")
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    refuse("objects.npy", "cannot be read")
    save_anchors(made, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", anchors=np.ones((300, 40)))
    np.save(tmp_path / "a.npy", np.ones((300, 40)))
    for name in ("a.safetensors", "a.npz", "a.npy"):
        whole = (tmp_path / name).read_bytes()
        for part in (whole[: len(whole) // 2], b"", b"nonsense" * 20):
            (tmp_path / name).write_bytes(part)
            refuse(name, "cannot be read")
    lying = (
        b"\x93NUMPY\x01\x00"
        + b"\x76\x00"
        + (b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 512), }".ljust(117) + b"\n")
    )
    (tmp_path / "a.npy").write_bytes(lying)  # asks for 4 petabytes
    refuse("a.npy", "cannot be read")
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    refuse("a.safetensors", "no tensor 'anchors'")
    save_file({"anchors": torch.ones(2, 2)}, tmp_path / "a.safetensors", {"names": '["one"]'})
    refuse("a.safetensors", "1 names for 2")
    save_file({"anchors": torch.ones(2, 2)}, tmp_path / "a.safetensors", {"names": "[1, 2]"})
    refuse("a.safetensors", "list of strings")


def test_nearest():
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 5.0]])
    nearest = Anchors(vectors, NAMES, "", "").nearest()
    assert [[n for n, _ in row] for row in nearest] == [
        ["office chair", "lamp"],
        ["chair", "lamp"],
        ["office chair", "chair"],
    ]
    assert nearest[0][1][1] == pytest.approx(0)


def test_command_with_own_names_and_prompts(tmp_path, capfd):
    names = tmp_path / "names.txt"
    names.write_text("chair\narmchair\nbanana\n")
    out = tmp_path / "a.safetensors"
    assert (
        main(["anchors", str(out), "--labels", str(names), "--prompt", "a {}", "--prompt", "{} indoors"]) == 0
    )
    printed, errors = capfd.readouterr()
    assert errors == ""
    lines = printed.splitlines()
    assert lines[0] == f"{out}: 3 x 384, encoder minilm, prompt a {{}} | {{}} indoors"
    assert lines[1].startswith("  chair -> armchair ") and lines[-1].startswith(
        "  closest pair: chair and armchair"
    )
    loaded = load_anchors(out)
    assert loaded.names == ("chair", "armchair", "banana") and loaded.encoder == "minilm"
    torch.testing.assert_close(
        loaded.vectors, build_anchors(loaded.names, "minilm", ("a {}", "{} indoors")).vectors
    )


def test_command_from_a_table(tmp_path, capfd):
    table = np.random.default_rng(0).standard_normal((200, 512)).astype(np.float32)
    np.save(tmp_path / "clip.npy", table)
    out = tmp_path / "a.safetensors"
    assert main(["anchors", str(out), "--from", str(tmp_path / "clip.npy"), "--encoder", "clip"]) == 0
    assert capfd.readouterr().out.startswith(f"{out}: 200 x 512, encoder clip, prompt not known")
    loaded = load_anchors(out)
    assert loaded.names == load_labels().names and loaded.encoder == "clip"
    assert torch.equal(loaded.vectors, torch.from_numpy(table))


@pytest.mark.parametrize(
    "options",
    [
        ["--from", "none.npy"],
        ["--from", "none.npy", "--attributes"],
        ["--prompt", "no place"],
        ["--labels", "none.txt"],
        ["--encoder", "./none"],
    ],
)
def test_command_refuses_in_one_line(options, tmp_path, capfd):
    out = tmp_path / "a.safetensors"
    assert main(["anchors", str(out), *options]) == 2
    printed, errors = capfd.readouterr()
    assert printed == "" and errors.count("\n") == 1 and errors.startswith("lground: ")
    assert list(tmp_path.iterdir()) == []
    assert main(["anchors", str(tmp_path / "a.npy")]) == 2
