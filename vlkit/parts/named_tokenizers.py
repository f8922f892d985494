"""Tokenizers by folder or hub id, for encoders of vlkit's own that have a table of embeddings for them."""

from __future__ import annotations

from pathlib import Path

from vlkit.errors import VlkitError
from vlkit.parts.assets import hub
from vlkit.parts.tokenizers import HfTokenizer, load_tokenizer, vocabulary_size
from vlkit.paths import local_path


def named_tokenizer(name: str, saved: Path | None, *, rows: int, max_length: int) -> HfTokenizer:
    """A tokenizer by folder or hub id, or as ``save`` wrote it, for a table of ``rows`` embeddings (``model.text``)."""
    folder = saved or local_path(name)
    tokenizer = load_tokenizer(folder if folder.is_dir() else hub.tokenizer_files(name))
    if (size := vocabulary_size(tokenizer)) > rows:
        raise VlkitError(f"{name} has {size} tokens and model.text.vocab = {rows}; set vocab={size} or more")
    return HfTokenizer(tokenizer, name, max_length=max_length)
