"""Objects of classes that no training saw, found and named: language pretraining with ten classes held out.

    python benchmarks/words                                            # minutes on a few CPU cores
    python benchmarks/words --train 300 --val 100 --voxel-size 0.05 --epochs 30 --batch 8 --seeds 3   # with a GPU
    python benchmarks/words --held-out "bed,lamp,sink"                 # other classes

For each seed: rooms of that seed, a network pretrained with the names and labels of the held-out classes taken out
(`data.hold_out`), and its answers in rooms that it never saw. `--pointing` trains the head for offsets, too, likewise.
`--out` receives words.json, words.md and a picture of a room; `--work` holds rooms, anchors and weights, and a second
call does not make them again.
"""

import argparse
import contextlib
import json
import shlex
import sys
import time
from pathlib import Path

HELD_OUT = (
    "armchair,backpack,bookshelf,coffee table,couch,desk,file cabinet,nightstand,office chair,trash can"
)


def main() -> int:
    options = parse()
    from lground.errors import InputError

    try:
        return benchmark(options)
    except InputError as error:
        print("benchmarks/words:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/words", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--held-out", default=HELD_OUT, help=f"classes, by commas (default: {HELD_OUT})")
    add("--train", type=int, default=60, help="training rooms (default: 60)")
    add("--val", type=int, default=20, help="rooms to find objects in (default: 20)")
    add("--spacing", type=float, default=0.05, help="metres between vertices (default: 0.05)")
    add("--voxel-size", type=float, default=0.1, help="metres (default: 0.1)")
    add(
        "--network",
        default="14AR_Proj",
        help="Res16UNet... (default: 14AR_Proj, of which there is an insseg_)",
    )
    add("--epochs", type=int, default=15, help="of pretraining (default: 15)")
    add("--batch", type=int, default=1, help="rooms per update (default: 1)")
    add("--workers", type=int, default=0, help="processes that load rooms (default: 0)")
    add("--seeds", type=int, default=1, help="how many (default: 1)")
    add("--first-seed", type=int, default=1, help="default: 1; the method's constants were chosen on seed 0")
    add("--pointing", action="store_true", help="also with `lground instances` after it, for as many epochs")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipes")
    add("--anchors", type=Path, help="text anchors (default: made with MiniLM, which needs the extra `text`)")
    add("--device", help="cpu, cuda (default: cuda when there is one)")
    add("--out", type=Path, default=Path("runs/words"), help="folder of the results (default: runs/words)")
    add("--work", type=Path, help="folder of rooms and weights (default: OUT/work)")
    return parser.parse_args()


def benchmark(options: argparse.Namespace) -> int:
    import shown
    from naming import Answers

    from lground.files import write_json
    from lground.labels import load_labels
    from lground.predict import choose_device, load_model

    held_out = [name.strip() for name in options.held_out.split(",")]
    device = choose_device(options.device)
    work = options.work or options.out / "work"
    anchors = options.anchors or work / "anchors.safetensors"
    if not anchors.exists():
        command("anchors", anchors)
    identity = {
        k: v for k, v in vars(options).items() if k not in ("out", "work", "anchors", "device", "workers")
    }
    results = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        store = rooms(work, options, seed)
        for method, run in trained(work, options, seed, store, anchors, held_out).items():
            start = time.monotonic()
            answers = Answers(load_model(run).to(device), load_labels(), held_out)
            answers.look_at(store)
            seconds = time.monotonic() - start
            results.append({"seed": seed, "method": method, "seconds": seconds, **answers.results()})
            shown.draw(answers, options.out / f"room-{method}-{seed}.png")
    write_json(options.out / "words.json", {"identity": identity, "device": str(device), "runs": results})
    text = "\n".join(shown.lines(results, held_out))
    (options.out / "words.md").write_text(text + "\n")
    print(text)
    return 0


def rooms(work: Path, options: argparse.Namespace, seed: int) -> Path:
    """The prepared store of a seed."""
    name = f"rooms-{options.train}-{options.val}-{options.spacing}-{seed}"
    raw, store = work / f"{name}-raw", work / name
    counts = ("--train", options.train, "--val", options.val, "--test", 0)
    if not raw.exists():
        command("synth", raw, *counts, "--size", "small", "--spacing", options.spacing, "--seed", seed)
    command("prepare", raw, store)  # goes on where it stopped
    return store


def trained(
    work: Path, options: argparse.Namespace, seed: int, store: Path, anchors: Path, held_out: list[str]
) -> dict[str, Path]:
    """The run folders, by method."""
    shared = [
        f"data.root={store}",
        f"text.anchors={anchors}",
        f"data.voxel_size={options.voxel_size}",
        f"data.batch_size={options.batch}",
        f"data.workers={options.workers}",
        f"data.hold_out={json.dumps(held_out)}",
        f"epochs={options.epochs}",
        f"seed={seed}",
        *options.set,
    ]
    pretrained, pointing = (work / f"{name}-{seed}" for name in ("pretrained", "pointing"))
    runs = {"features": pretrained}
    if not (pretrained / "metrics.json").exists():
        name = f"network.name=Res16UNet{options.network}"
        command("pretrain", "demo", name, *shared, "--out", pretrained, "--resume")
    if options.pointing:
        runs["features and offsets"] = pointing
        if not (pointing / "metrics.json").exists():
            start = f"network.name=insseg_Res16UNet{options.network}", f"network.weights={pretrained}"
            keep = "loss.language=1"
            command("instances", "demo", *start, keep, *shared, "--out", pointing, "--resume")
    return runs


def command(*arguments: object) -> None:
    """A command, as a user runs it; what it prints is for the person and not part of the table."""
    from lground.cli import main as lground
    from lground.errors import InputError

    line = list(map(str, arguments))
    with contextlib.redirect_stdout(sys.stderr):
        if lground(line):
            raise InputError(f"`lground {shlex.join(line)}` failed: see above")


if __name__ == "__main__":
    sys.exit(main())
