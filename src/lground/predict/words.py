"""Words of a user's list: read, encoded, and compared with features that other names have trained."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from lground.errors import InputError
from lground.models import TEMPERATURE, Model
from lground.predict.queries import check_width, text_encoder

LEAST_REACH = 0.5  # what is nearer to no trained name gains no more by that


def read_words(path: str | os.PathLike) -> list[str]:
    """The words or phrases of a text file, one per line; blank lines and lines that begin with # say nothing.

    Raises InputError for a file that cannot be read or holds no words, and for a word that comes twice.
    """
    path = Path(path)
    advice = "give a text file with one word or phrase per line"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text (UTF-8); {advice}") from None
    words = {number: " ".join(line.split()) for number, line in enumerate(lines, 1)}
    words = {number: word for number, word in words.items() if word and not word.startswith("#")}
    if not words:
        raise InputError(f"{path}: holds no words; {advice}")
    first: dict[str, int] = {}
    for number, word in words.items():
        if first.setdefault(word.casefold(), number) != number:  # text encoders ignore case
            raise InputError(
                f"{path}: line {number} says {word!r} again, as line {first[word.casefold()]}; remove one of them"
            )
    return list(words.values())


def encode_names(model: Model, names: Sequence[str]) -> Tensor:
    """(T, d_text) float32: the names as the model's own were encoded, by its encoder and in its prompts."""
    from lground.text import build_anchors

    encoder, prompt = text_encoder(model), model.grounding.get("prompt") or "{}"
    return check_width(model, build_anchors(names, encoder, prompt.split(" | ")).vectors)


def trained_names(model: Model) -> np.ndarray:
    """(C,) bool: the classes whose names took part in the training; others its recipe held out."""
    recipe = yaml.safe_load(model.recipe) if model.recipe else None
    data = recipe.get("data") if isinstance(recipe, dict) else None
    held_out = data.get("hold_out") if isinstance(data, dict) else None
    return ~np.isin(model.label_set.names, held_out or [])


def word_shares(model: Model, features: np.ndarray, vectors: Tensor) -> np.ndarray:
    """(R, T) float64: the soft-max over T words of how well they fit features (R, d).

    vectors: (T, d_text). Features were drawn to the trained names alone. One of them, or of what was trained as it,
    can be as near to a new word as that name is, and no nearer: a cosine counts as a share of this reach of the word,
    the cosine to the nearest trained name (at least `LEAST_REACH`). Otherwise a new word never wins against the trained
    name beside it. The temperature is the model's own.
    """
    with torch.inference_mode():
        names = model.project(model.anchors[torch.from_numpy(trained_names(model)).to(model.anchors.device)])
        reach = model.similarity(names, vectors.to(names.device)).amax(dim=0).clamp(LEAST_REACH)
        cosines = model.similarity(torch.from_numpy(features).to(names.device), vectors.to(names.device))
        return (cosines / reach / TEMPERATURE).double().softmax(dim=1).cpu().numpy()
