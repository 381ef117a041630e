"""Panoptic quality of every class, its means, and how they are told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lground.metrics.told import or_none, percent

if TYPE_CHECKING:
    from lground.labels import LabelSet


class MeanPQ(NamedTuple):
    """Means over classes of panoptic, segmentation and recognition quality; NaN over no class."""

    pq: float
    sq: float
    rq: float


@dataclass(frozen=True, eq=False)
class PanopticScores:
    """Panoptic quality of C classes; make it with a `PanopticEvaluator`.

    Scores are fractions in 0 ... 1, NaN for a class with neither a true nor a predicted segment that counts.
    """

    label_set: "LabelSet"
    hits: np.ndarray  # (C,) int64 segments found: IoU above a half with a true one of the class (TP)
    iou_sum: np.ndarray  # (C,) float64 of these
    surplus: (
        np.ndarray
    )  # (C,) int64 predicted segments that match none and do not lie in void for more than half (FP)
    missed: np.ndarray  # (C,) int64 true segments that none matches (FN)

    @property
    def present(self) -> np.ndarray:
        """Classes with a segment, true or predicted, (C,) bool."""
        return self.hits + self.surplus + self.missed > 0

    @property
    def pq(self) -> np.ndarray:
        """Panoptic quality (C,): the sum of the IoUs / (TP + FP / 2 + FN / 2), which is SQ times RQ."""
        return self._known(self.iou_sum / np.maximum(self._size, 0.5))

    @property
    def sq(self) -> np.ndarray:
        """Segmentation quality (C,): the mean IoU of the segments found; 0 for a present class with none."""
        return self._known(self.iou_sum / np.maximum(self.hits, 1))

    @property
    def rq(self) -> np.ndarray:
        """Recognition quality (C,): TP / (TP + FP / 2 + FN / 2), the F1 score of finding segments."""
        return self._known(self.hits / np.maximum(self._size, 0.5))

    @property
    def groups(self) -> tuple[str, ...]:
        """What means are taken over: all, things, stuff and the splits of the label set."""
        return "all", "things", "stuff", *self.label_set.splits

    def mean(self, group: str = "all") -> MeanPQ:
        """Means over the present classes of one of `groups`."""
        chosen = self._classes(group) & self.present
        return MeanPQ(
            *(float(s[chosen].mean()) if chosen.any() else np.nan for s in (self.pq, self.sq, self.rq))
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; undefined scores are None."""
        columns = (self.hits, self.surplus, self.missed, self.pq, self.sq, self.rq)
        return {
            "label_set": self.label_set.name,
            "means": {
                group: {
                    "classes": int(self._classes(group).sum()),
                    "classes_present": int((self._classes(group) & self.present).sum()),
                    **_json(self.mean(group)),
                }
                for group in self.groups
            },
            "classes": [
                {
                    "name": name,
                    "hits": int(hits),
                    "surplus": int(surplus),
                    "missed": int(missed),
                    **_json(MeanPQ(*scores)),
                }
                for name, hits, surplus, missed, *scores in zip(self.label_set.names, *columns, strict=True)
            ],
        }

    def lines(self) -> list[str]:
        """The means in percent, one line per group, for a terminal or a log."""
        lines = [f"{'':<8}{'PQ':>7}{'SQ':>7}{'RQ':>7}   classes present"]
        for group in self.groups:
            chosen = self._classes(group)
            means = "".join(map(percent, self.mean(group)))
            lines.append(f"{group:<8}{means}   {(chosen & self.present).sum()} of {chosen.sum()}")
        return lines

    def text(self) -> str:
        """The scores in percent of every class present and its segments, then the means."""
        width = max(map(len, self.label_set.names))
        rows = [f"{'class':<{width}}{'PQ':>7}{'SQ':>7}{'RQ':>7}{'found':>8}{'surplus':>9}{'missed':>8}"]
        columns = (self.present, self.hits, self.surplus, self.missed, self.pq, self.sq, self.rq)
        rows += [
            f"{name:<{width}}{''.join(map(percent, scores))}{hits:>8}{surplus:>9}{missed:>8}"
            for name, present, hits, surplus, missed, *scores in zip(
                self.label_set.names, *columns, strict=True
            )
            if present
        ]
        return "\n".join([*rows, "", *self.lines()])

    @property
    def _size(self) -> np.ndarray:
        return self.hits + (self.surplus + self.missed) / 2

    def _known(self, scores: np.ndarray) -> np.ndarray:
        return np.where(self.present, scores, np.nan)

    def _classes(self, group: str) -> np.ndarray:
        things = self.label_set.instance_class
        if group in ("all", "things", "stuff"):
            return {"all": np.ones_like(things), "things": things, "stuff": ~things}[group]
        return np.isin(np.arange(len(things)), self.label_set.splits[group])


def _json(means: MeanPQ) -> dict[str, float | None]:
    return {name: or_none(value) for name, value in means._asdict().items()}
