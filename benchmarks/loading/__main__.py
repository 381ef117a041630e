"""Time what lies between a prepared scene and a batch: reading, pasting, every augmentation, voxels, collation.

    python benchmarks/loading                    # two made-up rooms of 150,000 to 220,000 vertices, 2 cm
    python benchmarks/loading --store STORE      # scenes of yours, with their bank of objects
    python benchmarks/loading --workers 16       # the loader as training runs it, too

Parts are CPU milliseconds of one thread per scene, averaged over `--rounds` rounds, so a step counts with the
probability that it has; colour is contrast, translation and jitter together. Scenes are read from the page cache.
Raw attributes, mixing and the dropout of the instance stage are off in the paper's recipes and not part of the total.
`--out` receives loading.json.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from lground import data
from lground.cli import main as lground
from lground.data.mixing import mix
from lground.data.reading import read_sample
from lground.files import write_json
from lground.scannet import open_scene

VOXEL_SIZE = 0.02
OPTIONAL = ("attributes", "dropout", "mixing")
NAMES = {
    "Pasting": "pasting",
    "ChangeAttributes": "attributes",
    "ElasticDistortion": "elastic distortion",
    "RotateScale": "rotation, scale",
    "Flip": "flip, shift",
    "Shift": "flip, shift",
    "AutoContrast": "colour",
    "ColorTranslation": "colour",
    "ColorJitter": "colour",
    "Dropout": "dropout",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        "benchmarks/loading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--store", type=Path, help="prepared scenes; without, rooms are made up")
    add("--rooms", type=int, default=2, help="to make up (default: 2)")
    add("--spacing", type=float, default=VOXEL_SIZE, help="metres between their vertices (default: 0.02)")
    add("--objects", type=int, default=5, help="to paste into a scene (default: 5)")
    add("--rounds", type=int, default=10, help="epochs that are timed (default: 10)")
    add("--workers", type=int, default=0, help="also time the loader with so many processes (default: not)")
    add("--out", type=Path, default=Path("runs/loading"), help="folder of the result (default: runs/loading)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="lground-benchmark-") as folder:
        store = options.store or make_rooms(Path(folder), options.rooms, options.spacing)
        result = time_parts(open_dataset(store, options.objects, optional=True), options.rounds)
        if options.workers:
            result["loader"] = time_loader(open_dataset(store, options.objects), options)
    write_json(options.out / "loading.json", result)
    print("\n".join(lines(result)))


def make_rooms(folder: Path, count: int, spacing: float) -> Path:
    raw, store = folder / "raw", folder / "store"
    counts = ["--train", str(count), "--val", "1", "--test", "1"]
    for line in (["synth", raw, *counts, "--spacing", str(spacing)], ["prepare", raw, store]):
        if code := lground([str(word) for word in line]):
            sys.exit(code)
    return store


def open_dataset(store: Path, objects: int, *, optional: bool = False) -> data.SceneDataset:
    """The training scenes with the augmentations of the paper's recipes, or with all there are."""
    return data.SceneDataset(
        store,
        "train",
        voxel_size=VOXEL_SIZE,
        transforms=data.training_transforms(dropout=0.2 if optional else 0.0),
        paste=data.Paste(count=objects, classes="common_tail"),
        attributes=data.Attributes() if optional else None,
    )


def time_parts(dataset: data.SceneDataset, rounds: int) -> dict:
    """CPU milliseconds per scene by part, and the size of the scenes."""
    spent: Counter[str] = Counter()
    vertices, voxels, before = 0, 0, None

    def timed(part, work, *arguments):
        start = time.process_time()
        value = work(*arguments)
        spent[part] += time.process_time() - start
        return value

    for epoch in range(rounds):
        for index, folder in enumerate(dataset.folders):
            rng = np.random.default_rng([epoch, index])
            sample = timed("reading", read, folder, dataset)
            vertices += len(sample.points)
            for step in dataset.transforms.points:
                sample = timed(NAMES[type(step).__name__], step, sample, rng)
            scene = timed("voxels", data.voxelize_sample, sample, dataset.voxel_size, dataset.reduce)
            for step in dataset.transforms.voxels:
                scene = timed(NAMES[type(step).__name__], step, scene, rng)
            voxels += len(scene)
            timed("collation", data.collate, [scene])
            timed("mixing", mix, scene, before or scene)
            before = scene
    count = rounds * len(dataset)
    parts = {part: 1000 * seconds / count for part, seconds in spent.items()}
    total = sum(time for part, time in parts.items() if part not in OPTIONAL)
    return {
        "scenes": len(dataset),
        "vertices": vertices / count,
        "voxels": voxels / count,
        "milliseconds": parts,
        "total": total,
        "pasting_share": parts["pasting"] / (total - parts["pasting"]),
        "scenes_per_second_per_core": 1000 / total,
    }


def read(folder: Path, dataset: data.SceneDataset) -> data.Sample:
    """With the points and colours, which otherwise stay on disk until the first step."""
    sample = read_sample(open_scene(folder), dataset.label_set, dataset.annotation)
    sample.points.max(), sample.colors.max()
    return sample


def time_loader(dataset: data.SceneDataset, options: argparse.Namespace) -> dict:
    """Scenes per second of wall-clock time through the loader, its start left out."""
    dataset.folders *= -(-(options.rounds + 1) * options.workers // len(dataset))
    loader = iter(data.build_loader(dataset, 1, shuffle=True, workers=options.workers, whole=False))
    for _ in range(options.workers):
        next(loader)
    start = time.monotonic()
    scenes = sum(len(batch.names) for step in loader for batch in step)
    seconds = time.monotonic() - start
    return {"workers": options.workers, "scenes": scenes, "scenes_per_second": scenes / seconds}


def lines(result: dict) -> list[str]:
    parts, total = result["milliseconds"], result["total"]
    table = [
        f"{result['scenes']} scenes of {result['vertices']:,.0f} vertices, {result['voxels']:,.0f} voxels "
        "(mean); CPU time of one thread",
        "",
        f"{'part':<22}{'ms per scene':>14}{'share':>9}",
    ]
    for part in sorted(parts, key=lambda part: (part in OPTIONAL, -parts[part])):
        share = "optional" if part in OPTIONAL else f"{100 * parts[part] / total:.1f} %"
        table.append(f"{part:<22}{parts[part]:>14.1f}{share:>9}")
    table += [
        f"{'all but the optional':<22}{total:>14.1f}",
        "",
        f"{result['scenes_per_second_per_core']:.2f} scenes per second and core; pasting adds "
        f"{100 * result['pasting_share']:.1f} % to the rest",
    ]
    if "loader" in result:
        loader = result["loader"]
        table.append(
            f"loader with {loader['workers']} processes: {loader['scenes_per_second']:.2f} scenes per second"
        )
    return table


if __name__ == "__main__":
    main()
