"""Shapes of programs: they fit what they are for, and what was tuned is kept, or does no harm."""

import json
import multiprocessing
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from lground.models import build
from lground.sparse.kernels import configuration
from lground.sparse.kernels.configuration import choose, key, read, store
from lground.sparse.kernels.problems import layers
from lground.sparse.kernels.shapes import PROGRAMS, Chip, Config, chip, default, fits, shared_memory

CPU = torch.device("cpu")
# Multiprocessors and bytes of shared memory that a program can have.
CHIPS = {
    "T4": Chip(40, 65536),
    "A100": Chip(108, 166912),
    "RTX 3060": Chip(28, 101376),
    "RTX 4090": Chip(128, 101376),
    "H200": Chip(),
    "B200": Chip(148, 232448),
    "RTX 5090": Chip(170, 101376),
    "MI300X": Chip(304, 65536, 2),
}
WIDTHS = [
    (i, o)
    for i in (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    for o in (16, 32, 64, 96, 192, 256, 384, 512)
]
TYPES = torch.float16, torch.bfloat16, torch.float32


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def tiles(number: int, volume: int = 27) -> SimpleNamespace:
    return SimpleNamespace(n=torch.zeros(1), capacity=number * 64, tile_rows=64, volume=volume)


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("volume", [8, 27])
def test_every_shape_of_the_rule_fits_the_device_and_the_layer(name, volume):
    for widths in WIDTHS:
        for dtype in TYPES:
            for number in (1, 3, 15, 44, 175, 666, 2074, 20000):
                config = default(CHIPS[name], volume, *widths, dtype, number)
                assert fits(config, CHIPS[name], volume, *widths, dtype), (config, widths)
                assert config.splits & config.splits - 1 == 0


def test_a_layer_that_is_split_has_a_counter_for_each_program():
    for number in (1, 2, 15, 175, 500, 5000):
        for widths in WIDTHS:
            config = choose(tiles(number), *widths, torch.float16, rows=64)
            assert config.splits == 1 or number * (widths[1] // config.columns) <= PROGRAMS


def test_rows_that_are_likely_to_be_there_decide_instead_of_the_room_for_them():
    roomy = choose(tiles(300), 256, 256, torch.float16, rows=15 * 64)
    assert roomy == choose(tiles(15), 256, 256, torch.float16) != choose(tiles(300), 256, 256, torch.float16)
    assert choose(tiles(15), 256, 256, torch.float16, rows=10**6) == choose(
        tiles(15), 256, 256, torch.float16
    )


@pytest.mark.parametrize("voxels", [43_000, 133_000, 360_000])
def test_few_shapes_serve_a_network(voxels):
    """For each of them a kernel or two are compiled at the first scan of all."""
    with torch.device("meta"):
        network = build("Res16UNet34C")
    shapes = set()
    for layer in layers(network):
        number = int(voxels * (1, 0.32, 0.085, 0.021, 0.005)[layer.target] / 64) + 1
        volume = 27 if layer.kind == "same" else 8
        config = default(Chip(), volume, layer.in_channels, layer.out_channels, torch.float16, number)
        shapes.add(
            replace(config, splits=min(config.splits, 2))
        )  # the number of parts is no constant of a kernel
    assert len(shapes) <= 10


def test_what_is_stored_is_read_and_chosen():
    layer = key(27, 64, 64, "float16", 15)
    assert read(CPU) == {}
    store(CPU, {layer: Config(32, 16, 4, 2, 1)})
    store(CPU, {key(8, 32, 32, "tf32", 15): Config(32, 32, 4, 3, 1)})  # adds to the file
    assert len(read(CPU)) == 2 and read(CPU)[layer] == Config(32, 16, 4, 2, 1)


def test_what_was_tuned_is_chosen_for_numbers_of_tiles_of_its_class_alone(monkeypatch):
    found = {key(27, 64, 64, "float16", 15): Config(32, 16, 4, 2, 4)}
    monkeypatch.setattr(configuration, "tuned", lambda device: found)
    assert choose(tiles(9), 64, 64, torch.float16) == Config(32, 16, 4, 2, 4)
    assert choose(tiles(16), 64, 64, torch.float16) == default(Chip(), 27, 64, 64, torch.float16, 16)
    assert choose(tiles(15), 64, 64, torch.bfloat16) == default(Chip(), 27, 64, 64, torch.bfloat16, 15)
    monkeypatch.setattr(configuration, "PROGRAMS", 20)
    assert choose(tiles(15), 64, 64, torch.float16).splits == 1


def test_float32_is_tuned_apart_from_tf32():
    allowed = torch.backends.cuda.matmul.allow_tf32
    kinds = set()
    try:
        for torch.backends.cuda.matmul.allow_tf32 in (False, True):
            kinds.add(configuration.kind_of(torch.float32))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    assert kinds == {"float32", "tf32"}


GOOD = {"kernels": "", "layers": {"27 64 64 float16 4": [64, 32, 4, 5, 4]}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"kernels": "@"}',
        json.dumps({**GOOD, "kernels": "another"}),
        *(
            json.dumps({"kernels": "@", "layers": {layer: shape}})
            for layer, shape in (
                ("27 64 64 float16 4", [64, 32, 4, 5]),
                ("27 64 64 float16 4", [64, 32, 4, 5, "4"]),
                ("27 64 64 float16 4", [64, 32, 4, 5, 0]),
                ("27 64 64 float16 4", [128, 32, 4, 5, 1]),  # wider than the layer
                ("27 64 64 float16 4", [64, 32, 4, 500, 1]),
                ("27 64 64 float16", [64, 32, 4, 5, 1]),
                ("27 64 64 float1 4", [64, 32, 4, 5, 1]),
            )
        ),
    ],
)
def test_a_damaged_file_or_one_of_other_kernels_is_left_alone_with_one_line(text):
    configuration.path(CPU).parent.mkdir(parents=True)
    configuration.path(CPU).write_text(text.replace("@", configuration.version()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(CPU) == {}
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    with warnings.catch_warnings(record=True):
        store(CPU, {"27 64 64 float16 4": Config(64, 32, 4, 5, 4)})
    assert read(CPU) == {"27 64 64 float16 4": Config(64, 32, 4, 5, 4)}


def test_a_cache_that_cannot_be_read_does_no_harm(folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(CPU) == {}
    assert len(caught) == 1


def write(number: int) -> None:
    warnings.simplefilter("error")
    for _ in range(25):
        store(CPU, {key(27, 32 * w, 32, "float16", number): Config(32, 32, 4, 3, 1) for w in range(1, 40)})


def test_the_file_is_whole_whoever_writes_at_the_same_time():
    forking = multiprocessing.get_context("fork")
    writers = [forking.Process(target=write, args=(1 << i,)) for i in range(3)]
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of processes that fork and have threads
        for writer in writers:
            writer.start()
        warnings.simplefilter("error")
        while any(writer.is_alive() for writer in writers):
            seen = max(seen, len(read(CPU)))
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert seen >= 39 and len(read(CPU)) % 39 == 0
    assert len(list(configuration.path(CPU).parent.iterdir())) == 1  # and nothing lies about


COMPILER = """
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from lground.sparse.kernels.shapes import shared_memory
from lground.sparse.kernels.convolution import convolve
function = getattr(convolve, "function", convolve)
names = function.arg_names
types = dict.fromkeys(["x", "w", "y", "add"], "*fp16") | dict.fromkeys(["scale", "shift", "parts"], "*fp32")
types |= dict.fromkeys(["neighbours", "offsets", "counts", "rows", "n", "arrivals"], "*i32")
aligned = [*types, "x_stride", "y_stride", "add_stride", "w_offset", "w_in", "part_stride", "out_channels"]
constants = {"order": None, "TM": 64, "RELU": True, "PRECISION": "ieee", "w_out": 1}
for capability, columns, depth, stages in ((86, 128, 64, 5), (90, 128, 64, 5), (90, 96, 64, 3)):
    constants |= {"BN": 64 if columns == 96 else columns, "BN2": 32 if columns == 96 else 0, "BK": depth}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    source = ASTSource(
        function, signature, {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned if name in names},
    )
    compiled = compile(source, GPUTarget("cuda", capability, 32), {"num_warps": 4, "num_stages": stages})
    bound = shared_memory(columns, depth, stages, torch.float16)
    assert bound / 2 < compiled.metadata.shared <= bound, (columns, compiled.metadata.shared, bound)
"""


def test_programs_take_no_more_shared_memory_than_thought():
    """Compiled for devices that need not be there."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "0 compatible backends" in done.stderr:
        pytest.skip("this Triton does not compile for CUDA")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
def test_this_device_is_known():
    found = chip(torch.device("cuda", 0))
    assert found.multiprocessors > 0 and found.shared_memory >= shared_memory(64, 32, 2, torch.float16)
