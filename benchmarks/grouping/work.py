"""One measurement, in a process of its own."""

import json
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import reference

from lground.instances import Grouping, connected_groups, find_objects
from lground.labels import LabelSet, load_labels

REPEATS = 5
SECONDS = 20  # fewer calls where they take longer together


def work(subject: str, scan: str, result: str) -> None:
    """Measure one subject and write what was found."""
    with np.load(scan) as file:
        arrays = dict(file)
    label_set = load_labels("scannet200")
    found = whole(arrays, label_set) if subject == "find_objects" else groups(arrays, label_set, subject)
    Path(result).write_text(json.dumps(found | {"peak_mb": peak_mb()}))


def whole(arrays: dict[str, np.ndarray], label_set: LabelSet) -> dict:
    labels = arrays.pop("labels")
    probabilities = np.full((len(labels), len(label_set)), 0.2 / 199, dtype=np.float32)
    probabilities[np.arange(len(labels)), labels] = 0.8
    arrays |= {"probabilities": probabilities, "instance_class": label_set.instance_class}
    seconds, objects = best(partial(find_objects, **arrays))
    return {"seconds": {"all": seconds}, "objects": len(objects)}


def groups(arrays: dict[str, np.ndarray], label_set: LabelSet, subject: str) -> dict:
    """Of the points where they are and where their offsets point, walls and floors left out."""
    kept = np.flatnonzero(label_set.instance_class[arrays["labels"]])
    points, offsets, labels = (arrays[name][kept] for name in ("points", "offsets", "labels"))
    radius = Grouping().radius
    found = {"grouped": len(kept), "seconds": {}, "groups": {}}
    for name, places in (("points", points), ("shifted", points + offsets)):
        if subject == "connected_groups":
            seconds, numbers = best(partial(connected_groups, places, labels, radius))
        else:
            listing, lists = best(partial(reference.neighbour_lists, places, radius))
            ways = (reference.point_by_point, reference.ring_by_ring)
            seconds, numbers = min((best(partial(way, labels, *lists)) for way in ways), key=itemgetter(0))
            found[f"neighbours of {name}"] = len(lists[1]) / len(kept)
            found["cut"] = found.get("cut", 0) + int((np.diff(lists[0]) == reference.MOST).sum())
            seconds += listing
            del lists
        found["seconds"][name], found["groups"][name] = seconds, fingerprint(numbers)
    return found


def best(call: Callable) -> tuple[float, Any]:
    """The least CPU time of a few calls, and what the last returned."""
    times, returned = [], None
    while len(times) < REPEATS and sum(times) < SECONDS:
        del returned  # or memory would hold it twice
        start = time.process_time()
        returned = call()
        times.append(time.process_time() - start)
    return min(times), returned


def fingerprint(groups: np.ndarray) -> list[int]:
    """How many groups, and a number that tells partitions apart; both number them by their first points."""
    weights = np.random.default_rng(0).integers(0, 2**31, len(groups))
    return [int(groups.max()) + 1, int((groups * weights % (2**31 - 1)).sum())]


def peak_mb() -> float:
    """What this process has held at most; resource.getrusage would count what started it too."""
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024
