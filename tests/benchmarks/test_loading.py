"""The benchmark of loading as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOADING = Path(__file__).parents[2] / "benchmarks" / "loading"


@pytest.mark.slow
def test_the_command_times_every_part_and_saves(tmp_path):
    line = [sys.executable, LOADING, "--rooms", "1", "--spacing", "0.1", "--rounds", "1", "--workers", "1"]
    done = subprocess.run([*line, "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "loading.json").read_text())
    parts = found["milliseconds"]
    assert len(parts) == 11 and min(parts.values()) >= 0 and found["vertices"] > 1000
    assert 0 < found["pasting_share"] < 1 and found["total"] < sum(parts.values())
    assert all(part in done.stdout for part in parts)
    assert found["loader"]["scenes_per_second"] > 0
