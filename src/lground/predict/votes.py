"""What several views and neighbouring vertices say together."""

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from lground.errors import InputError

BLOCK = 2**25  # numbers added at once (128 MB), so that the sums are all that a large scan needs


class Votes:
    """Mean class probabilities of groups of vertices, over the vertices of a group and over views.

    group: (N,) int64 group of each vertex, 0..G-1, none of them empty. classes: how many.
    The sums, (G, classes) float32, are what memory it takes: for a scan of 10^6 vertices, each a group of its own,
    and 200 classes 0.8 GB, a third of what the network needs for it on a CPU. They stay in the computer's memory,
    where the order of adding is always the same.
    """

    def __init__(self, group: np.ndarray, classes: int) -> None:
        self.group = group
        self.vertices = np.bincount(group)
        self.views = 0
        self.sums = np.zeros((len(self.vertices), classes), dtype=np.float32)

    def add(self, logits: Tensor, inverse: np.ndarray) -> None:
        """One view: logits (M, C) of its voxels, and the voxel of each vertex (N,)."""
        probabilities = logits.float().softmax(dim=1).cpu().numpy()
        ones = np.ones(len(inverse), dtype=np.float32)
        shape = (len(self.sums), len(probabilities))
        vertices_in = csr_matrix((ones, (self.group, inverse)), shape=shape)  # of voxel m that are of group g
        rows = max(1, BLOCK // probabilities.shape[1])
        for start in range(0, len(self.sums), rows):
            self.sums[start : start + rows] += vertices_in[start : start + rows] @ probabilities
        self.views += 1

    def winners(self) -> tuple[np.ndarray, np.ndarray]:
        """Per vertex, the class with the highest mean in its group (N,) int64, and that mean (N,) float32."""
        labels = self.sums.argmax(axis=1)
        scores = self.sums[np.arange(len(labels)), labels] / (self.views * self.vertices).astype(np.float32)
        return labels[self.group], np.minimum(scores, 1)[self.group]

    def means(self, vertices: np.ndarray) -> np.ndarray:
        """Mean probabilities of the groups of some vertices (n,): (n, classes) float32."""
        group = self.group[vertices]
        means = self.sums[group]
        means /= (self.views * self.vertices[group]).astype(np.float32)[:, None]
        return means


def vertex_groups(count: int, superpoints: np.ndarray | None) -> np.ndarray:
    """(N,) int64 for `Votes`: vertices of a superpoint are one group, those of none (-1) one each."""
    if superpoints is None:
        return np.arange(count)
    superpoints = np.asarray(superpoints)
    if superpoints.shape != (count,) or superpoints.dtype.kind not in "iu":
        raise InputError(
            f"superpoints: expected whole numbers for {count} vertices, found {superpoints.shape} "
            f"{superpoints.dtype}; they belong to another scan"
        )
    alone = superpoints < 0
    ids, group = np.unique(superpoints, return_inverse=True)
    group = group.reshape(-1)
    group[alone] = len(ids) + np.arange(np.count_nonzero(alone))
    return np.unique(group, return_inverse=True)[1].reshape(-1)  # without gaps


def bytes_of_votes(group: np.ndarray, classes: int) -> int:
    """Memory of `Votes` over these groups."""
    return 4 * classes * (int(group.max()) + 1) + 4 * min(BLOCK, len(group) * classes)
