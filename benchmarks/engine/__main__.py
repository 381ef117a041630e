"""Time the sparse engine: inference, a training step, map building and memory, against whatever is installed.

    python benchmarks/engine                            # everything this machine can run
    python benchmarks/engine --quick                    # under a minute on two CPU cores
    python benchmarks/engine --engines lground,spconv --dtypes fp16,tf32 --voxels 133k --against spconv

Every engine gets the same weights, is compared with a float64 reference first, and runs in a process of its own;
one that is wrong is reported and not timed. `--out` receives engine.json (all numbers, also while the work goes on),
engine.md (the tables printed at the end) and engine.png.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    if sys.argv[1:2] == ["--process"]:  # of one engine: started below
        return work(sys.argv[2], Path(sys.argv[3]))
    options = parse()
    with tempfile.TemporaryDirectory(prefix="lground-benchmark-") as folder:
        job = settle(options)
        Path(folder, "job.json").write_text(json.dumps(job))
        results = run(Path(folder), job, options.engines, Path(options.out), options.against)
    wrong = [name for name, engine in results["engines"].items() if not all(c["ok"] for c in engine["check"])]
    if any(name in wrong for name in ("lground", "lground-half", "plain")):
        sys.exit("our own engine is wrong here: see the errors above")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--engines", type=names, help="of lground, lground-half, plain and peers; default: all installed")
    add("--against", default="plain", help="the engine that ratios refer to (default: plain)")
    add("--voxels", type=numbers, help="sizes of single scans (default: 10k,43k,133k,360k,1M; CPU: 10k,50k)")
    add("--dtypes", type=names, help="of fp32, tf32, bf16, fp16 (default: all; CPU: fp32)")
    add(
        "--stem", type=numbers, default=[5], dest="stems", help="kernel of the first convolution: 3, 5 or 3,5"
    )
    add("--variant", default="Res16UNet34C", help="network (default: Res16UNet34C)")
    add("--parts", type=names, default=["inference", "training"], help="default: inference,training")
    add("--train-voxels", type=number, help="voxels of a training batch (default: 1.16M; CPU: 20k)")
    add("--train-scenes", type=int, help="scenes of a training batch (default: 8; CPU: 2)")
    add("--repeats", type=int, default=15, help="timed calls per case (default: 15)")
    add(
        "--seconds",
        type=float,
        default=20,
        help="fewer calls (not below 3) where a case takes longer than this",
    )
    add("--device", help="default: cuda where there is one")
    add("--out", default="runs/engine", help="folder of the results (default: runs/engine)")
    add(
        "--full-tuning",
        action="store_true",
        help="let peers try all candidates of their kernels: takes minutes",
    )
    add("--check-only", action="store_true", help="no times: is every engine right?")
    add("--quick", action="store_true", help="small scans, few repeats")
    return parser.parse_args()


def names(text: str) -> list[str]:
    return text.split(",")


def number(text: str) -> int:
    """1500, 43k or 1.16M."""
    scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower(), 1)
    return round(float(text[:-1] if scale > 1 else text) * scale)


def numbers(text: str) -> list[int]:
    return sorted(number(part) for part in text.split(","))


def settle(options: argparse.Namespace) -> dict:
    """What is to be done here; fills in what was not asked for."""
    import torch
    from peers import PEERS, installed
    from subjects import OWN

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.startswith("cuda")
    if options.engines is None:
        peers = [name for name in installed() if cuda or PEERS[name].on_cpu]
        options.engines = [*(OWN if cuda else ["plain"]), *peers]
    unknown = set(options.engines) - set(OWN) - set(PEERS)
    if unknown:
        sys.exit(f"no engine is called {', '.join(sorted(unknown))}: there are {', '.join([*OWN, *PEERS])}")
    quick = options.quick
    voxels = options.voxels or numbers("2k,6k" if quick else "10k,43k,133k,360k,1M" if cuda else "10k,50k")
    return {
        "device": device,
        "variant": options.variant,
        "stems": options.stems,
        "dtypes": options.dtypes or (["fp16", "bf16", "tf32", "fp32"] if cuda else ["fp32"]),
        "voxels": voxels,
        "check_voxels": 6000 if quick else 43000 if cuda else 10000,
        "train_voxels": options.train_voxels or (4000 if quick else 1160000 if cuda else 20000),
        "train_scenes": options.train_scenes or (8 if cuda else 2),
        "parts": [] if options.check_only else options.parts,
        "repeats": min(options.repeats, 3) if quick else options.repeats,
        "seconds": min(options.seconds, 2) if quick else options.seconds,
        "full_tuning": options.full_tuning,
    }


def run(folder: Path, job: dict, engines: list[str], out: Path, against: str) -> dict:
    """Scans, references, then engine after engine; the results are written after each."""
    import report

    from lground.files import atomic_file, write_json
    from lground.progress import say

    make_scans(folder, job)
    if not process("prepare", folder):
        sys.exit("the references could not be computed: see above")
    results = {
        "machine": machine(job["device"]),
        "settings": job,
        **load(folder / "prepare.json"),
        "engines": {},
    }
    for count, name in enumerate(engines, 1):
        say(f"engine {count} of {len(engines)}: {name}")
        empty = {"check": [], "inference": [], "training": [], "failures": []}
        ended = process(name, folder)
        result = results["engines"][name] = empty | load(folder / f"{name}.json")
        if not ended:
            result["failures"].append(
                {"case": "the process", "error": "ended early: its last words are above"}
            )
        write_json(out / "engine.json", results)
    text = report.tables(results, against)
    with atomic_file(out / "engine.md") as part:
        part.write_text(text + "\n")
    if "inference" in job["parts"]:
        report.plot(results, out / "engine.png")
    print(text)
    say(f"results: {out}/engine.json, engine.md" + (", engine.png" if "inference" in job["parts"] else ""))
    return results


def load(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def make_scans(folder: Path, job: dict) -> None:
    """The scans that this job needs, one process per core."""
    from scans import save_scan

    from lground.progress import track

    timed = job["voxels"] if "inference" in job["parts"] else []
    wanted = {f"scan-{voxels}": (voxels, 1) for voxels in {*timed, job["check_voxels"]}}
    if "training" in job["parts"]:
        each = job["train_voxels"] // job["train_scenes"]
        wanted |= {f"batch-{i}": (each, 10 + i) for i in range(job["train_scenes"])}
    tasks = [(folder / f"{name}.npy", *arguments) for name, arguments in wanted.items()]
    with ProcessPoolExecutor(min(len(tasks), os.cpu_count() or 1), get_context("spawn")) as pool:
        for _ in track(pool.map(save_scan, tasks), "scans", len(tasks)):
            pass


def process(name: str, folder: Path) -> bool:
    """Run `work` in a process of its own; whether it ended well."""
    return subprocess.run([sys.executable, HERE, "--process", name, folder]).returncode == 0


def work(name: str, folder: Path) -> None:
    from measure import Measurement, Workspace, prepare

    space = Workspace(folder)
    prepare(space) if name == "prepare" else Measurement(space, name).run()


def machine(device: str) -> dict:
    """Where this ran."""
    import importlib.metadata

    import torch

    import lground

    cuda = device.startswith("cuda")
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = None
    cores = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cores,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": triton,
        "python": platform.python_version(),
        "lground": lground.__version__,
    }


if __name__ == "__main__":
    main()
