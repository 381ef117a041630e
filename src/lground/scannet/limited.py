"""Limited annotation: which labels a training run may see, written as masks beside the labels.

Settings are strings. "object-0.05": of every object 5 % of the points, by farthest-point sampling, at least
five (the setting of the language-grounded paper). "scene-20": 20 points per scene, and "scenes-0.10": 10 % of
the training scenes (the two settings of Contrastive Scene Contexts, CVPR 2021; its points were chosen by
k-means over position, colour and features of a pretrained network, here over position and colour, so they
differ from its published lists).
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lground.errors import InputError
from lground.files import atomic_file
from lground.scannet.store import PreparedScene, list_scenes, open_scene
from lground.scannet.workers import run_jobs
from lground.scannet.writer import only_one_writer, remove_stale_parts

FEWEST = 5  # points kept of an object, if it has as many
ROUNDS = 50  # of k-means
_NUMBER = re.compile(r"(object|scene|scenes)-([0-9]+|[0-9]*\.[0-9]+)")


@dataclass(frozen=True)
class Setting:
    """A limited-annotation setting: `kind` is "object", "scene" or "scenes"; `text` names it in files."""

    kind: str
    amount: float
    text: str


def parse_setting(text: str) -> Setting:
    """Read "object-0.05", "scene-20" or "scenes-0.10"; InputError for anything else."""
    match = _NUMBER.fullmatch(text)
    kind, amount = (match[1], float(match[2])) if match else ("", 0.0)
    if not match or amount <= 0 or (amount > 1 and kind != "scene") or (kind == "scene" and amount % 1):
        raise InputError(
            f"--limited {text}: write object-R or scenes-R with a fraction R up to 1, or "
            "scene-N with a number of"
            " points, such as object-0.05, scenes-0.10, scene-20"
        )
    return Setting(kind, amount, text)


def limit_annotation(
    root: str | os.PathLike, settings: Sequence[str], *, workers: int | None = None, seed: int = 0
) -> dict[str, str]:
    """Write the masks or scene lists of `settings` for the training scenes of the prepared store `root`.

    <scene>/annotated.<setting>.npy, (N,) bool, for "object-" and "scene-"; <root>/train.<setting>.txt for
    "scenes-" (a smaller fraction is part of a larger one). Masks that exist are kept. Validation scenes stay
    fully labelled. Returns a line for each setting.
    """
    parsed = list(dict.fromkeys(parse_setting(text) for text in settings))
    root = Path(root)
    scenes = list_scenes(root, "train")
    if not scenes[0].is_dir():
        raise InputError(
            f"{scenes[0]}: masks lie in scene folders; prepare the raw scenes with `lground prepare`"
        )
    lines = {}
    with only_one_writer(root):
        remove_stale_parts(root)
        for setting in parsed:
            if setting.kind == "scenes":
                lines[setting.text] = _write_scene_list(root, scenes, setting, seed)
        per_scene = [setting for setting in parsed if setting.kind != "scenes"]
        written: Counter[Setting] = Counter()
        todo = [scene for scene in scenes if any(not _mask_path(scene, s).exists() for s in per_scene)]
        work = partial(_write_masks, settings=per_scene, seed=seed)
        for _, settings_written in run_jobs(work, todo, workers, "Limiting annotation"):
            written.update(settings_written)
    for setting in per_scene:
        lines[setting.text] = f"masks of {len(scenes)} scenes, {written[setting]} written now"
    return lines


def _mask_path(scene: Path, setting: Setting) -> Path:
    return scene / f"annotated.{setting.text}.npy"


def _write_scene_list(root: Path, scenes: list[Path], setting: Setting, seed: int) -> str:
    names = draw_scenes([scene.name for scene in scenes], setting.amount, seed)
    with atomic_file(root / f"train.{setting.text}.txt") as part:
        part.write_text("".join(f"{name}\n" for name in names))
    return f"{len(names)} of {len(scenes)} scenes"


def draw_scenes(names: Sequence[str], fraction: float, seed: int = 0) -> list[str]:
    """`fraction` of the scenes (at least one), sorted; smaller draws of a seed are part of larger ones."""
    order = np.random.default_rng(seed).permutation(len(names))
    count = max(1, round(fraction * len(names)))
    return sorted(names[k] for k in order[:count])


def _write_masks(folder: Path, *, settings: Sequence[Setting], seed: int) -> list[Setting]:
    todo = [setting for setting in settings if not _mask_path(folder, setting).exists()]
    scene = open_scene(folder)
    masks: dict[Setting, np.ndarray] = {}
    by_object = [setting for setting in todo if setting.kind == "object"]
    if by_object:
        fractions = [setting.amount for setting in by_object]
        masks.update(zip(by_object, object_masks(scene.coord, scene.instance, fractions), strict=True))
    for setting in todo:
        if setting.kind == "scene":
            rng = np.random.default_rng([seed, zlib.crc32(scene.name.encode())])
            masks[setting] = scene_mask(scene.coord, scene.color, _annotated(scene), int(setting.amount), rng)
    for setting, mask in masks.items():
        with atomic_file(_mask_path(folder, setting)) as part:
            np.save(part, mask, allow_pickle=False)
    return todo


def _annotated(scene: PreparedScene) -> np.ndarray:
    """(N,) bool: vertices about which the annotators said something."""
    said = np.asarray(scene.instance) >= 0
    for label_set in scene.segments:
        said = said | (scene.segment(label_set) >= 0)
    return said


def object_masks(coord: np.ndarray, instance: np.ndarray, fractions: Sequence[float]) -> list[np.ndarray]:
    """Farthest-point samples of every object, a mask (N,) bool for each fraction r.

    An object of n points keeps max(5, round(r n)), or all of them if it has fewer than five. Sampling starts
    at the object's first vertex; a smaller sample is the start of a larger one, so each object is sampled
    once.
    """
    masks = [np.zeros(len(coord), dtype=bool) for _ in fractions]
    order = np.argsort(instance, kind="stable")  # vertices object by object, in file order within each
    sizes = np.bincount(np.asarray(instance) + 1)[1:]
    for members in np.split(order[len(order) - sizes.sum() :], np.cumsum(sizes)[:-1]):
        counts = [min(len(members), max(FEWEST, round(fraction * len(members)))) for fraction in fractions]
        sampled = members[farthest_points(coord[members], max(counts))]
        for mask, count in zip(masks, counts, strict=True):
            mask[sampled[:count]] = True
    return masks


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of `points` (n, 3): the first one, then always the one farthest from all before.

    count <= n; every index occurs once, also among equal points. Each step passes over the n distances once,
    in buffers allocated before.
    """
    x, y, z = np.ascontiguousarray(points.T, dtype=np.float32)
    nearest = np.full(len(x), np.inf, dtype=np.float32)  # squared distance to the sample so far
    distance, delta = np.empty_like(nearest), np.empty_like(nearest)
    chosen = np.zeros(count, dtype=np.int64)
    for k in range(count):
        at = chosen[k] = nearest.argmax()
        np.square(np.subtract(x, x[at], out=distance), out=distance)
        for axis in (y, z):
            distance += np.square(np.subtract(axis, axis[at], out=delta), out=delta)
        np.minimum(nearest, distance, out=nearest)
        nearest[at] = -1.0
    return chosen


def scene_mask(
    coord: np.ndarray, color: np.ndarray, annotated: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """A mask (N,) bool of `count` annotated points: those nearest to the centres of k-means.

    Clusters are over xyz (m) and rgb (0..1). All annotated points if there are no more than `count`. A point
    stands for one cluster only; should clusters come out empty, points drawn at random take their place.
    """
    mask = np.zeros(len(coord), dtype=bool)
    candidates = np.flatnonzero(annotated)
    if len(candidates) <= count:
        mask[candidates] = True
        return mask
    features = np.concatenate([coord[candidates], color[candidates] / 255.0], axis=1, dtype=np.float64)
    start = features[rng.choice(len(features), count, replace=False)]
    cluster, distance = k_means(features, start)
    by_cluster = np.lexsort((distance, cluster))
    first = np.flatnonzero(np.diff(cluster[by_cluster], prepend=-1))
    mask[candidates[by_cluster[first]]] = True
    others = candidates[~mask[candidates]]
    mask[rng.choice(others, count - len(first), replace=False)] = True
    return mask


def k_means(features: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cluster (n,) of each row of `features` (n, d) and its distance (n,) to the centre.

    From `centers` (k, d) on, Lloyd's iteration until nothing changes or ROUNDS are over; a centre that loses
    all its rows stays where it is. The kd-tree makes a step cost about as much for 200 centres as for 20 and
    leaves other processes their cores.
    """
    from scipy.spatial import cKDTree

    cluster = np.full(len(features), -1)
    for _ in range(ROUNDS):
        before = cluster
        distance, cluster = cKDTree(centers).query(features)
        if (cluster == before).all():
            break
        sizes = np.bincount(cluster, minlength=len(centers))[:, None]
        sums = [np.bincount(cluster, weights=column, minlength=len(centers)) for column in features.T]
        centers = np.where(sizes > 0, np.stack(sums, axis=1) / np.maximum(sizes, 1), centers)
    return cluster, distance
