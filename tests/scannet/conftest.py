"""Raw ScanNet scenes in miniature: real file formats, a few hundred vertices."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import plyfile
import pytest

from lground.cli import main

TABLE = [  # id, raw_category, category, count, nyu40id
    (1, "wall", "wall", 8277, 1),
    (3, "floor", "floor", 1553, 2),
    (2, "chair", "chair", 4357, 5),
    (2, "chairs", "chair", 2, 5),
    (28, "desk lamp", "lamp", 3, 35),
    (1163, "object", "object", 2, 40),
    (1189, "potted plant", "potted plant", 23, ""),
    (203, "magazine rack", "magazine rack", 9, ""),
    (1357, "sliding door", "sliding door", 5, 8),
]


@dataclass
class Raw:
    """A scene to be written: 12 segments of a wavy sheet, ids as scattered as ScanNet's."""

    name: str = "scene0000_00"
    vertices: int = 240
    objects: list = field(default_factory=lambda: [("floor", [0, 1]), ("chair", [2, 3]), ("wall", [5, 6, 7])])
    alignment: np.ndarray | None = None
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng([self.seed, self.vertices])
        self.points = rng.uniform((0, 0, 0), (4, 3, 2.5), (self.vertices, 3)).astype(np.float32)
        self.colors = rng.integers(0, 256, (self.vertices, 3), dtype=np.uint8)
        self.segment_ids = rng.choice(5000, 12, replace=False).astype(int)
        self.segment = np.sort(rng.integers(0, 12, self.vertices))
        self.segment[:12] = np.arange(12)

    def write(self, folder: Path, annotated: bool = True) -> Path:
        scene = folder / self.name
        scene.mkdir(parents=True)
        self.write_mesh(scene / f"{self.name}_vh_clean_2.ply")
        lines = ["colorHeight = 968", "sceneType = Bedroom / Hotel"]
        if self.alignment is not None:
            lines.insert(0, "axisAlignment = " + " ".join(f"{v:.6f}" for v in self.alignment.ravel()) + " ")
        (scene / f"{self.name}.txt").write_text("\n".join(lines) + "\n")
        if annotated:
            self.write_annotation(scene)
        return scene

    def write_mesh(self, path: Path, extra: dict | None = None) -> None:
        extra = extra or {}
        names = [
            ("x", "<f4"),
            ("y", "<f4"),
            ("z", "<f4"),
            *((c, "u1") for c in ("red", "green", "blue", "alpha")),
        ]
        vertex = np.zeros(
            self.vertices, dtype=[*names, *((name, values.dtype) for name, values in extra.items())]
        )
        for k in range(3):
            vertex["xyz"[k]] = self.points[:, k]
            vertex[("red", "green", "blue")[k]] = self.colors[:, k]
        vertex["alpha"] = 255
        for name, values in extra.items():
            vertex[name] = values
        face = np.zeros(self.vertices - 2, dtype=[("vertex_indices", "<i4", (3,))])
        face["vertex_indices"] = np.arange(self.vertices - 2)[:, None] + np.arange(3)
        elements = [plyfile.PlyElement.describe(vertex, "vertex"), plyfile.PlyElement.describe(face, "face")]
        plyfile.PlyData(elements, byte_order="<").write(str(path))

    def write_annotation(self, scene: Path) -> None:
        segments = {
            "params": {"kThresh": "0.0001", "segMinVerts": "20"},
            "sceneId": self.name,
            "segIndices": self.segment_ids[self.segment].tolist(),
        }
        groups = [
            {"id": k, "objectId": k, "segments": self.segment_ids[members].tolist(), "label": label}
            for k, (label, members) in enumerate(self.objects)
        ]
        (scene / f"{self.name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments))
        aggregation = {"sceneId": f"scannet.{self.name}", "appId": "Aggregator.v2", "segGroups": groups}
        (scene / f"{self.name}.aggregation.json").write_text(json.dumps(aggregation))


def write_table(path: Path, rows=TABLE) -> Path:
    header = "id raw_category category count nyu40id eigen13id nyuClass nyu40class".split()
    lines = ["\t".join(header), *("\t".join(map(str, (*row, "", "", ""))) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def make_raw():
    return Raw


@pytest.fixture
def make_table():
    return write_table


@pytest.fixture
def raw_root(tmp_path):
    """Six scenes of the official lists: four train, one val, one test."""
    root = tmp_path / "raw"
    for k, name in enumerate(
        ["scene0000_00", "scene0000_01", "scene0001_00", "scene0002_00", "scene0011_00"]
    ):
        Raw(name, vertices=200 + 20 * k, seed=k).write(root / "scans")
    Raw("scene0707_00", seed=9).write(root / "scans_test", annotated=False)
    write_table(root / "scannetv2-labels.combined.tsv")
    return root


@pytest.fixture
def run(capfd):
    """Run a command line; (exit code, stdout, lines on stderr)."""

    def go(*arguments):
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return go
