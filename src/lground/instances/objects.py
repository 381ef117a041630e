"""What was found: sets of points, each with a class and a score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class Objects:
    """P objects among `count` points (voxels or vertices), which may share points.

    starts: (P + 1,) int64; the points of object p are `members[starts[p] : starts[p + 1]]`.
    members: (K,) int64, increasing within an object.
    labels: (P,) int64 class index, -1 where the object has no class.
    scores: (P,) float32, 0 to 1.
    """

    count: int
    starts: np.ndarray
    members: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(
        cls, count: int, members: Sequence[np.ndarray], labels: Sequence[int], scores: Sequence[float]
    ) -> "Objects":
        """Objects from the points of each, increasing."""
        starts = np.cumsum([0, *map(len, members)], dtype=np.int64)
        joined = np.concatenate([np.empty(0, np.int64), *members])
        return cls(count, starts, joined, np.array(labels, np.int64), np.array(scores, np.float32))

    @classmethod
    def from_masks(cls, masks: csr_array, labels: np.ndarray, scores: np.ndarray) -> "Objects":
        """Objects from masks (P, count), dense or sparse, with labels (P,) and scores (P,)."""
        masks = csr_array(masks)
        masks.sum_duplicates()  # sorts the columns of each row
        masks.eliminate_zeros()
        starts, members = masks.indptr.astype(np.int64), masks.indices.astype(np.int64)
        return cls(
            masks.shape[1], starts, members, np.asarray(labels, np.int64), np.asarray(scores, np.float32)
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:
        """Points of each object, (P,) int64."""
        return np.diff(self.starts)

    @property
    def masks(self) -> csr_array:
        """(P, count) bool, one row per object."""
        ones = np.ones(len(self.members), dtype=bool)
        return csr_array((ones, self.members, self.starts), shape=(len(self), self.count))

    def points_of(self, index: int) -> np.ndarray:
        """The points of one object, (n,) int64, increasing."""
        return self.members[self.starts[index] : self.starts[index + 1]]

    def select(self, chosen: np.ndarray) -> "Objects":
        """The objects `chosen`, indices (n,) or a mask (P,), in that order."""
        chosen = np.arange(len(self))[chosen]
        sizes = self.sizes[chosen]
        starts = np.cumsum([0, *sizes], dtype=np.int64)
        rows = np.repeat(self.starts[chosen] - starts[:-1], sizes) + np.arange(starts[-1])
        return Objects(self.count, starts, self.members[rows], self.labels[chosen], self.scores[chosen])

    def on_vertices(self, inverse: np.ndarray) -> "Objects":
        """The same objects of voxels as objects of vertices; inverse: (N,) voxel of each vertex."""
        order = np.argsort(inverse, kind="stable")
        counts = np.bincount(inverse, minlength=self.count)
        first = np.cumsum(counts) - counts
        sizes = counts[self.members]  # vertices of each member
        ends = np.cumsum(sizes)
        rows = np.repeat(first[self.members] - (ends - sizes), sizes) + np.arange(sizes.sum())
        starts = np.concatenate([[0], ends])[self.starts]
        vertices = order[rows]
        owner = np.repeat(np.arange(len(self)), np.diff(starts))
        members = vertices[np.lexsort((vertices, owner))]
        return Objects(len(inverse), starts, members, self.labels, self.scores)

    def instance_of_points(self) -> np.ndarray:
        """The object of each point, (count,) int64, -1 for none: where several share it, that of the highest score.

        Equal scores: the earlier object.
        """
        instance = np.full(self.count, -1, dtype=np.int64)
        for index in np.argsort(-self.scores, kind="stable")[::-1].tolist():
            instance[self.points_of(index)] = index
        return instance
