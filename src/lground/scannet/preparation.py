"""Raw ScanNet folders in, a prepared store out: one folder of arrays per scene, see `store`."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lground import __version__
from lground.errors import InputError
from lground.files import atomic_dir, write_json
from lground.labels import load_labels
from lground.scannet.raw import RawScene, read_raw_scene
from lground.scannet.splits import SPLITS, choose_splits
from lground.scannet.table import TABLE_NAME, LabelTable, read_label_table
from lground.scannet.workers import run_jobs
from lground.scannet.writer import only_one_writer, remove_stale_parts

FORMAT = 1  # of the prepared folder; raise it when its meaning changes


@dataclass(frozen=True)
class Job:
    """One scene to prepare."""

    folder: Path
    split: str


@dataclass
class Report:
    """What a store holds after a run, and what happened in it; `failed` empty means that all went well."""

    prepared: list[str] = field(default_factory=list)  # written in this run
    already: list[str] = field(default_factory=list)  # finished in an earlier run
    failed: dict[str, str] = field(default_factory=dict)  # scene -> the one line that says why
    unlisted: list[str] = field(default_factory=list)  # found, but in no split list
    missing: dict[str, list[str]] = field(default_factory=dict)  # split -> listed scenes that were not found
    scenes: dict[str, list[str]] = field(default_factory=dict)  # split -> scenes in the store
    unannotated: int = 0  # scenes without annotation
    unknown: dict[str, int] = field(default_factory=dict)  # category not in the table -> number of objects

    def save(self, path: Path) -> None:
        """Write what the store holds (not how many runs it took) as JSON."""
        state = {
            "lground": __version__,
            "scenes": self.scenes,
            "failed": self.failed,
            "in_no_split_list": self.unlisted,
            "listed_but_not_found": self.missing,
            "scenes_without_annotation": self.unannotated,
            "unknown_labels": self.unknown,
        }
        write_json(path, state)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.scenes[split])} {split}" for split in SPLITS)
        lines = [
            f"prepared {len(self.prepared)} scenes, {len(self.already)} were there; the store holds {counts}"
        ]
        if self.unannotated:
            lines.append(f"without annotation (all labels -1): {self.unannotated} scenes")
        if self.unlisted:
            lines.append(f"skipped, in no split list: {len(self.unlisted)} ({_some(self.unlisted)})")
        if absent := sum(map(len, self.missing.values())):
            lines.append(f"listed but not found: {absent} scenes")
        if self.unknown:
            named = [f"{name} ({times})" for name, times in self.unknown.items()]
            lines.append(f"labels not in the table, left unlabelled: {_some(named)}")
        if self.failed:
            lines.append(f"failed: {len(self.failed)} ({_some(list(self.failed))})")
        return "\n".join(lines)


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def prepare(
    raw: str | os.PathLike,
    out: str | os.PathLike,
    *,
    labels: str | os.PathLike | None = None,
    train: str | os.PathLike | None = None,
    val: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
    workers: int | None = None,
    align: bool = True,
) -> Report:
    """Write the raw ScanNet scenes under `raw` as a prepared store under `out`.

    Scenes are looked for in raw/scans and raw/scans_test, or in `raw` itself. labels: the label table
    (default: raw/scannetv2-labels.combined.tsv). train, val, test: text files of scene names (default:
    raw/scannetv2_<split>.txt, else the official list). workers: processes (default: one per processor).
    align: apply each scene's axisAlignment.

    Finished scenes are skipped, so a run that was stopped can be repeated. A broken scene is reported and
    does not stop the others. The summary is also written to out/prepare.json. InputError when nothing can be
    done at all.
    """
    raw, out = Path(raw), Path(out)
    found = find_scenes(raw)
    table = read_label_table(labels or raw / TABLE_NAME)
    splits = choose_splits(raw, {"train": train, "val": val, "test": test})
    jobs = [Job(found[name], split) for split in SPLITS for name in sorted(splits[split] & found.keys())]
    if not jobs:
        raise InputError(
            f"{raw}: none of its {len(found)} scene folders ({_some(sorted(found), 3)}) is in a split list;"
            " give lists with --train, --val or --test"
        )
    report = Report(
        unlisted=sorted(found.keys() - frozenset().union(*splits.values())),
        missing={split: sorted(splits[split] - found.keys()) for split in SPLITS},
    )
    settings = {"format": FORMAT, "aligned": align, "label_table_sha256": table.sha256}
    with only_one_writer(out):
        remove_stale_parts(out)
        todo = [job for job in jobs if not _finished(job, out, settings, report)]
        work = partial(_prepare_scene, out=out, table=table, settings=settings)
        for job, failure in run_jobs(work, todo, workers, "Preparing scenes"):
            if failure is None:
                report.prepared.append(job.folder.name)
            else:
                report.failed[job.folder.name] = failure
        report.failed = dict(sorted(report.failed.items()))
        _describe_store(out, jobs, report)
        report.save(out / "prepare.json")
    return report


def find_scenes(raw: Path) -> dict[str, Path]:
    """Scene name -> folder, from raw/scans and raw/scans_test, or from `raw` itself."""
    if not raw.is_dir():
        raise InputError(f"{raw}: is not a folder; give the folder that holds ScanNet's scans/")
    places = [raw / name for name in ("scans_test", "scans") if (raw / name).is_dir()] or [raw]
    found = {
        folder.name: folder for place in places for folder in sorted(place.iterdir()) if _is_scene(folder)
    }
    if not found:
        raise InputError(f"{raw}: holds no scene folders; expected scans/<scene>/<scene>_vh_clean_2.ply")
    return found


def _is_scene(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    numbers = folder.name.removeprefix("scene").split("_")
    named = folder.name.startswith("scene") and len(numbers) == 2 and all(map(str.isdigit, numbers))
    return named or (folder / f"{folder.name}_vh_clean_2.ply").exists()


def _finished(job: Job, out: Path, settings: dict, report: Report) -> bool:
    """Whether the scene needs no work: it is there, or it is there in a way that must not be overwritten."""
    name = job.folder.name
    for split in SPLITS:
        folder = out / split / name
        if not folder.exists():
            continue
        info = _scene_info(folder)
        if split != job.split:
            report.failed[name] = (
                f"{folder}: is in {split} but the lists say {job.split}; remove it and run again"
            )
        elif info is None:
            report.failed[name] = (
                f"{folder}: was not written by lground (no scene.json); choose another folder"
            )
        elif any(info.get(key) != value for key, value in settings.items()):
            report.failed[name] = (
                f"{folder}: was prepared with another label table, alignment or version; remove it or choose"
                " another folder"
            )
        else:
            report.already.append(name)
        return True
    return False


def _scene_info(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "scene.json").read_text())
    except (OSError, ValueError):
        return None


def _prepare_scene(job: Job, *, out: Path, table: LabelTable, settings: dict) -> str | None:
    """Write one scene; the line that says why it could not be, else None."""
    try:
        scene = read_raw_scene(job.folder, table, align=settings["aligned"], annotated=job.split != "test")
        _write_scene(scene, job.folder, out / job.split / job.folder.name, settings)
    except InputError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return f"{error.filename or job.folder}: {error.strerror}"
    except MemoryError:
        return f"{job.folder}: does not fit into memory; run again with fewer --workers"
    return None


def _write_scene(scene: RawScene, source: Path, target: Path, settings: dict) -> None:
    notes = scene.annotation
    arrays = {
        "coord": scene.coord,
        "color": scene.color,
        "segment200": load_labels("scannet200").index_of(notes.raw_id),
        "segment20": load_labels("scannet20").index_of(notes.nyu40_id),
        "instance": notes.instance,
        "superpoint": notes.superpoint,
    }
    info = {
        **settings,
        "lground": __version__,
        "scene": source.name,
        "source": str(source.resolve()),
        "annotation": notes.kind,
        "axis_alignment": None if scene.alignment is None else scene.alignment.tolist(),
        "counts": {
            "vertices": len(scene.coord),
            "superpoints": int(notes.superpoint.max(initial=-1)) + 1,
            "objects": int(notes.instance.max(initial=-1)) + 1,
            "vertices_in_objects": int((notes.instance >= 0).sum()),
            "vertices_with_segment200": int((arrays["segment200"] >= 0).sum()),
            "vertices_with_segment20": int((arrays["segment20"] >= 0).sum()),
        },
        "unknown_labels": notes.unknown,
    }
    with atomic_dir(target) as part:
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array, allow_pickle=False)
        write_json(part / "scene.json", info)


def _describe_store(out: Path, jobs: list[Job], report: Report) -> None:
    unknown: Counter[str] = Counter()
    for split in SPLITS:
        names = [
            job.folder.name for job in jobs if job.split == split and job.folder.name not in report.failed
        ]
        report.scenes[split] = names
        for name in names:
            info = _scene_info(out / split / name) or {}
            unknown.update(info.get("unknown_labels", {}))
            report.unannotated += info.get("annotation") is None
    report.prepared.sort()
    report.unknown = dict(sorted(unknown.items(), key=lambda item: (-item[1], item[0])))
