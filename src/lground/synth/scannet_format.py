"""What ScanNet ships for a scan: mesh, segments, objects, alignment; and the table of raw categories."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml

from lground.labels import load_labels

TSV_COLUMNS = (
    "id raw_category category count nyu40id eigen13id nyuClass nyu40class eigen13class ModelNet40 ModelNet10 "
    "ShapeNetCore55 synsetoffset wnsynsetid wnsynsetkey mpcat40 mpcat40index"
).split()
SPELLED_IN_TSV = {"refrigerator": "refridgerator"}  # the table's own spelling


@cache
def classes() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Class name -> (NYU40 class, raw categories, the usual one first)."""
    table = yaml.safe_load((files("lground.synth") / "classes.yaml").read_text(encoding="utf-8"))
    return {name: (nyu40, tuple(dict.fromkeys(raw))) for name, (nyu40, *raw) in table.items()}


def write_mesh(path: Path, points: np.ndarray, colors: np.ndarray, faces: np.ndarray) -> None:
    """Binary PLY as ScanNet's: x y z float32, red green blue alpha uint8 (alpha 255), triangles."""
    vertex = np.zeros(len(points), dtype=[("xyz", "<f4", 3), ("rgba", "u1", 4)])
    vertex["xyz"], vertex["rgba"][:, :3], vertex["rgba"][:, 3] = points, colors, 255
    face = np.zeros(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    face["count"], face["corners"] = 3, faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {name}" for name in "xyz"]
    header += [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    with open(path, "wb") as out:
        out.write("\n".join(header).encode())
        out.write(vertex.tobytes())
        out.write(face.tobytes())


def write_segments(
    path: Path, scene: str, segments: np.ndarray, k_threshold: float, min_vertices: int
) -> None:
    params = {"kThresh": str(k_threshold), "segMinVerts": str(min_vertices)}
    _write_json(path, {"params": params, "sceneId": scene, "segIndices": segments.tolist()})


def write_aggregation(path: Path, scene: str, groups: list[tuple[str, list[int]]]) -> None:
    """Objects as (raw category, segment ids), in order."""
    found = [
        {"id": i, "objectId": i, "segments": segments, "label": label}
        for i, (label, segments) in enumerate(groups)
    ]
    record = {"sceneId": f"scannet.{scene}", "appId": "lground.synth", "segGroups": found}
    record["segmentsFile"] = f"scannet.{scene}_vh_clean_2.0.010000.segs.json"
    _write_json(path, record)


def write_alignment(path: Path, alignment: np.ndarray, room_type: str) -> None:
    numbers = " ".join(f"{value:.6f}" for value in alignment.ravel())
    path.write_text(f"axisAlignment = {numbers}\nsceneType = {room_type.title()}\n", encoding="utf-8")


def write_table(path: Path, counts: dict[str, int]) -> None:
    """The tsv of raw categories; `counts` says how many objects were given each."""
    labels, nyu40 = load_labels("scannet200"), load_labels("nyu40")
    raw_id = dict(zip(labels.names, labels.ids.tolist(), strict=True))
    nyu_id = dict(zip(nyu40.names, nyu40.ids.tolist(), strict=True))
    rows = [TSV_COLUMNS]
    for name, (nyu_name, raw) in classes().items():
        for word in raw:
            cells = dict.fromkeys(TSV_COLUMNS, "")
            cells |= {
                "id": raw_id[name],
                "raw_category": word,
                "category": name,
                "count": counts.get(word, 0),
            }
            cells |= {"nyu40id": nyu_id[nyu_name], "nyu40class": SPELLED_IN_TSV.get(nyu_name, nyu_name)}
            rows.append([str(cells[column]) for column in TSV_COLUMNS])
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def _write_json(path: Path, record: dict) -> None:
    path.write_text(json.dumps(record, separators=(",", ":")), encoding="utf-8")
