"""Rare objects to be set into other scenes: the bank of a store, as one training run may see it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lground.data.reading import read_sample
from lground.data.scenes import Sample
from lground.errors import InputError
from lground.progress import track
from lground.scannet import Bank, open_scene

CLASSES = {"tail": ("tail",), "common_tail": ("common", "tail")}
WEIGHTS = ("inverse", "uniform")
IN_MEMORY = 2**25  # vertices, 22 bytes each


class RareObjects:
    """Objects of the training scenes, drawn class by class.

    bank: of the store. scenes: name -> folder, the scenes that the run may use. wanted: class indices.
    annotation: with limited annotation only objects of which a label is seen are drawn, only that label comes
    along, and the frequencies are those of the labels that are seen. (The shape is that of the whole object.)
    weights: a class is drawn by 1 / its points ("inverse") or all alike ("uniform"), then an object of it.
    cache: keep the objects in memory. So they are, too, when they have at most `IN_MEMORY` vertices: opening a
    scene for each object would take longer than all else that pasting does.

    Raises InputError where the bank does not cover the scenes, or holds no object of the wanted classes.
    """

    def __init__(
        self,
        bank: Bank,
        scenes: Mapping[str, Path],
        wanted: np.ndarray,
        *,
        label_set: str,
        annotation: str | None,
        weights: str,
        cache: bool = False,
    ) -> None:
        if absent := sorted(scenes.keys() - set(bank.scenes)):
            raise InputError(f"{bank.path}: does not know {absent[0]}; {_again(bank)}")
        self.bank, self.scenes = bank, scenes
        self.label_set, self.annotation = label_set, annotation
        usable = np.array([name in scenes for name in bank.scenes], dtype=bool)
        rows = np.flatnonzero(usable[bank.scene] & np.isin(bank.label, wanted))
        points = bank.vertices[rows] if annotation is None else self._seen(rows)
        rows, points = rows[points > 0], points[points > 0]
        if not len(rows):
            raise InputError(
                f"{bank.path}: holds no object of the classes to be pasted whose label may be seen; "
                "set paste.classes=common_tail, or paste.count=0"
            )
        order = np.argsort(bank.label[rows], kind="stable")
        self._rows = rows[order]  # class by class
        _, starts, self._sizes = np.unique(bank.label[self._rows], return_index=True, return_counts=True)
        self._starts = starts
        weight = 1 / np.add.reduceat(points[order], starts) if weights == "inverse" else np.ones(len(starts))
        self._probabilities = weight / weight.sum()
        self._cache: dict[int, Sample] | None = None
        if cache or bank.vertices[self._rows].sum() <= IN_MEMORY:
            self._cache = {int(row): self._load(row) for row in track(self._rows, "Loading rare objects")}

    def draw(self, count: int, rng: np.random.Generator) -> list[Sample]:
        """`count` objects, with replacement; instances are -1 where the label may not be seen."""
        kinds = rng.choice(len(self._starts), count, p=self._probabilities)
        rows = self._rows[self._starts[kinds] + rng.integers(self._sizes[kinds])].tolist()
        return [self._cache[row] if self._cache is not None else self._load(row) for row in rows]

    def _load(self, row: int) -> Sample:
        bank = self.bank
        scene = open_scene(self.scenes[bank.scenes[bank.scene[row]]])
        vertices = np.flatnonzero(np.asarray(scene.instance) == bank.instance[row])
        if len(vertices) != bank.vertices[row]:
            raise InputError(f"{bank.path}: does not fit {scene.folder}, which has changed; {_again(bank)}")
        return read_sample(scene, self.label_set, self.annotation, vertices)

    def _seen(self, rows: np.ndarray) -> np.ndarray:
        """How many labels of each object may be seen, (len(rows),) int64."""
        counts = np.zeros(len(rows), dtype=np.int64)
        for number in track(np.unique(self.bank.scene[rows]).tolist(), "Looking for labelled rare objects"):
            scene = open_scene(self.scenes[self.bank.scenes[number]])
            sample = read_sample(scene, self.label_set, self.annotation)
            seen = sample.instances[sample.labels >= 0]
            mine = np.flatnonzero(self.bank.scene[rows] == number)
            most = self.bank.instance[rows[mine]].max()
            counts[mine] = np.bincount(seen[(seen >= 0) & (seen <= most)], minlength=most + 1)[
                self.bank.instance[rows[mine]]
            ]
        return counts


def _again(bank: Bank) -> str:
    return f"write it again with: lground prepare {bank.path.parent} --bank"
