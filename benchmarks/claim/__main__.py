"""The paper's claim on made-up rooms: does language pretraining help, and the tail most?

    python benchmarks/claim --gpu-jobs 4                  # rooms, then 5 methods x 2 annotations x 3 seeds
    python benchmarks/claim --gpu-jobs 4 --minutes 25     # starts no run that would not end in time
    python benchmarks/claim --quick                       # a minute or two on two CPU cores
    python benchmarks/claim --methods best,unpretrained,best~loss.lovasz=0    # what one part of a method gives

Every method sees the same number of updates in all, pretraining included, with the same optimiser; each stage has one
rise and fall of the learning rate.

`--out` receives runs/*.json, one as each run ends, and claim.md, claim.json and claim.png; the same call again goes on
with the runs that are missing. `--work` holds the rooms, the anchors, the runs under way and finished pretrainings:
runs that share one need it only once (those of `best` with one part left out, say). Runs side by side on one GPU take
turns on it unless NVIDIA's MPS is on (`nvidia-cuda-mps-control -d`): then they share it (NOTES.md has times).
"""

import argparse
import functools
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path

ANNOTATIONS = ("full", "object-0.05")
QUICK = {"train": 4, "val": 2, "spacing": 0.1, "voxel_size": 0.1, "epochs": 4, "batch": 2, "views": 2}
NETWORK, QUICK_NETWORK = "34C", "14A"  # in names such as Res16UNet34CR_Proj
SHARED = (  # what results must agree on to stand in one table
    "train", "val", "size", "spacing", "voxel_size", "epochs", "pretrain_share", "batch", "views", "precision",
    "network", "set",
)  # fmt: skip


def main() -> int:
    if sys.argv[1:2] == ["--run"]:  # of one run: started by `Turns`
        from work import work

        return work(Path(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending the runs under way
    options = parse()
    from lground.errors import InputError

    try:
        return benchmark(options)
    except InputError as error:
        print("benchmarks/claim:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/claim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--methods", help="default: scratch,supcon,language,ours,best")
    add("--annotations", default=",".join(ANNOTATIONS), help=f"default: {','.join(ANNOTATIONS)}")
    add("--seeds", type=int, default=3, help="runs of each method: seeds 0, 1, 2 (default: 3)")
    add("--train", type=int, default=300, help="training rooms (default: 300)")
    add("--val", type=int, default=100, help="validation rooms (default: 100)")
    add("--size", default="small", help="of the rooms: small (default) or normal")
    add("--spacing", type=float, default=0.05, help="metres between vertices (default: 0.05)")
    add("--voxel-size", type=float, default=0.05, help="metres (default: 0.05)")
    add("--epochs", type=int, default=50, help="of pretraining and fine-tuning together (default: 50)")
    add("--pretrain-share", type=float, default=0.3, help="of the epochs, where there is one (default: 0.3)")
    add("--batch", type=int, default=8, help="rooms per update (default: 8)")
    add("--views", type=int, default=8, help="of each room in a second evaluation (default: 8; 1: no second)")
    add("--precision", default="no", help="no (default), bf16 or fp16")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe of every method")
    add("--anchors", type=Path, help="text anchors (default: made with MiniLM, which needs the extra `text`)")
    add("--minutes", type=float, default=float("inf"), help="start no run that would end later")
    add("--gpu-jobs", type=int, default=1, help="runs side by side, dealt out to all GPUs (default: 1)")
    add("--out", type=Path, default=Path("runs/claim"), help="folder of the results (default: runs/claim)")
    add("--work", type=Path, help="folder of rooms and unfinished runs (default: OUT/work)")
    add("--prepare-only", action="store_true", help="make the rooms and the anchors, run nothing")
    add("--report-only", action="store_true", help="write the tables of what is there, run nothing")
    add("--quick", action="store_true", help="few small rooms, a small network, few updates")
    parser.set_defaults(network=NETWORK)
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK, seeds=1, network=QUICK_NETWORK)
    return parser.parse_args()


def benchmark(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + 60 * options.minutes
    import findings
    from methods import METHODS
    from turns import Turns, visible_gpus

    from lground.progress import say

    settings = settle(options)
    jobs = list_jobs(options, settings, (options.methods or ",".join(METHODS)).split(","))
    left = []
    took = functools.partial(expected, options.out, at_once=options.gpu_jobs)
    turns = Turns(options.gpu_jobs, deadline, took, visible_gpus())
    if not options.report_only:
        from rooms import make_rooms

        make_anchors(Path(settings["anchors"]), options.anchors is None)
        make_rooms(Path(settings["data"]), settings, os.cpu_count() or 1)
        if options.prepare_only:
            say(f"{options.work or options.out / 'work'}: rooms and anchors are there")
            return 0
        left = turns.run(job for job in jobs if not Path(job["result"]).exists())
    print(findings.write(options.out, Path(settings["data"]), [job["name"] for job in jobs]))
    if left:
        say(f"{len(left)} of {len(jobs)} runs are left for lack of time: the same call again goes on")
    return 1 if turns.failed else 0


def settle(options: argparse.Namespace) -> dict:
    """All that the runs share; `identity` goes into every result."""
    work = (options.work or options.out / "work").resolve()
    rooms = f"rooms-{options.train}-{options.val}-{options.size}-{options.spacing}"
    identity = {key: getattr(options, key) for key in SHARED}
    identity |= {"anchors": options.anchors.name if options.anchors else "minilm"}
    cores = (os.cpu_count() or 1) // options.gpu_jobs
    return {
        **identity,
        "identity": identity,
        "annotations": options.annotations.split(","),
        "data": str(work / rooms),
        "anchors": str((options.anchors or work / "anchors.safetensors").resolve()),
        "work": str(work),
        "workers": 0 if options.quick else max(2, min(8, cores - 1)),
        "at_once": options.gpu_jobs,
    }


def list_jobs(options: argparse.Namespace, settings: dict, methods: list[str]) -> list[dict]:
    """The runs, one seed after the other, so that a part of them is a whole comparison."""
    from methods import recipe_of

    jobs = []
    for seed, annotation, name in product(range(options.seeds), settings["annotations"], methods):
        run = f"{name}-{annotation}-{seed}"
        result = options.out.resolve() / "runs" / f"{run}.json"
        folder = str(Path(settings["work"]) / "runs" / run)
        job = {"name": run, "method": name, "annotation": annotation, "seed": seed}
        recipe = recipe_of(job, settings)  # what is misspelt is told now, not after the first runs
        if result.exists():
            check_result(result, settings["identity"], recipe)
        jobs.append(job | {"result": str(result), "folder": folder, "settings": settings})
    return jobs


def check_result(path: Path, settings: dict, recipe) -> None:
    """Raise InputError for a result of an earlier call, or of an earlier method, that this call would not repeat."""
    from methods import identity

    from lground.errors import InputError

    found = json.loads(path.read_text())
    if found["identity"] != settings:
        raise InputError(f"{path}: was made with other settings; give another folder with --out")
    old, new = identity(found["recipe"]), identity(asdict(recipe))
    changed = [key for key in new if key in old and old[key] != new[key]]
    if changed:
        raise InputError(
            f"{path}: was made when the method was another ({', '.join(changed[:4])}); move it away, or give another "
            "folder with --out"
        )


def make_anchors(path: Path, ours: bool) -> None:
    from lground.errors import InputError
    from lground.labels import load_labels
    from lground.text import build_anchors, save_anchors

    if path.exists():
        return
    if not ours:
        raise InputError(f"{path}: no such file; make it with `lground anchors`")
    save_anchors(build_anchors(load_labels("scannet200").names), path)


def expected(out: Path, job: dict, at_once: int) -> float:
    """Seconds that such a run took before, side by side with as many: of the method, else of any."""
    whole = (out / "runs").glob("[!.]*.json")  # not what another run is writing just now
    results = [json.loads(path.read_text()) for path in whole]
    times = [(r["method"], sum(r["seconds"].values())) for r in results if r["at_once"] == at_once]
    return max([s for m, s in times if m == job["method"]] or [s for _, s in times], default=0.0)


if __name__ == "__main__":
    sys.exit(main())
