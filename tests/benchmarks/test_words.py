"""The benchmark of words: what it counts, and its tables on numbers that are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lground.instances import Objects
from lground.labels import load_labels
from lground.models import Model

WORDS = Path(__file__).parents[2] / "benchmarks" / "words"
LABELS = load_labels("scannet200")
CHAIR, COUCH, BED = (LABELS.names.index(name) for name in ("chair", "couch", "bed"))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(WORDS))


class Scene:
    """Three objects of 200 vertices and a floor."""

    instance = np.repeat([0, 1, 2, -1], 200)

    def segment(self):
        return np.repeat([CHAIR, COUCH, BED, LABELS.names.index("floor")], 200)


class Result:
    """The chair whole, half of the couch with as much floor, and no bed; features are the text of the names."""

    def __init__(self, anchors):
        masks = np.zeros((2, 800), dtype=bool)
        masks[0, :200] = masks[1, 200:300] = masks[1, 600:700] = True
        self.objects = Objects.from_masks(masks, np.array([0, 1]), np.array([0.9, 0.8]))
        self.features = anchors[[CHAIR, COUCH, BED, BED]].repeat_interleave(200, dim=0).numpy()
        self.features[600:] = self.features[200]


def test_objects_are_matched_and_names_counted():
    import shown
    from naming import Answers

    model = Model.fresh("Res16UNet14D", LABELS, 0.1, representation_only=True).eval()
    model.anchors = torch.eye(384)[: len(LABELS)]
    model.recipe = "data: {hold_out: [couch, bed]}"
    answers = Answers(model, LABELS, ["couch", "bed"])
    answers.words, answers.rare = np.array([CHAIR, COUCH, BED]), np.array([COUCH, BED])
    assert answers._compare(Scene(), Result(model.anchors)) == 2
    found = answers.results()
    assert (found["objects, held out"], found["objects, trained"]) == (2, 1)
    assert found["naming, held out"]["0.5"]["recall"] == 0  # IoU 100 / 300
    loose = found["naming, held out"]["0.25"]
    assert loose["recall"] == 0.5 and loose["named right"]["reach, all"] == 1
    assert loose["named right"]["closed set, all"] == 0 and loose["named right"]["first five"] == 1
    assert found["naming, trained"]["0.5"]["named right"]["closed set, all"] == 1
    assert found["all"]["ap50"] == pytest.approx(1 / 3) and found["held out"]["ap25"] == pytest.approx(0.5)
    table = "\n".join(shown.lines([{"seed": 1, "method": "features", **found}], answers.held_out))
    assert "| 33.3 | 66.7 | - | - |" in table
    assert "| objects, held out | 0.0 | 0.0 | 50.0 | 0.0 | 50.0 |" in table
