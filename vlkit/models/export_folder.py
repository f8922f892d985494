"""Folders for other libraries: claimed, written aside, and put in their place once the other library has read them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from vlkit.errors import VlkitError
from vlkit.models.card_text import MADE
from vlkit.models.locate import kind_of
from vlkit.outputs import check_replaceable
from vlkit.parts import hf_common
from vlkit.paths import local_path
from vlkit.types import Model

_FILES = (
    "README.md", "open_clip_config.json", "open_clip_model.safetensors", "config.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json", "model.safetensors", "model-*-of-*.safetensors",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model",
    "spiece.model", "tokenizer.model", "image.onnx", "text.onnx", "*.onnx.data", "onnx_config.json",
)  # fmt: skip
"""What the other libraries write into a folder."""


class Exported(NamedTuple):
    """What was written: where, how far it is from the model and may be, and what the other format cannot say.

    ``differences`` is a NamedTuple of the kind's own, whose fields say what was compared.
    """

    folder: Path
    differences: Any
    notes: tuple[str, ...]
    tolerance: float


def claimed(model: Model, folder: str | PathLike[str], *, overwrite: bool) -> Path:
    """The folder that an export of a model may be written to.

    Raises:
        VlkitError: Something else is there, or an older export without ``overwrite``.
    """
    target = local_path(folder).absolute()
    inputs = [] if model.loaded_from is None else [model.loaded_from]
    taken = check_replaceable(target, what="a model that vlkit exported", made=_is_export, names=_FILES, inputs=inputs)
    if taken and not overwrite:
        raise VlkitError(f"{target} holds a model already; replace it with --overwrite (overwrite=True)")
    return target


def _is_export(folder: Path) -> bool:
    card = folder / "README.md"
    ours = card.is_file() and MADE in card.read_text(encoding="utf-8", errors="replace")
    return ours and kind_of(folder) != "vlkit"


@contextmanager
def without_logs() -> Iterator[None]:
    """No bars of transformers, and nothing of open_clip, which logs that it builds without weights, as it was told."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with hf_common.quiet():
            yield
    finally:
        logging.disable(level)
