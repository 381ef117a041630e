"""Anchors: where the language model puts the name of each class."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import normalize

from lground.errors import InputError
from lground.files import atomic_file
from lground.text.encoders import encode_texts
from lground.text.tables import read_table

ATTRIBUTES = ("red", "green", "blue", "yellow", "dark", "bright", "big", "small")
"""Attribute k of a class is slot 1 + k of its anchors; slot 0 is the plain name."""


@dataclass(frozen=True, eq=False)
class Anchors:
    """Text vectors of C classes, in the order of a label set; not normalised."""

    vectors: Tensor  # (C, d) float32, or (C, 9, d): plain name, then `ATTRIBUTES`
    names: tuple[str, ...]
    encoder: str  # what made them, as `encode_texts` takes it; "" when the file does not say
    prompt: str  # the template, several joined by " | "; "" when the file does not say

    @property
    def plain(self) -> Tensor:
        """(C, d): the vectors of the plain names."""
        return self.vectors[:, 0] if self.vectors.ndim == 3 else self.vectors

    def nearest(self, count: int = 3) -> list[list[tuple[str, float]]]:
        """For each class the `count` other classes whose plain names lie nearest, each with its cosine."""
        plain = normalize(self.plain, dim=1)
        cosines, index = (plain @ plain.T).fill_diagonal_(-2).topk(min(count, len(plain) - 1))
        rows = zip(index.tolist(), cosines.tolist(), strict=True)
        return [[(self.names[i], c) for i, c in zip(*row, strict=True)] for row in rows]


def build_anchors(
    names: Sequence[str],
    encoder: str = "minilm",
    prompt: str | Sequence[str] = "{}",
    attributes: bool = False,
) -> Anchors:
    """Encode class names: (C, d), or with `attributes` (C, 9, d), the name and its eight attributed forms.

    `prompt` is a template with {} for the name; the paper uses the plain name, "{}". Of several templates the
    vectors are normalised, averaged and normalised again, as CLIP's own ensembles. Attributed forms read
    "A red chair" for the plain template (as the original), else "red chair" takes the place of the name.
    """
    names = tuple(names)
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    _check_words(names, prompts)
    forms = ("", *ATTRIBUTES) if attributes else ("",)
    phrases = [_phrase(p, name, form) for p in prompts for name in names for form in forms]
    vectors = encode_texts(phrases, encoder).reshape(len(prompts), len(names), len(forms), -1)
    vectors = vectors[0] if len(prompts) == 1 else normalize(normalize(vectors, dim=-1).mean(0), dim=-1)
    vectors = vectors if attributes else vectors[:, 0]
    check_vectors(vectors, names, f"encoder '{encoder}'")
    return Anchors(vectors.contiguous(), names, encoder, " | ".join(prompts))


def _check_words(names: tuple[str, ...], prompts: tuple[str, ...]) -> None:
    if not names:
        raise InputError("no class names to encode; give a label set or a list with at least one name")
    for index, name in enumerate(names):
        if not name.strip():
            raise InputError(f"class {index} has an empty name; name it")
    if not prompts:
        raise InputError("no prompt template; give at least one, such as '{}'")
    for prompt in prompts:
        if "{}" not in prompt:
            raise InputError(f"prompt '{prompt}' has no {{}} for the name; write 'a {{}} in a room'")


def _phrase(prompt: str, name: str, attribute: str) -> str:
    if not attribute:
        return prompt.replace("{}", name)
    if prompt == "{}":
        return f"A {attribute} {name}"
    return prompt.replace("{}", f"{attribute} {name}")


def save_anchors(anchors: Anchors, path: str | os.PathLike) -> None:
    """Write a .safetensors file: tensor `anchors`, and names (JSON), encoder and prompt in its metadata."""
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: anchors are written as .safetensors; change the suffix")
    metadata = {"names": json.dumps(anchors.names), "encoder": anchors.encoder, "prompt": anchors.prompt}
    with atomic_file(path) as part:
        save_file({"anchors": anchors.vectors.contiguous()}, part, metadata)


def load_anchors(path: str | os.PathLike, names: Sequence[str] | None = None) -> Anchors:
    """Read anchors from .safetensors, .npz, .npy, or a pickled tensor or array (.pkl, .pt), running nothing.

    `names`: the classes wanted, in their order. A file that knows its names gives those rows, one that does
    not must have exactly one row per name. Raises InputError, naming the classes, for missing ones and for
    vectors that are zero or not finite.
    """
    path = Path(path)
    table = read_table(path)
    own = table.names or tuple(map(str, range(len(table.vectors))))
    wanted = own if names is None else tuple(names)
    vectors = table.vectors
    if table.names and wanted != own:
        rows = {name: row for row, name in enumerate(own)}
        missing = [name for name in wanted if name not in rows]
        if missing:
            raise InputError(f"{path}: has no anchor for {_some(missing)}; make anchors of this label set")
        vectors = vectors[[rows[name] for name in wanted]]
    elif len(vectors) != len(wanted):
        raise InputError(
            f"{path}: has {len(vectors)} anchors for {len(wanted)} classes; give the label set it is for"
        )
    check_vectors(vectors, wanted, str(path))
    return Anchors(vectors.contiguous(), wanted, table.encoder, table.prompt)


def check_vectors(vectors: Tensor, names: Sequence[str], source: str) -> None:
    """Raise InputError naming the classes whose vectors (C, d) or (C, 9, d) are zero or not finite."""
    rows = vectors.reshape(len(vectors), -1, vectors.shape[-1])
    faults = {"NaN or infinite": ~rows.isfinite().all(2).all(1), "zero": ~rows.any(2).all(1)}
    for fault, where in faults.items():
        if where.any():
            which = _some([names[i] for i in where.nonzero()[:, 0].tolist()])
            raise InputError(f"{source}: anchors are {fault} for {which}; leave out or encode again")


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:most])
    return shown if len(names) <= most else f"{len(names)} classes, such as {shown}"
