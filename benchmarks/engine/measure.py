"""One engine in a process of its own: is it right, how fast is it, how much memory does it take."""

import ctypes
import gc
import itertools
import json
import time
from collections.abc import Callable
from operator import lt
from pathlib import Path
from statistics import median

import costs
import numpy as np
import torch
from costs import synchronize
from networks import CLASSES, build_maps, features_of, make, norms, windows
from scans import rescans
from subjects import Subject, plain
from torch import Tensor
from torch.nn.functional import cross_entropy

from lground.files import write_json
from lground.models.res16unet import Res16UNet
from lground.progress import say
from lground.sparse import SparseTensor

# Relative errors above which an engine is wrong, not merely rounded: of the logits, and of the norms of gradients in
# training mode, where batch norms over the few voxels of the coarse levels magnify rounding.
LIMITS = {"fp32": (1e-4, 1e-2), "tf32": (0.03, 0.1), "fp16": (0.03, 0.1), "bf16": (0.1, 0.3)}
GRADIENT_SCALE = 4096.0  # keeps gradients of a mean over many voxels within fp16
RESCANS = 8
MIB = 2**20


class Workspace:
    """The folder that the processes of one run share: scans, weights, references, settings."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.job = json.loads((folder / "job.json").read_text())
        self.device = torch.device(self.job["device"])

    def scan(self, voxels: int) -> np.ndarray:
        return np.load(self.folder / f"scan-{voxels}.npy")

    def network(self, stem: int) -> Res16UNet:
        """The network on the device, in eval mode."""
        net = make(self.job["variant"], stem)
        net.load_state_dict(torch.load(self.folder / f"network-{stem}.pt", weights_only=True))
        return net.to(self.device).eval()

    def rows(self, cells: np.ndarray, scene: int = 0) -> Tensor:
        """(N, 4) int32 coordinates on the device."""
        return torch.from_numpy(np.insert(cells, 0, scene, axis=1)).to(self.device)

    def check_rows(self) -> Tensor:
        return self.rows(self.scan(self.job["check_voxels"]))

    def batches(self) -> list[Tensor]:
        """Three batches of the same scenes, each scanned again."""
        scans = [np.load(self.folder / f"batch-{i}.npy") for i in range(self.job["train_scenes"])]
        again = zip(*(rescans(cells, 3) for cells in scans), strict=True)
        return [torch.cat([self.rows(cells, i) for i, cells in enumerate(batch)]) for batch in again]


def prepare(space: Workspace) -> None:
    """Weights, float64 references, ceilings and floors; `prepare.json` holds what belongs in the results."""
    job, device, result = space.job, space.device, {"floors": []}
    say("prepare: ceilings of this machine")
    result["ceilings"] = costs.ceilings(device, job["dtypes"])
    costs.allow_tf32("fp32")
    rows = space.check_rows()
    with plain():
        for stem in job["stems"]:
            say(f"prepare: weights and float64 reference, {stem}^3 stem")
            net = make(job["variant"], stem).to(device)
            _calibrate(net, rows)
            torch.save(net.state_dict(), space.folder / f"network-{stem}.pt")
            torch.save(_reference(net.double(), rows), space.folder / f"reference-{stem}.pt")
            result["floors"] += _floors(space, net.float(), stem, result["ceilings"])
            write_json(space.folder / "prepare.json", result)


def _floors(space: Workspace, net: Res16UNet, stem: int, rates: dict[str, float]) -> list[dict]:
    """Of every size and dtype; a training step is three times the forward pass."""
    job, cases = space.job, []
    if "inference" in job["parts"]:
        cases += [("inference", 1, voxels, space.rows(space.scan(voxels))) for voxels in job["voxels"]]
    if "training" in job["parts"]:
        cases.append(("training", 3, job["train_voxels"], space.batches()[0]))
    found = []
    for part, passes, voxels, rows in cases:
        work = costs.layers(net, rows)
        for dtype in job["dtypes"]:
            least = costs.floor(work, rates, dtype)
            case = {"part": part, "stem": stem, "dtype": dtype, "voxels": voxels}
            found.append(case | {key: passes * value for key, value in least.items()})
    return found


@torch.no_grad()
def _calibrate(net: Res16UNet, rows: Tensor) -> None:
    """Give the batch norms the statistics of these voxels, as training would have."""
    momenta = [norm.momentum for norm in norms(net)]
    for norm in norms(net):
        norm.momentum = None  # the mean over all batches, here one
    net.train()(SparseTensor(features_of(rows), rows))
    for norm, momentum in zip(norms(net), momenta, strict=True):
        norm.momentum = momentum
    net.eval()


def _reference(net: Res16UNet, rows: Tensor) -> dict[str, Tensor]:
    features = features_of(rows).double()
    with torch.no_grad():
        out = net(SparseTensor(features, rows))[-2].features
    net.train()
    return {
        "logits": out.cpu(),
        "gradients": _gradient_norms(net, lambda: net(SparseTensor(features, rows))[-2].features, rows),
    }


def _gradient_norms(net: torch.nn.Module, run: Callable[[], Tensor], rows: Tensor) -> Tensor:
    """Norm of the loss's gradient of every parameter: whatever the layout of an engine's weights."""
    loss = cross_entropy(_wide(run()), labels_of(rows))
    (loss * GRADIENT_SCALE).backward()
    found = torch.stack([p.grad.double().norm() for p in net.parameters()]).cpu() / GRADIENT_SCALE
    net.zero_grad(set_to_none=True)
    return found


def labels_of(rows: Tensor) -> Tensor:
    """(N,) int64 classes."""
    return (7 * rows[:, 1] + 3 * rows[:, 2] + rows[:, 3]).long() % CLASSES


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


class Measurement:
    """Checks and times one engine, and keeps `<engine>.json` up to date."""

    def __init__(self, space: Workspace, engine: str):
        self.space, self.job, self.engine = space, space.job, engine
        self.result: dict = {"check": [], "inference": [], "training": [], "failures": []}
        self.subject = Subject(engine, space.device, self.job["full_tuning"])
        self.result["version"] = self.subject.version

    def run(self) -> None:
        with self.subject.plainly():
            for stem, dtype in itertools.product(self.job["stems"], self.job["dtypes"]):
                if self._case("check", self._check, stem, dtype):
                    if "inference" in self.job["parts"]:
                        self._inference(stem, dtype)
                    if "training" in self.job["parts"] and self.engine != "lground-half":
                        self._case("training", self._training, stem, dtype)
        self._save()

    def _save(self) -> None:
        write_json(self.space.folder / f"{self.engine}.json", self.result)

    def _case(self, part: str, measure: Callable[..., dict], stem: int, dtype: str, *rest) -> dict | None:
        """Measure and keep one case; a case that fails is kept as a failure and does not end the run."""
        name = " ".join(map(str, (f"{stem}^3", dtype, *rest)))
        start, found = time.perf_counter(), None
        try:
            found = measure(stem, dtype, *rest)
            self.result[part].append({"stem": stem, "dtype": dtype, **found})
            note = ", ".join(f"{key} {value:.4g}" for key, value in found.items() if type(value) is float)
        except Exception as error:
            note = f"FAILED, {type(error).__name__}: {error}"[:500]
            self.result["failures"].append({"case": f"{part} {name}", "error": note})
        if found and found.get("ok") is False:
            note, found = f"WRONG, not timed: {note}", None
        say(f"{self.engine}: {part} {name}: {note} [{time.perf_counter() - start:.1f} s]")
        self._save()
        gc.collect()
        if self.space.device.type == "cuda":
            torch.cuda.empty_cache()
        return found

    def _check(self, stem: int, dtype: str) -> dict:
        rows, reference = self.space.check_rows(), torch.load(self.space.folder / f"reference-{stem}.pt")
        subject, features = self.subject, features_of(rows)
        subject.room([rows], 1)
        subject.load(self.space.network(stem), dtype, training=False)
        with torch.no_grad():
            out = subject.fresh(rows, features)[0].double().cpu()
        found = {"error": _distance(out, reference["logits"])}
        if self.engine != "lground-half" and self.job["parts"] != ["inference"]:
            subject.load(self.space.network(stem), dtype, training=True)
            norms = _gradient_norms(subject.net, lambda: subject.fresh(rows, features)[0], rows)
            found["gradient_error"] = _distance(norms, reference["gradients"])
        return found | {"ok": all(map(lt, found.values(), LIMITS[dtype]))}

    def _inference(self, stem: int, dtype: str) -> None:
        self.subject.load(self.space.network(stem), dtype, training=False)
        for voxels in self.job["voxels"]:
            if not self._case("inference", self._scans, stem, dtype, voxels):
                break  # larger ones would fail as well

    @torch.no_grad()
    def _scans(self, stem: int, dtype: str, voxels: int) -> dict:
        subject = self.subject
        coordinates = [self.space.rows(cells) for cells in rescans(self.space.scan(voxels), RESCANS)]
        features = [features_of(rows) for rows in coordinates]
        subject.room(coordinates, 1)
        inputs = list(zip(coordinates, features, strict=True))
        found = self._timed([lambda scan=scan: subject.fresh(*scan)[0] for scan in inputs])
        if subject.peer is None:
            wanted = windows(subject.net)
            builds = [lambda rows=rows: build_maps(wanted, rows) for rows in coordinates]
            found["maps_ms"] = median(self._walls(builds))
            if self.space.device.type == "cuda":
                found["maps_gpu_ms"] = busy(builds)["gpu_ms"]
            return {"voxels": voxels, **found}
        try:
            state = subject.fresh(*inputs[0])[1]
            again = median(self._walls([lambda: subject.again(state)]))
        except Exception:  # not every engine lets its maps be used again
            return {"voxels": voxels, **found}
        return {"voxels": voxels, **found, "maps_ms": max(0.0, found["wall_ms"] - again)}

    def _training(self, stem: int, dtype: str) -> dict:
        subject, device, batches = self.subject, self.space.device, self.space.batches()
        subject.room(batches, self.job["train_scenes"])
        subject.load(self.space.network(stem), dtype, training=True)
        optimizer = torch.optim.SGD(subject.net.parameters(), lr=1e-3, momentum=0.9)
        scaler = torch.amp.GradScaler(device.type, enabled=dtype == "fp16")

        def forward(rows: Tensor, features: Tensor, labels: Tensor) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with subject.autocast():
                return cross_entropy(subject.fresh(rows, features)[0].float(), labels)

        def step(*batch: Tensor) -> Tensor:
            loss = forward(*batch)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        inputs = [(rows, features_of(rows), labels_of(rows)) for rows in batches]
        found = self._timed([lambda batch=batch: step(*batch) for batch in inputs])
        found["forward_ms"] = median(self._walls([lambda batch=batch: forward(*batch) for batch in inputs]))
        return {"voxels": self.job["train_voxels"], **found, "loss": step(*inputs[0]).item()}

    def _timed(self, calls: list[Callable[[], object]]) -> dict:
        """First call, walls, GPU time and memory of calls that take turns."""
        memory = Memory(self.space.device)
        first = self._walls(calls[:1], times=1)[0]
        patience = time.perf_counter() + self.job["seconds"] / 2
        for call in calls[1:]:  # every size once, where the time allows
            if time.perf_counter() < patience:
                call()
        memory.again()
        walls = sorted(self._walls(calls))
        found = {
            "wall_ms": median(walls),
            "low_ms": walls[len(walls) // 10],
            "high_ms": walls[-1 - len(walls) // 10],
            "repeats": len(walls),
            "first_ms": first,
            **memory.peaks(),
        }
        return found | (busy(calls) if self.space.device.type == "cuda" else {})

    def _walls(self, calls: list[Callable[[], object]], times: int | None = None) -> list[float]:
        """Milliseconds of single calls, the device idle before and after; few where one takes long."""
        walls, patience = [], time.perf_counter() + self.job["seconds"]
        while len(walls) < (times or self.job["repeats"]):
            call = calls[len(walls) % len(calls)]
            synchronize(self.space.device)
            start = time.perf_counter()
            result = call()
            synchronize(self.space.device)
            walls.append((time.perf_counter() - start) * 1e3)
            del result
            if time.perf_counter() > patience and len(walls) >= 3:
                break
        return walls


class Memory:
    """Peak memory above what was taken when this was made, network and inputs that is.

    `peak_mb` of calls after `again`, above what was allocated then; on CUDA also `reserved_mb`, by how much the
    device's pool (that of graphs too) grew since this was made. On a CPU it is the resident size.
    """

    def __init__(self, device: torch.device):
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.reserved = torch.cuda.memory_reserved()
        self.again()

    def again(self) -> None:
        """Count from here."""
        if self.device.type == "cuda":
            self.reserved_peak = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is to leave the resident size
            CLEAR_REFS.write_text("5")  # the peak becomes the present size
            self.base = _resident("VmRSS")

    def peaks(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {"peak_mb": (_resident("VmHWM") - self.base) / MIB}
        reserved = max(self.reserved_peak, torch.cuda.max_memory_reserved()) - self.reserved
        return {
            "peak_mb": (torch.cuda.max_memory_allocated() - self.base) / MIB,
            "reserved_mb": reserved / MIB,
        }


CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _resident(kind: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def busy(calls: list[Callable[[], object]], times: int = 4) -> dict[str, float]:
    """Per call: `gpu_ms` in which the device worked, from the profiler, and the number of its `launches`."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        for i in range(times):
            calls[i % len(calls)]()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    )
    worked, until = 0.0, float("-inf")
    for start, end in spans:  # kernels of several streams may overlap
        worked += max(0.0, end - max(start, until))
        until = max(until, end)
    return {"gpu_ms": worked / times / 1e3, "launches": len(spans) / times}


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Relative error; infinite for anything that is not a number."""
    error = ((found - wanted).norm() / wanted.norm()).item()
    return error if error == error else float("inf")
