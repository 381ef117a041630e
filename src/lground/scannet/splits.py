"""The official ScanNet v2 split lists as data, and lists that users bring."""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from lground.errors import InputError

SPLITS = ("train", "val", "test")
_DATA = Path(__file__).parent / "data" / "scannetv2_splits.json"


def split_scenes(split: str) -> tuple[str, ...]:
    """Names of the scenes of an official ScanNet v2 split, sorted: "train" (1201), "val" (312) or "test"
    (100)."""
    if split not in SPLITS:
        raise InputError(f"{split}: not a split; choose one of {', '.join(SPLITS)}")
    return _official()[split]


@lru_cache
def _official() -> dict[str, tuple[str, ...]]:
    # All scans of a space are in the same split, so the lists are: scans per space, and the split of each
    # space.
    data = json.loads(_DATA.read_text())
    val, first_test = set(data["val"]), data["first_test"]
    scenes: dict[str, list[str]] = {split: [] for split in SPLITS}
    for space, rescans in enumerate(data["rescans"]):
        split = "test" if space >= first_test else "val" if space in val else "train"
        scenes[split] += [f"scene{space:04d}_{scan:02d}" for scan in range(int(rescans))]
    return {split: tuple(names) for split, names in scenes.items()}


def read_scene_list(path: str | os.PathLike) -> tuple[str, ...]:
    """Scene names from a text file, one per line; of a path train/scene0000_00.ply the name counts.

    A file without a single byte is a split without scenes; one with nothing but blank lines is a mistake.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a text file of scene names"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a file with one scene name per line") from None
    names = [_scene_name(line.strip()) for line in lines if line.strip()]
    if not names and lines:
        raise InputError(f"{path}: lists no scenes; write one scene name per line")
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise InputError(f"{path}: the scene {name!r} is listed twice or has no name; mend the list")
        seen.add(name)
    return tuple(names)


def _scene_name(line: str) -> str:
    name = Path(line).name
    return name.removesuffix(".ply").removesuffix(".pth")


def choose_splits(raw: Path, given: Mapping[str, str | os.PathLike | None]) -> dict[str, frozenset[str]]:
    """Scenes of each split: from the list given, else raw/scannetv2_<split>.txt, else the official list.

    A scene that a given list claims leaves the official lists of the other splits. InputError if two given
    lists share a scene.
    """
    files = {split: given.get(split) or raw / f"scannetv2_{split}.txt" for split in SPLITS}
    brought = {
        split: frozenset(read_scene_list(path))
        for split, path in files.items()
        if given.get(split) or Path(path).is_file()
    }
    owner: dict[str, str] = {}
    for split, names in brought.items():
        for name in names:
            if name in owner:
                raise InputError(
                    f"{files[split]}: {name} is also in the {owner[name]} list {files[owner[name]]}; "
                    "a scene belongs to one split"
                )
            owner[name] = split
    return {s: brought[s] if s in brought else frozenset(split_scenes(s)) - owner.keys() for s in SPLITS}
