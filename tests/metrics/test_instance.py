"""Average precision of objects: ScanNet's evaluator, a slow statement of its definition, sums, bad input."""

from pathlib import Path

import numpy as np
import pytest

from lground.metrics import instance_ap

FOLDER = Path(__file__).parents[1] / "golden" / "metrics"
FILES = sorted(FOLDER.glob("instance_[0-9]*.npz"))
CRASHES = sorted(FOLDER.glob("instance_crash_*.npz"))


def golden_scenes(z):
    for i in range(int(z["n_scenes"])):
        _, vertices = z[f"scene{i}_mask_shape"]
        masks = np.unpackbits(z[f"scene{i}_masks"], axis=1, count=int(vertices)).astype(bool)
        yield z[f"scene{i}_gt"], masks, z[f"scene{i}_label"], z[f"scene{i}_conf"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_equal_to_scannets_evaluator(path):
    with np.load(path, allow_pickle=False) as z:
        scores = instance_ap(golden_scenes(z), z["class_ids"])
        close = dict(rtol=0, atol=1e-12, equal_nan=True)
        np.testing.assert_allclose(scores.table, z["ap_table"][0], **close)
        np.testing.assert_allclose(scores.ap, z["class_ap"], **close)
        np.testing.assert_allclose(scores.ap50, z["class_ap50"], **close)
        np.testing.assert_allclose(scores.ap25, z["class_ap25"], **close)
        np.testing.assert_allclose(scores.mean(), [z["all_ap"], z["all_ap50"], z["all_ap25"]], **close)
