"""The data set and its loader: exact, repeatable, the same for any number of workers and after a resume."""

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lground.data import EpochSampler, SceneDataset, batches, build_loader, training_transforms
from lground.errors import InputError
from lground.labels import load_labels


def flatten(loader) -> list[list[torch.Tensor | np.ndarray | str]]:
    """Everything the loader yields, in order."""
    return [[value for batch in step for value in contents(batch)] for step in loader]


def contents(batch):
    yield from (batch.coordinates, batch.features, batch.labels, batch.instances)
    for scene in batch.scenes:
        yield from vars(scene).values()


def equal(one, two) -> bool:
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return type(one) is type(two) and np.array_equal(one, two)


@pytest.fixture
def train(store):
    return SceneDataset(store, "train", transforms=training_transforms(), seed=3)


def test_validation_is_exact_per_vertex(store):
    data = SceneDataset(store, "val")
    for index, folder in enumerate(sorted((store / "val").iterdir())):
        scene = data[0, index]
        coord, segment = np.load(folder / "coord.npy"), np.load(folder / "segment200.npy")
        assert scene.name == folder.name
        assert (scene.coordinates[scene.inverse] == np.floor(coord.astype(np.float64) / 0.02)).all()
        assert (scene.vertex_labels == segment).all() and scene.vertex_labels.dtype == np.int16
        first = [np.flatnonzero(scene.inverse == voxel)[0] for voxel in range(len(scene))]
        assert (scene.labels == segment[first]).all()
        assert (scene.colors == np.load(folder / "color.npy")[first]).all()
        assert (scene.instances == np.load(folder / "instance.npy")[first]).all()


def test_label_set_and_unlabelled_scenes(store):
    folder = sorted((store / "val").iterdir())[0]
    twenty = SceneDataset(store, "val", label_set="scannet20")[0, 0]
    assert (twenty.vertex_labels == np.load(folder / "segment20.npy")).all()
    test = SceneDataset(store, "test")[0, 0]
    assert (test.labels == -1).all() and (test.instances == -1).all() and (test.vertex_labels == -1).all()


def test_annotation_hides_labels_in_training_only(store):
    folder = sorted((store / "train").iterdir())[3]
    mask = np.load(folder / "annotated.object-0.05.npy")
    scene = SceneDataset(store, "train", annotation="object-0.05", voxel_size=1e-5)[0, 3]
    assert len(scene) == len(mask)  # such small voxels hold one vertex each
    assert (scene.vertex_labels == np.where(mask, np.load(folder / "segment200.npy"), -1)).all()
    assert (scene.instances == np.where(mask, np.load(folder / "instance.npy"), -1)).all()
    full = SceneDataset(store, "val", annotation="object-0.05")[0, 0]
    assert (full.vertex_labels == np.load(sorted((store / "val").iterdir())[0] / "segment200.npy")).all()


def test_classes_held_out_are_unlabelled_in_training_only(store):
    names = load_labels("scannet200").names
    held_out = names[3], names[150]
    shown, plain = (SceneDataset(store, "train", hold_out=h, voxel_size=1e-5)[0, 3] for h in (held_out, ()))
    hidden = np.isin(plain.labels, [3, 150])
    assert hidden.any()
    np.testing.assert_array_equal(shown.labels, np.where(hidden, -1, plain.labels))
    np.testing.assert_array_equal(shown.instances, np.where(hidden, -1, plain.instances))
    counts = SceneDataset(store, "train", hold_out=held_out).class_counts(200)
    assert counts[[3, 150]].tolist() == [0, 0] and counts.sum() > 0
    validation = [SceneDataset(store, "val", hold_out=h)[0, 0].labels for h in (held_out, ())]
    np.testing.assert_array_equal(*validation)
    with pytest.raises(InputError, match=r"hold_out: chiar is no class of scannet200; did you mean chair"):
        SceneDataset(store, "train", hold_out=["chiar"])
    with pytest.raises(InputError, match="names chair twice"):
        SceneDataset(store, "train", hold_out=["chair", "chair"])


def test_annotation_by_scenes_keeps_a_list_of_scenes(store):
    few = SceneDataset(store, "train", annotation="scenes-0.10")
    assert [few[0, i].name for i in range(len(few))] == ["scene0002_00", "scene0005_00"]
    assert len(SceneDataset(store, "val", annotation="scenes-0.10")) == 2


@pytest.mark.parametrize("cache", [False, True])
def test_class_counts(store, cache):
    counted = SceneDataset(store, "train", annotation="object-0.05", cache=cache).class_counts(200)
    expected = Counter()
    for folder in (store / "train").iterdir():
        mask = np.load(folder / "annotated.object-0.05.npy")
        expected.update(np.load(folder / "segment200.npy")[mask].tolist())
    assert counted.tolist() == [expected[c] for c in range(200)]


def test_items_depend_on_seed_epoch_and_index_only(store, train):
    train[1, 0], train[0, 4]
    again = SceneDataset(store, "train", transforms=training_transforms(), seed=3)
    assert np.array_equal(train[2, 4].coordinates, again[2, 4].coordinates)
    assert np.array_equal(train[2, 4].colors, again[2, 4].colors)
    other = SceneDataset(store, "train", transforms=training_transforms(), seed=4)
    for different in (train[3, 4], other[2, 4]):
        assert not np.array_equal(train[2, 4].colors, different.colors)


def test_cache_gives_the_same_items_without_the_files(store, train, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    cached = SceneDataset(copy, "train", transforms=training_transforms(), seed=3, cache=True)
    shutil.rmtree(copy)
    loaders = [build_loader(data, 3, shuffle=True, epoch=2) for data in (train, cached, cached)]
    one, two, three = map(flatten, loaders)
    assert equal(one, two) and equal(two, three)


def test_batches_for_training_leave_their_scenes_behind(train):
    options = {"batch_size": 2, "shuffle": True, "epoch": 1, "workers": 1}
    whole, slim = (list(build_loader(train, whole=whole, **options)) for whole in (True, False))
    for one, other in zip(whole, slim, strict=True):
        for batch, bare in zip(one, other, strict=True):
            assert batch.labels.equal(bare.labels) and batch.coordinates.equal(bare.coordinates)
            assert [scene.name for scene in batch.scenes] == batch.names == bare.names and not bare.scenes
            assert [len(scene) for scene in batch.scenes] == batch.sizes == bare.sizes


def test_same_batches_for_any_number_of_workers_and_after_resume(train):
    options = {"batch_size": 2, "point_limit": 700, "shuffle": True, "seed": 5, "epoch": 1}
    whole = flatten(build_loader(train, **options))
    assert len(whole) == 4
    for workers in (1, 2):
        assert equal(whole, flatten(build_loader(train, workers=workers, **options)))
    for start in (1, 3, 4):
        assert equal(
            whole[start:], flatten(build_loader(train, start_batch=start, workers=start % 3, **options))
        )
    other_epoch = flatten(build_loader(train, **{**options, "epoch": 2}))
    assert not equal(whole, other_epoch)
    assert equal(whole + other_epoch, flatten(build_loader(train, epochs=2, workers=2, **options)))


def test_ranks_together_see_what_one_process_sees(train):
    one = flatten(build_loader(train, 4, shuffle=True, seed=1, epoch=6))
    two = [
        flatten(build_loader(train, 2, shuffle=True, seed=1, epoch=6, num_replicas=2, rank=r)) for r in (0, 1)
    ]
    for step, first, second in zip(one, *two, strict=True):
        names = [{value for value in values if isinstance(value, str)} for values in (step, first, second)]
        assert names[0] == names[1] | names[2] and not names[1] & names[2]


def test_large_scenes_are_reported_once_over_all_workers(train, capfd):
    batches._reported[0] = 0
    for epoch in (0, 1):
        steps = list(build_loader(train, 2, point_limit=10, workers=2, epoch=epoch))
        assert sum(len(step) for step in steps) == len(train)
    assert capfd.readouterr().err.count("more than the limit") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_scene_is_one_line_that_names_it(store, tmp_path, workers):
    copy = shutil.copytree(store, tmp_path / "copy")
    coord = copy / "val" / "scene0100_00" / "coord.npy"
    points = np.load(coord)
    points[7, 1] = np.nan
    np.save(coord, points)
    with pytest.raises(InputError) as caught:
        list(build_loader(SceneDataset(copy, "val"), 1, workers=workers))
    message = str(caught.value)
    assert "\n" not in message and "scene0100_00: some coordinates are NaN" in message
    assert message.startswith(str(copy))
    assert not multiprocessing.active_children()  # though `caught` remembers them


class Deadly(SceneDataset):
    """Its items end the process that loads them, as the system does when memory runs out."""

    def __getitem__(self, address):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_ended_is_one_line(store):
    with pytest.raises(InputError, match=r"memory.*fewer workers"):
        list(build_loader(Deadly(store, "val"), 1, workers=1))


class Collecting(SceneDataset):
    """Its items are loaded by a process that has just freed all garbage."""

    def __getitem__(self, address):
        gc.collect()
        return super().__getitem__(address)


def test_workers_free_nothing_that_they_inherit(store, tmp_path):
    """Such as graphs and memory of a GPU, which ends a process that did not make them."""

    class Precious:
        def __init__(self):
            self.itself = self

        def __del__(self):
            (tmp_path / str(os.getpid())).touch()

    gc.disable()  # the garbage is still there when the workers start
    try:
        Precious()
        list(build_loader(Collecting(store, "val"), 1, workers=2))
        assert not list(tmp_path.iterdir())
    finally:
        gc.enable()
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_sigterm_does_not_end_workers_not_even_while_they_start(train):
    """As a scheduler sends it, to all processes; the one that trains still needs these to save and end."""
    options = {"batch_size": 2, "shuffle": True, "seed": 5}
    expected, done = flatten(build_loader(train, **options)), threading.Event()

    command = Path("/proc/self/cmdline").read_bytes()

    def terminate():
        while not done.is_set():
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(OSError):  # it has ended
                    if (
                        Path(f"/proc/{child}/cmdline").read_bytes() == command
                    ):  # a fork, no other test's process
                        os.kill(int(child), signal.SIGTERM)

    scheduler = threading.Thread(target=terminate)
    scheduler.start()
    try:
        for _ in range(5):
            assert equal(expected, flatten(build_loader(train, workers=2, **options)))
    finally:
        done.set()
        scheduler.join()


def test_an_error_in_mid_epoch_ends_the_process(store, tmp_path):
    """Though workers do not heed SIGTERM, and the traceback keeps the loader alive."""
    program = (
        "import sys; from lground.data import SceneDataset, build_loader\n"
        "loader = iter(build_loader(SceneDataset(sys.argv[1], 'train'), 1, workers=1))\n"
        "next(loader); raise MemoryError"
    )
    with open(tmp_path / "said", "w") as said:  # no pipe, which torch's own process holds open for seconds
        ran = subprocess.run([sys.executable, "-c", program, str(store)], stderr=said, timeout=120)
    assert ran.returncode == 1 and "MemoryError" in (tmp_path / "said").read_text()


def test_missing_split_is_an_input_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="lground prepare"):
        SceneDataset(tmp_path, "train")


@given(st.integers(0, 60), st.integers(1, 6), st.integers(1, 5), st.booleans(), st.integers(0, 9))
def test_sampler_neither_repeats_nor_drops_and_ranks_stay_in_step(more, batch_size, replicas, shuffle, epoch):
    size = replicas + more
    samplers = [
        EpochSampler(size, batch_size, shuffle=shuffle, seed=1, epoch=epoch, num_replicas=replicas, rank=rank)
        for rank in range(replicas)
    ]
    seen = Counter(pair for sampler in samplers for batch in sampler for pair in batch)
    assert seen == Counter((epoch, index) for index in range(size))
    assert len({len(sampler) for sampler in samplers}) == 1
    assert all(1 <= len(batch) <= batch_size + 1 for sampler in samplers for batch in sampler)
    if replicas == 1:
        assert [len(b) for b in samplers[0]][:-1] == [batch_size] * (len(samplers[0]) - 1)
        assert max(map(len, samplers[0])) <= batch_size


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 40))
def test_sampler_resumes_where_it_stopped(size, batch_size, start):
    options = {"shuffle": True, "seed": 2, "epoch": 3}
    whole = list(EpochSampler(size, batch_size, **options))
    resumed = EpochSampler(size, batch_size, start_batch=start, **options)
    assert list(resumed) == whole[start:] and len(resumed) == len(whole[start:])


@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 4), st.integers(0, 20))
def test_sampler_of_some_epochs_is_that_of_each_in_turn(size, batch_size, epochs, start):
    options = {"shuffle": True, "seed": 2}
    each = [
        batch for e in range(3, 3 + epochs) for batch in EpochSampler(size, batch_size, epoch=e, **options)
    ]
    some = EpochSampler(size, batch_size, epoch=3, epochs=epochs, start_batch=start, **options)
    assert list(some) == each[start:] and len(some) == len(each[start:])


def test_sampler_order():
    def order(**options):
        return [index for batch in EpochSampler(50, 8, **options) for _, index in batch]

    assert order(shuffle=False, seed=1, epoch=4) == list(range(50))
    one = order(shuffle=True, seed=1, epoch=4)
    assert one == order(shuffle=True, seed=1, epoch=4) != list(range(50))
    assert one != order(shuffle=True, seed=1, epoch=5)
    assert one != order(shuffle=True, seed=2, epoch=4)


def test_sampler_refuses_more_processes_than_scenes():
    with pytest.raises(InputError, match="use at most 2 processes"):
        EpochSampler(2, 1, shuffle=True, seed=0, epoch=0, num_replicas=3)
    with pytest.raises(InputError, match="batch_size"):
        EpochSampler(2, 0, shuffle=True, seed=0, epoch=0)
