"""Label sets as data: ids, names, colours and the head/common/tail splits."""

from lground.labels.labelset import BUILT_IN, LabelSet, from_rows, load_labels

__all__ = ["BUILT_IN", "LabelSet", "from_rows", "load_labels"]
