"""Text encoders behind one function: strings in, one vector each out."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from lground.errors import InputError
from lground.text.hub import INSTALL, model_folder

Encode = Callable[[list[str]], Tensor]  # a batch of T strings to (T, d)


def encode_texts(texts: Sequence[str], encoder: str = "minilm", *, batch_size: int = 64) -> Tensor:
    """Encode T strings: (T, d) float32 on the CPU, as the encoder gives them, not normalised afterwards.

    encoder: "minilm" (all-MiniLM-L6-v2, 384 channels, comes with the package), "clip" (the text tower of
    CLIP ViT-B/32, 512 channels, the paper's), the name of a CLIP, SigLIP or sentence-transformers model on
    the Hugging Face hub, or a folder that holds one. Raises InputError when the encoder's library or weights
    are missing.
    """
    texts = list(texts)
    if not texts:
        raise ValueError("no texts to encode")
    with _quiet(), torch.inference_mode():
        encode = _load(encoder)
        parts = [encode(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        vectors = torch.cat(parts).float()
    return vectors.clone()  # outside inference mode, so that the result may take part in training


@lru_cache(maxsize=2)
def _load(encoder: str) -> Encode:
    folder = model_folder(encoder)
    if encoder == "minilm":
        return _mean_of_tokens(folder)
    if (folder / "modules.json").is_file():
        return _sentence_transformer(folder)
    config = _read_config(folder)
    if config.get("model_type") in ("clip", "clip_text_model"):
        return _clip_text_tower(folder)
    if "text_config" in config:
        return _text_features(folder)
    return _sentence_transformer(folder)  # a plain language model: it adds the mean over tokens


def _read_config(folder: Path) -> dict:
    path = folder / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download the model again") from error


def _clip_text_tower(folder: Path) -> Encode:
    """CLIP's text tower with its projection; the image tower is not loaded."""
    model, tokenizer = _pretrained("CLIPTextModelWithProjection", folder)
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    def encode(texts: list[str]) -> Tensor:
        return model(**_tokens(tokenizer, texts, length)).text_embeds

    return encode


def _text_features(folder: Path) -> Encode:
    """SigLIP and other image-text models: `get_text_features`."""
    model, tokenizer = _pretrained("AutoModel", folder)
    if not hasattr(model, "get_text_features"):
        raise InputError(
            f"{folder}: a {type(model).__name__} has no text tower; give a CLIP or sentence model"
        )
    length = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
    siglip = model.config.model_type.startswith("siglip")

    def encode(texts: list[str]) -> Tensor:
        tokens = _tokens(tokenizer, texts, length, padding="max_length" if siglip else True)
        if siglip:  # trained on texts padded to full length, without a mask
            tokens = {"input_ids": tokens["input_ids"]}
        features = model.get_text_features(**tokens)
        return getattr(features, "pooler_output", features)

    return encode


def _mean_of_tokens(folder: Path) -> Encode:
    """all-MiniLM-L6-v2 as its sentence-transformers files describe it: mean over tokens, then unit length."""
    model, tokenizer = _pretrained("AutoModel", folder)
    length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]

    def encode(texts: list[str]) -> Tensor:
        tokens = _tokens(tokenizer, texts, length)
        mask = tokens["attention_mask"][..., None].float()
        mean = (model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)

    return encode


def _sentence_transformer(folder: Path) -> Encode:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(f"{folder}: a sentence encoder needs sentence-transformers: {INSTALL}") from error
    try:
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except Exception as error:
        raise _not_loaded(folder, error) from error
    if model.tokenizer.pad_token is None:  # GPT-2 has none; what pads is masked, so any token will do
        model.tokenizer.pad_token = model.tokenizer.eos_token
    return lambda texts: model.encode(texts, convert_to_tensor=True, show_progress_bar=False)


def _tokens(tokenizer, texts: list[str], length: int, padding: bool | str = True) -> dict[str, Tensor]:
    return dict(tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt"))


def _pretrained(kind: str, folder: Path) -> tuple:
    """A transformers model and tokenizer of a folder; a missing weight is an error, not left random."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(f"text encoders need transformers: {INSTALL}") from error
    options = {"local_files_only": True}
    try:
        loader = getattr(transformers, kind)
        model, info = loader.from_pretrained(folder, output_loading_info=True, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # OSError, ValueError, KeyError, RuntimeError and the library's own
        raise _not_loaded(folder, error) from error
    missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; download the model again"
        )
    return model.float().eval(), tokenizer


def _not_loaded(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(f"{folder}: cannot be loaded as a text encoder ({reason}); download the model again")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars, reports and warnings of the text libraries off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        from transformers.utils import logging as bars

        shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
    except ImportError:  # reported by whoever needs it
        shown = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        if shown:
            bars.enable_progress_bar()
