"""What token ids mean for masking: which begin a word, which end one, which are no text at all.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from vlkit.types import Vocabulary

# Scripts that put no spaces between words, where a character or a piece stands for a word: Thai, Lao, Tibetan,
# Myanmar, Khmer, kana, Han.
_UNSPACED = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF),
             (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
# The first byte of a UTF-8 character of three or four bytes, as Thai, kana and Han have them
_WIDE = range(0xE0, 0xF5)


def byte_vocabulary(rows: int) -> Vocabulary:
    """Ids 0 to 255 are the bytes of UTF-8, the others special; words begin at spaces and at wide characters."""
    ids_V = torch.arange(rows)
    special_V = ids_V >= 256
    wide_V = (ids_V >= _WIDE.start) & (ids_V < _WIDE.stop)
    space_V = (ids_V == 0x20) | ((ids_V >= 0x09) & (ids_V <= 0x0D))
    return Vocabulary(special_V | wide_V | space_V, special_V.clone(), special_V)


def marked_vocabulary(tokens: Sequence[str | None], *, special: Sequence[int], rows: int) -> Vocabulary:
    """Reads the marks of words off the tokens themselves.

    Known are ``##`` inside words (WordPiece), a leading U+2581 (SentencePiece) or U+0120 (byte-level BPE), and a
    trailing ``</w>`` (CLIP's BPE). Where there are no such marks each token is a word of its own.

    ``tokens`` has None for ids without one; ids beyond the tokens count as special.
    """
    starts, ends = [True] * rows, [False] * rows
    inside = any(token and token.startswith("##") for token in tokens)
    closing = any(token and token.endswith("</w>") for token in tokens)
    mark = max("\u2581\u0120", key=lambda mark: sum(token is not None and token.startswith(mark) for token in tokens))
    leading = any(token and token.startswith(mark) for token in tokens)
    for index, token in enumerate(tokens[:rows]):
        if not token:
            continue
        if inside:
            starts[index] = not token.startswith("##")
        elif closing:
            starts[index], ends[index] = False, token.endswith("</w>")
        elif leading:
            starts[index] = token.startswith(mark) or _stands_alone(token[0], byte_level=mark == "\u0120")
    special_V = torch.arange(rows) >= len(tokens)
    special_V[[index for index in special if index < rows]] = True
    return Vocabulary(torch.tensor(starts) | special_V, torch.tensor(ends) | special_V, special_V)


def hf_vocabulary(tokenizer: Any, *, rows: int) -> Vocabulary:
    """Of a transformers tokenizer; added tokens count as special where they say so."""
    size = min(rows, max(len(tokenizer), max(tokenizer.added_tokens_decoder, default=-1) + 1))
    special = {*tokenizer.all_special_ids}
    special |= {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    return marked_vocabulary([known.get(index) for index in range(size)], special=sorted(special), rows=rows)


def _stands_alone(char: str, *, byte_level: bool) -> bool:
    # byte-level BPE writes the bytes 0xE0 to 0xF4 as the characters of the same number
    return ord(char) in _WIDE if byte_level else any(low <= ord(char) <= high for low, high in _UNSPACED)
