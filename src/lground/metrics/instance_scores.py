"""Average precision of every class, its means, and how they are told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lground.metrics.told import or_none, percent

if TYPE_CHECKING:
    from lground.labels import LabelSet


class MeanAP(NamedTuple):
    """Means over classes: AP over the thresholds 0.5 ... 0.9, AP at 0.5, AP at 0.25; NaN where undefined."""

    ap: float
    ap50: float
    ap25: float


@dataclass(frozen=True, eq=False)
class InstanceScores:
    """Average precision of C classes; make it with `instance_ap` or an `InstanceEvaluator`.

    Scores are fractions in 0 ... 1. A class without true objects has NaN, whatever was predicted.
    """

    class_ids: np.ndarray  # (C,) int64 raw ids
    table: np.ndarray  # (C, 10) float64, AP at the IoUs 0.5, 0.55, ..., 0.9 and, last, 0.25
    objects: np.ndarray  # (C,) int64 true objects that count

    @property
    def ap(self) -> np.ndarray:
        """AP of each class (C,), the mean over the thresholds 0.5 ... 0.9 (0.95 is not among ScanNet's)."""
        return self.table[:, :9].mean(1)

    @property
    def ap50(self) -> np.ndarray:
        """AP of each class (C,) at an IoU of 0.5."""
        return self.table[:, 0]

    @property
    def ap25(self) -> np.ndarray:
        """AP of each class (C,) at an IoU of 0.25."""
        return self.table[:, 9]

    def mean(self, split: str | None = None, label_set: "LabelSet | None" = None) -> MeanAP:
        """Means over the classes with true objects, or over those of a split of `label_set` that have any."""
        chosen = self._classes(split, label_set) & (self.objects > 0)
        return MeanAP(*(float(s[chosen].mean()) if chosen.any() else np.nan for s in self._columns()))

    def as_dict(self, label_set: "LabelSet") -> dict[str, Any]:
        """Everything but the single thresholds, for JSON; undefined scores are None."""
        return {
            "label_set": label_set.name,
            "objects": int(self.objects.sum()),
            "means": {
                split or "all": {
                    "classes": int(self._classes(split, label_set).sum()),
                    "classes_present": self._present(split, label_set),
                    **_json(self.mean(split, label_set)),
                }
                for split in (None, *label_set.splits)
            },
            "classes": [
                {"name": name, "objects": int(count), **_json(MeanAP(*row))}
                for name, count, row in zip(
                    self._names(label_set), self.objects, zip(*self._columns(), strict=True), strict=True
                )
            ],
        }

    def lines(self, label_set: "LabelSet") -> list[str]:
        """The means in percent, one line per split, for a terminal or a log."""
        lines = [f"{'':<8}{'AP':>7}{'AP50':>7}{'AP25':>7}   classes with objects"]
        for split in (None, *label_set.splits):
            means = "".join(map(percent, self.mean(split, label_set)))
            present, size = self._present(split, label_set), self._classes(split, label_set).sum()
            lines.append(f"{split or 'all':<8}{means}   {present} of {size}")
        lines.append(f"{self.objects.sum()} objects; AP: mean over the IoUs 0.50, 0.55, ..., 0.90")
        return lines

    def text(self, label_set: "LabelSet") -> str:
        """AP in percent of every class with true objects, then the means."""
        names = self._names(label_set)
        width = max(map(len, names))
        rows = [f"{'class':<{width}}{'AP':>7}{'AP50':>7}{'AP25':>7}{'objects':>9}"]
        rows += [
            f"{name:<{width}}{''.join(map(percent, row))}{count:>9}"
            for name, count, *row in zip(names, self.objects, *self._columns(), strict=True)
            if count
        ]
        return "\n".join([*rows, "", *self.lines(label_set)])

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.ap, self.ap50, self.ap25

    def _classes(self, split: str | None, label_set: "LabelSet | None") -> np.ndarray:
        if split is None:
            return np.ones(len(self.class_ids), dtype=bool)
        if label_set is None:
            raise ValueError(f"the mean over {split} needs the label set that has this split")
        return np.isin(self.class_ids, label_set.ids[label_set.splits[split]])

    def _present(self, split: str | None, label_set: "LabelSet") -> int:
        return int((self._classes(split, label_set) & (self.objects > 0)).sum())

    def _names(self, label_set: "LabelSet") -> list[str]:
        places = label_set.index_of(self.class_ids)
        if (places < 0).any():
            raise ValueError(f"{label_set.name} has no class of the id {self.class_ids[places < 0][0]}")
        return [label_set.names[place] for place in places]


def _json(means: MeanAP) -> dict[str, float | None]:
    return {name: or_none(value) for name, value in means._asdict().items()}
