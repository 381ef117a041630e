"""Time the scores of objects on made-up scenes the size of ScanNet's validation set.

    python benchmarks/metrics                   # 5 scenes of 150,000 vertices, 30 objects, 100 predictions
    python benchmarks/metrics --scenes 312      # all of them, nothing extrapolated
    python benchmarks/metrics --masks dense

Prints the seconds of CPU time per scene, and of a validation set of 312 scenes: measured, or so many times that of one.
Making the scenes is not counted.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from lground.labels import load_labels
from lground.metrics import InstanceEvaluator, PanopticEvaluator

VALIDATION_SCENES = 312
LABELS = load_labels("scannet200")
OBJECT_IDS = LABELS.ids[LABELS.instance_class]
WALL = 1


def main() -> None:
    parser = argparse.ArgumentParser(
        "benchmarks/metrics", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=5, help="scenes that are timed (default: 5)")
    parser.add_argument("--vertices", type=int, default=150_000, help="of a scene (default: 150000)")
    parser.add_argument("--objects", type=int, default=30, help="true ones in a scene (default: 30)")
    parser.add_argument("--predictions", type=int, default=100, help="masks in a scene (default: 100)")
    parser.add_argument("--masks", choices=("sparse", "dense"), default="sparse", help="(default: sparse)")
    options = parser.parse_args()

    objects, panoptic = InstanceEvaluator(OBJECT_IDS), PanopticEvaluator(LABELS)
    spent = {"average precision": 0.0, "panoptic quality": 0.0}
    for seed in range(options.scenes):
        gt_ids, masks, labels, scores = make_scene(
            np.random.default_rng(seed), options.vertices, options.objects, options.predictions
        )
        given = csr_array(masks) if options.masks == "sparse" else masks
        spent["average precision"] += seconds(objects.add, gt_ids, given, labels, scores)
        truth = LABELS.index_of(gt_ids // 1000), gt_ids % 1000
        owner = np.where(masks.any(0), masks.argmax(0), -1)  # the first mask of each vertex
        found = np.where(owner >= 0, LABELS.index_of(labels)[owner], truth[0]), owner
        spent["panoptic quality"] += seconds(panoptic.add, *truth, *found)
    spent["the curves of average precision"] = seconds(objects.scores)

    print("\n".join(objects.scores().lines(LABELS)[:2] + panoptic.scores().lines()[:2]))
    print(
        f"{options.scenes} scenes, {options.vertices} vertices, {options.predictions} {options.masks} masks"
    )
    for name in ("average precision", "panoptic quality"):
        each = spent[name] / options.scenes
        how = "measured" if options.scenes == VALIDATION_SCENES else f"{VALIDATION_SCENES} times one"
        print(
            f"{name}: {each:.4f} s a scene, {each * VALIDATION_SCENES:.1f} s for {VALIDATION_SCENES} ({how})"
        )
    print(f"the curves of average precision: {spent['the curves of average precision']:.2f} s, once")


def make_scene(
    r: np.random.Generator, vertices: int, objects: int, predictions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(gt_ids (N,), masks (P, N) bool, labels (P,), scores (P,)): objects on two thirds of the vertices, the rest wall.

    Each mask is an object with a twentieth to a half of its vertices replaced by others; half of the labels are wrong.
    """
    classes = r.choice(OBJECT_IDS, objects)
    sizes = r.multinomial(2 * vertices // 3, r.dirichlet(np.ones(objects)))
    gt_ids = np.full(vertices, WALL * 1000)
    gt_ids[: sizes.sum()] = np.repeat(classes * 1000 + np.arange(1, objects + 1), sizes)
    gt_ids = r.permutation(gt_ids)  # as vertices of a mesh, in no order
    source = r.integers(0, objects, predictions)
    masks = gt_ids == (classes * 1000 + np.arange(1, objects + 1))[source][:, None]
    for mask in masks:
        lost = r.uniform(0.05, 0.5)
        size = mask.sum()
        mask &= r.random(vertices) >= lost
        mask[r.integers(0, vertices, int(size * lost))] = True
    labels = np.where(r.random(predictions) < 0.5, classes[source], r.choice(OBJECT_IDS, predictions))
    return gt_ids, masks, labels, r.random(predictions)


def seconds(work: Callable, *arguments: object) -> float:
    """CPU time of one call, of all threads."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


if __name__ == "__main__":
    main()
