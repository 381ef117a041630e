"""ScanNet's benchmark files: ids per vertex, lists of masks, and the zip that its server takes.

Semantic: `<scene>.txt`, the raw class id of every vertex, one per line. Instance: `<scene>.txt`, one line
`predicted_masks/<scene>_NNN.txt id confidence` per object, and those files, one 0 or 1 per vertex and line. The
zip holds all of them at its root, in the order of the scenes.
"""

import math
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
from scipy.sparse import csr_array

from lground.errors import InputError
from lground.labels import LabelSet

TASKS = ("semantic", "instance")
MASKS = "predicted_masks"
WHOLE_NUMBERS = re.compile(rb"(?:-?\d{1,18}\r?\n)*")  # one per line
# What reading a broken zip raises.
DAMAGE = (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
MOST_OBJECTS = 999  # of a scene, in an id that is class * 1000 + number


def ground_truth_ids(segment: np.ndarray, instance: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """What ScanNet's instance evaluator takes as truth, (N,) int64: raw class id * 1000 + number of the object.

    segment: (N,) class index, -1 unlabelled. instance: (N,) object 0, 1, ..., -1 none; counted from 1 in the ids.
    A vertex without class or object is 0, void. Raises InputError for more objects than an id has room for.
    """
    segment, instance = np.asarray(segment).astype(np.int64), np.asarray(instance).astype(np.int64)
    if instance.max(initial=-1) >= MOST_OBJECTS:
        raise InputError(
            f"an object has the number {instance.max()}; ScanNet's ids have room for 0 to {MOST_OBJECTS - 1}"
        )
    ids = label_set.ids[np.maximum(segment, 0)] * 1000 + instance + 1
    return np.where((segment >= 0) & (instance >= 0), ids, 0)


def ids_text(ids: np.ndarray) -> bytes:
    """The file of whole numbers (N,), one per line."""
    return "".join(f"{value}\n" for value in np.asarray(ids).tolist()).encode()


def mask_text(mask: np.ndarray) -> bytes:
    """The file of a mask (N,) bool, one 0 or 1 per line."""
    lines = np.full((len(mask), 2), ord("\n"), dtype=np.uint8)
    lines[:, 0] = mask
    lines[:, 0] += ord("0")
    return lines.tobytes()


def instance_texts(
    scene: str, masks: csr_array | np.ndarray, ids: np.ndarray, scores: np.ndarray
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of one scene: its list, then its masks, one at a time.

    masks: (P, N) bool, sparse or dense. ids: (P,) raw class ids. scores: (P,), written so that they read back
    exactly.
    """
    masks = csr_array(masks)
    names = [f"{MASKS}/{scene}_{number:03d}.txt" for number in range(len(ids))]
    lines = zip(names, np.asarray(ids).tolist(), np.asarray(scores).astype(float).tolist(), strict=True)
    yield f"{scene}.txt", "".join(f"{name} {id_} {score!r}\n" for name, id_, score in lines).encode()
    for index, name in enumerate(names):
        mask = np.zeros(masks.shape[1], dtype=bool)
        mask[masks.indices[masks.indptr[index] : masks.indptr[index + 1]]] = True
        yield name, mask_text(mask)


def parse_ids(text: bytes, source: str) -> np.ndarray:
    """(N,) int64 of a file with one whole number per line. Raises InputError that names `source` and the line."""
    if text and not text.endswith(b"\n"):
        text += b"\n"
    good = WHOLE_NUMBERS.match(text).end()
    if good < len(text):
        number, line = text.count(b"\n", 0, good) + 1, text[good:].split(b"\n", 1)[0]
        raise InputError(f"{source}: line {number} is not a whole number: {_shown(line)}")
    return np.fromstring(text.decode(), dtype=np.int64, sep="\n")


def parse_mask(text: bytes, source: str) -> np.ndarray:
    """(N,) bool of a file with one 0 or 1 per line. Raises InputError that names `source`."""
    lines = np.frombuffer(text, dtype=np.uint8)
    if len(lines) % 2 == 0 and (lines[1::2] == ord("\n")).all():  # as `mask_text` writes them
        values = lines[::2].astype(np.int64) - ord("0")
    else:
        values = parse_ids(text, source)
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        raise InputError(f"{source}: line {int(wrong.argmax()) + 1} is neither 0 nor 1")
    return values.astype(bool)


def parse_instances(text: bytes, source: str) -> list[tuple[str, int, float]]:
    """Mask file, raw class id and confidence of each line. Raises InputError that names `source` and the line."""
    found = []
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        try:
            name, id_, score = words[0], int(words[1]), float(words[2])
        except (ValueError, IndexError):
            id_ = None
        if id_ is None or len(words) != 3:
            raise InputError(
                f"{source}: line {number} is not 'mask class confidence': {_shown(line.encode())}"
            )
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{source}: line {number} names {name}, which lies outside of the submission")
        if not math.isfinite(score):
            raise InputError(f"{source}: line {number} has the confidence {words[2]}; it must be finite")
        found.append((name, id_, score))
    if repeated := [name for name, times in Counter(name for name, *_ in found).items() if times > 1]:
        raise InputError(f"{source}: names the mask {repeated[0]} more than once")
    return found


class Submission:
    """A zip in ScanNet's format, opened for reading: `with Submission(path) as submission: ...`.

    Raises InputError, on opening and on reading, that names the file in it and what is wrong.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise InputError(f"{path}: is damaged or not a zip ({error}); write it again") from None
        self.files = self._zip.namelist()

    def __enter__(self) -> "Submission":
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()

    def semantic(self, scene: str) -> np.ndarray:
        """(N,) int64 raw class ids of the vertices of a scene."""
        return parse_ids(*self._read(f"{scene}.txt"))

    def objects(self, scene: str) -> list[tuple[str, int, float]]:
        """Mask file, raw class id and confidence of each object of a scene."""
        return parse_instances(*self._read(f"{scene}.txt"))

    def mask(self, name: str, count: int) -> np.ndarray:
        """(count,) bool of a mask file in a scene of `count` vertices."""
        text, source = self._read(name)
        mask = parse_mask(text, source)
        if len(mask) != count:
            raise InputError(f"{source}: has {len(mask)} lines for {count} vertices")
        return mask

    def instances(self, scene: str, count: int) -> tuple[csr_array, np.ndarray, np.ndarray]:
        """All objects of a scene of `count` vertices: masks (P, count) bool, raw class ids (P,), confidences (P,)."""
        objects = self.objects(scene)
        members = [np.flatnonzero(self.mask(name, count)) for name, *_ in objects]
        starts = np.cumsum([0, *map(len, members)])
        joined = np.concatenate([np.empty(0, np.int64), *members])
        masks = csr_array((np.ones(len(joined), bool), joined, starts), shape=(len(objects), count))
        ids = np.array([id_ for _, id_, _ in objects], dtype=np.int64)
        return masks, ids, np.array([score for *_, score in objects], dtype=np.float64)

    def _read(self, name: str) -> tuple[bytes, str]:
        source = f"{self.path}: {name}"
        try:
            return self._zip.read(name), source
        except KeyError:
            raise InputError(f"{source} is missing") from None
        except DAMAGE as error:
            raise InputError(f"{source} is damaged ({error}); write it again") from None


def check_submission(
    path: str | os.PathLike, task: str, vertices: Mapping[str, int], label_set: LabelSet
) -> None:
    """Read a zip again and raise InputError unless it is what the server takes, for these scenes exactly.

    task: "semantic" or "instance". vertices: scene -> number of its vertices. Every scene must be there with every
    vertex, ids must be those of `label_set` (of its instance classes), confidences finite, and no file left over.
    """
    valid = label_set.ids if task == "semantic" else label_set.ids[label_set.instance_class]
    with Submission(path) as submission:
        expected = [f"{scene}.txt" for scene in vertices]
        for scene, count in vertices.items():
            source = f"{path}: {scene}.txt"
            if task == "semantic":
                ids = submission.semantic(scene)
                if len(ids) != count:
                    raise InputError(f"{source}: has {len(ids)} lines for {count} vertices")
            else:
                objects = submission.objects(scene)
                ids = np.array([id_ for _, id_, _ in objects], dtype=np.int64)
                for name, *_ in objects:
                    submission.mask(name, count)
                    expected.append(name)
            if not (known := np.isin(ids, valid)).all():
                line = int(np.argmin(known))
                raise InputError(
                    f"{source}: line {line + 1} has the id {ids[line]}, no {task} class of {label_set.name}"
                )
        strange = Counter(submission.files) - Counter(expected)
        if strange:
            raise InputError(f"{path}: holds {min(strange)}, which belongs to no scene or object")


def _shown(line: bytes) -> str:
    return repr(line[:40].decode("utf-8", "replace"))
