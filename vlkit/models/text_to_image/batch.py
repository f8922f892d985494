"""What a batch of a text-to-image model is, and how samples become one: codes, prompts, and which codes are hidden.

All that is random in a row is a function of its seed, so that runs resume exactly and masks do not depend on the batch.

Shapes: B images, N codes of an image, C channels, H height, W width, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.models.augment import Augment
from vlkit.models.code_switch import CodeSwitch
from vlkit.models.image_input import decode
from vlkit.models.text_to_image.prompts import PromptLayout
from vlkit.nn.code_masks import MaskDraws
from vlkit.types import Pick, Sample, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image

_MASKS, _OTHER = 2, 3  # streams of a row's random numbers, beside those of images and code-switching


class RowDraws(NamedTuple):
    """The random numbers of rows, uniform in 0..1: of which codes are hidden, and whether the prompt is left out."""

    masks: MaskDraws
    drop_B: Tensor


@dataclass(frozen=True)
class CodeBatch:
    """Images and prompts for one training step.

    ``codes_BN`` int64 are looked up, or else ``pixels_BCHW`` are float32 as the tokenizer's transform makes them.
    ``prompts`` say what the images show, ``others`` the same in another language each (the prompt itself where there
    is none). ``cut_B`` is true where a prompt was too long. ``languages`` BCP 47 and ``sources``, one a row.
    """

    prompts: TextBatch
    others: TextBatch
    draws: RowDraws
    cut_B: Tensor
    codes_BN: Tensor | None = None
    pixels_BCHW: Tensor | None = None
    languages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.cut_B)

    def rows(self, index: Tensor) -> Self:
        """The images of these numbers, in this order."""
        chosen: Any = {name: None if one is None else one[index] for name, one in self._images().items()}
        for name in ("languages", "sources"):
            chosen[name] = tuple(getattr(self, name)[row] for row in index.tolist()) if getattr(self, name) else ()
        return self._with(lambda one: one[index], **chosen)

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        chosen = {name: None if one is None else one.to(device) for name, one in self._images().items()}
        return self._with(lambda one: one.to(device), **chosen)

    def _images(self) -> dict[str, Tensor | None]:
        return {"codes_BN": self.codes_BN, "pixels_BCHW": self.pixels_BCHW}

    def _with(self, change: Callable[[Tensor], Tensor], **others: Any) -> Self:
        masks, drop_B = self.draws
        return replace(
            self,
            prompts=TextBatch(*map(change, self.prompts)),
            others=TextBatch(*map(change, self.others)),
            draws=RowDraws(MaskDraws(*map(change, masks)), change(drop_B)),
            cut_B=change(self.cut_B),
            **others,
        )


class CodeRow(NamedTuple):
    """One row of a batch, read; ``image`` are pixels_CHW, or empty where codes are looked up."""

    image: Tensor
    prompt: tuple[int, ...]
    other: tuple[int, ...]
    cut: bool
    seed: int
    language: str
    source: str


class Codes(Protocol):
    """Codes of images that were computed before."""

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """Codes [B, N], of any dtype that holds them."""


@dataclass(frozen=True)
class CodePreparer:
    """Images and captions as the tokenizer and the language model want them.

    ``transform`` turns an RGB image into pixels_CHW; ``num_codes`` is N; ``languages`` are those that a second prompt
    may be in, None for all. With ``codes`` images are looked up, and none is read.
    """

    transform: Callable[[Image], Tensor]
    layout: PromptLayout
    augment: Augment
    num_codes: int
    switch: CodeSwitch
    languages: tuple[str, ...] | None = None
    codes: Codes | None = None

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return self.codes is None

    def row(self, sample: Sample, pick: Pick) -> tuple[CodeRow, Pick]:
        """See ``types.Preparer``."""
        image = torch.empty(0)
        if self.codes is None:
            image = self.transform(self.augment(decode(sample.image, draft_size=None), seed=pick.view_seed))
        caption = self.switch(pick.caption(sample), pick.pivot(sample), seed=pick.view_seed)
        laid = self.layout.laid(caption, language=pick.language)
        other = self._other(sample, pick)
        second = laid if other is None else self.layout.laid(other[1], language=other[0])
        row = CodeRow(image, laid.ids, second.ids, laid.cut > 0, pick.view_seed, pick.language, sample.source)
        return row, pick

    def collate(self, rows: Sequence[tuple[CodeRow, Pick]]) -> CodeBatch:
        """See ``types.Preparer``."""
        read, picks = zip(*rows, strict=True)
        shown: dict[str, Tensor] = {}
        if self.codes is not None:
            shown["codes_BN"] = self.codes.of(picks).long()
        else:
            shown["pixels_BCHW"] = default_collate([row.image for row in read])  # in a worker: into shared memory
        return CodeBatch(
            prompts=self.layout.batch([row.prompt for row in read]),
            others=self.layout.batch([row.other for row in read]),
            draws=_draws([row.seed for row in read], self.num_codes),
            cut_B=torch.tensor([row.cut for row in read]),
            languages=tuple(row.language for row in read),
            sources=tuple(row.source for row in read),
            **shown,
        )

    def _other(self, sample: Sample, pick: Pick) -> tuple[str, str] | None:
        """The same caption in another language, which the row's seed draws."""
        known = [
            language
            for language in sorted(sample.captions)
            if language != pick.language and (self.languages is None or language in self.languages)
        ]
        if not known:
            return None
        language = known[int(np.random.default_rng([pick.view_seed, _OTHER]).integers(len(known)))]
        texts = sample.captions[language]
        return language, texts[pick.caption_index % len(texts)]


def _draws(seeds: Sequence[int], num_codes: int) -> RowDraws:
    drawn = np.stack([np.random.default_rng([seed, _MASKS]).random(num_codes + 2, np.float32) for seed in seeds])
    drawn_BX = torch.from_numpy(drawn)
    return RowDraws(MaskDraws(drawn_BX[:, 0], drawn_BX[:, 2:]), drawn_BX[:, 1])
