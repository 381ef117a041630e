"""Objects found without classes and named by words, against the true ones."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lground.labels import LabelSet, from_rows
from lground.metrics import instance_ap
from lground.models import TEMPERATURE, Model
from lground.predict.open_vocabulary import segment_vectors
from lground.predict.segmentation import Segmentation
from lground.predict.words import trained_names, word_shares
from lground.progress import track
from lground.scannet import PreparedScene, list_scenes, open_scene
from lground.scans import Scan

LEAST = 100  # vertices of an object that counts, as in ScanNet's AP
IOUS = (0.5, 0.25)
NAMINGS = ("reach", "cosine", "closed set")


@dataclass
class Answers:
    """What `model` says of the objects in the validation rooms of a store.

    Words are the classes of all objects there; they are encoded as the model's anchors, of which they are rows.
    """

    model: Model
    label_set: LabelSet
    held_out: list[str]
    ap: dict[str, list] = field(default_factory=lambda: {"all": [], "held out": []})
    objects: list[dict] = field(default_factory=list)  # true ones that count, and what was found there
    shown: tuple[PreparedScene, Segmentation] | None = None  # the room with most held-out objects

    def look_at(self, store: Path) -> None:
        scenes = [open_scene(folder) for folder in list_scenes(store, "val")]
        labels = np.concatenate([np.unique(scene.segment()) for scene in scenes])
        things = np.flatnonzero(self.label_set.instance_class)
        self.words = np.intersect1d(labels, things)  # class indices
        self.rare = np.array([self.label_set.names.index(name) for name in self.held_out])
        rows = [{"name": self.label_set.names[k]} for k in self.words]
        word_set, vectors = from_rows("words", rows, store), self.model.anchors[self.words].cpu()
        most = -1
        for scene in track(scenes, "Finding objects"):
            scan = Scan(np.array(scene.coord), np.array(scene.color))
            result = segment_vectors(
                self.model, scan, word_set, vectors, superpoints=np.asarray(scene.superpoint), features=True
            )
            count = self._compare(scene, result)
            if count > most:
                most, self.shown = count, (scene, result)

    def _compare(self, scene: PreparedScene, result: Segmentation) -> int:
        """Keep one room's objects; returns how many held-out ones it has."""
        truth = np.asarray(scene.segment()).astype(np.int64)
        thing = (truth >= 0) & (scene.instance >= 0) & self.label_set.instance_class[truth]
        owner = np.where(thing, scene.instance + 1, 0)  # 0: none
        rare = np.isin(truth, self.rare)
        masks = result.objects.masks
        for name, counted in {"all": thing, "held out": thing & rare}.items():
            # Class 1 counts; other objects are void (of class 2, which is not scored), background is no object.
            ids = np.where(counted, 1000 + owner, np.where(thing, 2000 + owner, 0))
            self.ap[name].append((ids, masks, np.ones(len(result.objects), np.int64), result.objects.scores))
        names, tops = self._names(result)
        shared = masks.astype(np.int64) @ np.eye(owner.max() + 1, dtype=np.int64)[owner]  # (P, 1 + objects)
        sizes = np.bincount(owner, minlength=owner.max() + 1)
        for number in np.flatnonzero(sizes >= LEAST):
            if number == 0:
                continue
            label = int(truth[owner == number][0])
            iou = shared[:, number] / (result.objects.sizes + sizes[number] - shared[:, number])
            found = int(iou.argmax()) if len(iou) else -1
            entry = {"class": label, "held out": label in self.rare, "iou": float(iou.max(initial=0))}
            if found >= 0:
                entry |= {"names": {key: int(name[found]) for key, name in names.items()}}
                entry |= {"first five": label in tops[found]}
            self.objects.append(entry)
        return len(np.unique(owner[thing & rare]))

    def _names(self, result: Segmentation) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The class that each naming gives each object, of all words and of the held-out ones; the best five."""
        model, objects = self.model, result.objects
        unit = F.normalize(torch.from_numpy(result.features), dim=1).numpy().astype(np.float64)
        features = (objects.masks.astype(np.float64) @ unit) / np.maximum(objects.sizes, 1)[:, None]
        anchors = model.anchors.cpu()
        cosine, between = self._cosines(features, anchors)
        # A closed set has the trained names alone: an object gets the nearest of them, then the word most like it.
        nearest = np.where(trained_names(model), cosine, -2).argmax(axis=1)
        names, tops = {}, np.empty((len(objects), 0))
        for which, words in {"all": self.words, "ten": self.rare}.items():
            shares = word_shares(model, features, anchors[words])
            names[f"reach, {which}"] = words[shares.argmax(axis=1)]
            names[f"cosine, {which}"] = words[cosine[:, words].argmax(axis=1)]
            names[f"closed set, {which}"] = words[between[nearest][:, words].argmax(axis=1)]
            if which == "all":
                tops = words[np.argsort(-shares, axis=1)[:, :5]]
        return names, tops

    def _cosines(self, features: np.ndarray, anchors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of features (R, d) to all names, and of all names to each other."""
        device = self.model.anchors.device
        with torch.inference_mode():
            cosine = self.model.similarity(torch.from_numpy(features).to(device), self.model.anchors)
        text = F.normalize(anchors, dim=1)
        return cosine.cpu().numpy(), (text @ text.T).numpy()

    def results(self) -> dict:
        """All as fractions, None where there is nothing to count."""
        found = {"words": len(self.words), "temperature": TEMPERATURE, "rooms": len(self.ap["all"])}
        for name, scenes in self.ap.items():
            means = instance_ap(scenes, np.array([1])).mean()
            found[name] = {key: float(value) for key, value in means._asdict().items()}
        for group in ("held out", "trained"):
            mine = [entry for entry in self.objects if entry["held out"] == (group == "held out")]
            found[f"objects, {group}"] = len(mine)
            found[f"naming, {group}"] = {str(iou): self._naming(mine, iou) for iou in IOUS}
        found["classes"] = {
            name: self._naming([entry for entry in self.objects if entry["class"] == k], 0.5)
            for name, k in zip(self.held_out, self.rare.tolist(), strict=True)
        }
        return found

    def _naming(self, objects: list[dict], iou: float) -> dict:
        matched = [entry for entry in objects if "names" in entry and entry["iou"] >= iou]
        right = {
            f"{naming}, {which}": _share(
                entry["names"][f"{naming}, {which}"] == entry["class"] for entry in matched
            )
            for naming in NAMINGS
            for which in ("all", "ten")
        }
        return {
            "objects": len(objects),
            "recall": len(matched) / len(objects) if objects else None,
            "named right": right | {"first five": _share(entry["first five"] for entry in matched)},
        }


def _share(right) -> float | None:
    right = list(right)
    return sum(right) / len(right) if right else None
