"""The benchmark of grouping as a user runs it, and its reference against looking at all pairs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GROUPING = Path(__file__).parents[2] / "benchmarks" / "grouping"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(GROUPING))


def test_the_reference_finds_the_components():
    import reference
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(0)
    points = rng.integers(0, 4, (400, 3)) * 0.07 + rng.normal(size=(400, 3)) * 0.015
    labels = rng.integers(0, 2, 400)
    near = (np.linalg.norm(points[:, None] - points, axis=2) <= 0.03) & (labels[:, None] == labels)
    number, expected = connected_components(near, directed=False)  # numbered by their first points
    assert number > 10
    lists = reference.neighbour_lists(points, 0.03)
    for search in (reference.point_by_point, reference.ring_by_ring):
        assert search(labels, *lists).tolist() == expected.tolist()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_command_measures_compares_and_saves(tmp_path):
    line = [sys.executable, GROUPING, "--vertices", "20k", "--out", tmp_path]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "grouping.json").read_text())["cases"]
    assert case["vertices"] == 20_000 and case["same"] == "yes"
    for subject in case["subjects"].values():
        assert all(seconds > 0 for seconds in subject["seconds"].values()) and subject["peak_mb"] > 10
    assert case["subjects"]["find_objects"]["objects"] > 0
    assert case["ratios"]["both"] > 1
    assert "| 20,000 " in done.stdout
