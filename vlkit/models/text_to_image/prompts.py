"""How prompts become the ids that a language model reads: start token, text, end token, padded behind.

Shapes: B prompts, T tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from vlkit import languages
from vlkit.errors import DataError, VlkitError
from vlkit.spec.text_to_image import PromptSpec
from vlkit.types import TextBatch

_PER_TOKEN = 64  # characters: no tokenizer of words packs more into one, so that endless texts are cut before


class LaidPrompt(NamedTuple):
    """One prompt: its ids, and how many tokens of it were cut off."""

    ids: tuple[int, ...]
    cut: int


@dataclass(frozen=True)
class PromptLayout:
    """Prompts to ids for one language model; ``tokenizer`` is transformers', ``max_length`` the longest in tokens.

    Texts are in Unicode's form NFC; joiners that some scripts need stay, and no order of writing is changed. Marks of
    the tokenizer's that stand in a text are read as text.
    """

    tokenizer: Any
    spec: PromptSpec
    max_length: int

    @cached_property
    def null(self) -> tuple[int, ...]:
        """What is read where there is no prompt."""
        start, end = self._frame
        return (*start, *end)

    def laid(self, text: str, *, language: str | None) -> LaidPrompt:
        """A prompt as ids; its end is cut off where it is too long, and the end token stays.

        Raises:
            DataError: There is no text.
            VlkitError: The template names a language and none is given.
            UnknownName: No such language.
        """
        text = unicodedata.normalize("NFC", text).strip()
        if not text:
            raise DataError("a prompt is empty; say what the image shows, or give None for an image of anything")
        if language is None and "{language}" in self.spec.template:
            raise VlkitError(
                f"prompts of this model name their language ({self.spec.template!r}); give one: language='fa', say"
            )
        named = "" if language is None else languages.get(language).name
        whole = self.spec.template.replace("{language}", named).replace("{text}", text)
        start, end = self._frame
        room = self.max_length - len(start) - len(end)
        ids = self._tokens(whole[: room * _PER_TOKEN])
        lost = len(ids) - room + max(0, len(whole) - room * _PER_TOKEN)
        return LaidPrompt((*start, *ids[:room], *end), max(0, lost))

    def batch(self, prompts: Sequence[Sequence[int]]) -> TextBatch:
        """Ids of several prompts, padded behind to the longest of them."""
        length = max(map(len, prompts), default=0)
        pad = self.tokenizer.pad_token_id or 0
        ids = [[*ids, *[pad] * (length - len(ids))] for ids in prompts]
        mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids in prompts]
        shape = (len(prompts), length)
        return TextBatch(*(torch.tensor(rows, dtype=torch.int64).view(shape) for rows in (ids, mask)))

    @cached_property
    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What stands before and behind a text."""
        found = [self.tokenizer.bos_token_id], [self.tokenizer.eos_token_id]
        start, end = (tuple(one for one in side if one is not None) for side in found)
        if not start and not end:
            raise VlkitError("the language model's tokenizer has neither a start nor an end token; prompts need one")
        return start, end

    def _tokens(self, text: str) -> list[int]:
        # eaten by the tokenizer are only marks that it knows; those of a text are its letters
        found: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        return found
