"""What a batch of a vision-language model is, and how samples become one.

Shapes: B rows, L read tokens, N images, C channels, H height, W width, K image tokens, T their width, S tokens written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import default_collate
from typing_extensions import Self

from vlkit.image_prompts import ImagePrompts
from vlkit.models.augment import Augment
from vlkit.models.image_input import decode
from vlkit.models.turns import prompts_of, turns_of
from vlkit.models.vision_language.dialogue import IGNORED, Laid, Layout
from vlkit.spec.dataset import DataSpec
from vlkit.types import Pick, ResizesImages, Sample, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlkit.models.vision_language.model import VisionLanguageModel

_PER_ROW = ("languages", "sources", "tasks")
_ALIGNED = ("ids_BL", "mask_BL", "slots_BL", "labels_BS")


@dataclass(frozen=True)
class DialogueBatch:
    """Conversations for one training step, or to be answered.

    ``ids_BL`` int64 are read, ``mask_BL`` int64 is 1 for real places, ``slots_BL`` bool where model tokens of images
    go, row by row in the order of the images. ``labels_BS`` int64 are what states are to foretell, ``IGNORED`` where
    nothing: of the places that are read, or of ``targets`` where an encoder-decoder writes those. ``images_B`` int64
    counts each row's images, whose pixels_NCHW are float32 as the encoder's transform makes them, or else
    ``image_NKT`` are the frozen encoder's tokens; both None for no images at all. ``languages`` BCP 47, ``sources`` and
    ``tasks`` one a row each, where the reader knows them.
    """

    ids_BL: Tensor
    mask_BL: Tensor
    slots_BL: Tensor
    labels_BS: Tensor
    images_B: Tensor
    pixels_NCHW: Tensor | None = None
    image_NKT: Tensor | None = None
    targets: TextBatch | None = None
    languages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids_BL)

    def rows(self, index: Tensor) -> Self:
        """The conversations of these numbers, in this order, with their images."""
        last_B = self.images_B.cumsum(0)
        spans = [range(int(last_B[row] - self.images_B[row]), int(last_B[row])) for row in index.tolist()]
        images_N = torch.tensor([image for span in spans for image in span], dtype=torch.int64)
        lists = {name: getattr(self, name) for name in _PER_ROW}
        chosen: Any = {name: tuple(one[row] for row in index.tolist()) for name, one in lists.items() if one}
        changed: Any = {name: getattr(self, name)[index] for name in (*_ALIGNED, "images_B")}
        for name in ("pixels_NCHW", "image_NKT"):
            if (tensor := getattr(self, name)) is not None:
                changed[name] = tensor[images_N] if len(images_N) else None
        targets = None if self.targets is None else TextBatch(*(side[index] for side in self.targets))
        return replace(self, targets=targets, **changed, **chosen)

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on a device."""
        tensors = {name: getattr(self, name) for name in (*_ALIGNED, "images_B", "pixels_NCHW", "image_NKT")}
        moved: Any = {name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None}
        targets = None if self.targets is None else TextBatch(*(side.to(device) for side in self.targets))
        return replace(self, targets=targets, **moved)


class DialogueRow(NamedTuple):
    """One row of a batch, read: its images' pixels_CHW or tokens_KT, and its text."""

    images: tuple[Tensor, ...]
    laid: Laid
    language: str = ""
    source: str = ""
    task: str = ""


@dataclass(frozen=True)
class DialoguePreparer:
    """Images and conversations as the encoder and the language model want them.

    ``transform`` is the image encoder's own, RGB image to pixels_CHW; ``draft_size`` are the pixels that the shorter
    side of an image has to keep where it is decoded at a reduced size, None decodes in full.
    """

    transform: Callable[[Image], Tensor]
    layout: Layout
    prompts: ImagePrompts
    augment: Augment
    draft_size: int | None = None

    @classmethod
    def of(cls, model: VisionLanguageModel, data: DataSpec) -> DialoguePreparer:
        """The preparer of a model."""
        encoder: Any = model.encoder
        augment, draft = Augment(data.augment), None
        if data.jpeg_draft and isinstance(encoder, ResizesImages):
            draft = augment.draft_size(encoder.resized_to)
        return cls(encoder.transform, model.layout, prompts_of(data.prompts), augment, draft)

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return True

    def row(self, sample: Sample, pick: Pick) -> DialogueRow:
        """See ``types.Preparer``."""
        images = tuple(
            self.transform(self.augment(decode(image, draft_size=self.draft_size), seed=pick.view_seed + number))
            for number, image in enumerate(sample.images)
        )
        return _row(sample, pick, images, layout=self.layout, prompts=self.prompts)

    def collate(self, rows: Sequence[DialogueRow]) -> DialogueBatch:
        """Rows as a batch; texts are padded to the longest of them."""
        return collate(rows, self.layout, looked_up=False)


class ImageTokens(Protocol):
    """Tokens of images that were computed before."""

    def of(self, picks: Sequence[Pick]) -> Tensor:
        """image_NKT."""


@dataclass(frozen=True)
class LookedUpDialogues:
    """Conversations about one image or none, whose tokens are looked up: no image is read."""

    layout: Layout
    prompts: ImagePrompts
    images: ImageTokens

    @property
    def reads(self) -> bool:
        """See ``types.Preparer``."""
        return False

    def row(self, sample: Sample, pick: Pick) -> tuple[DialogueRow, Pick]:
        """See ``types.Preparer``."""
        images = (torch.empty(0),) * len(sample.images)
        return _row(sample, pick, images, layout=self.layout, prompts=self.prompts), pick

    def collate(self, rows: Sequence[tuple[DialogueRow, Pick]]) -> DialogueBatch:
        """See ``types.Preparer``."""
        picks = [pick for row, pick in rows if row.images]
        tokens = iter(self.images.of(picks)) if picks else iter(())
        found = [row._replace(images=tuple(islice(tokens, len(row.images)))) for row, _ in rows]
        return collate(found, self.layout, looked_up=True)


def _row(
    sample: Sample, pick: Pick, images: tuple[Tensor, ...], *, layout: Layout, prompts: ImagePrompts
) -> DialogueRow:
    turns = turns_of(sample, pick, prompts)
    laid = layout.learned(turns, images=len(images), seed=pick.view_seed, where=f"sample {sample.key!r}")
    return DialogueRow(images, laid, pick.language, sample.source, sample.task or "caption")


def collate(rows: Sequence[DialogueRow], layout: Layout, *, looked_up: bool) -> DialogueBatch:
    """Rows as a batch, padded behind; ``looked_up`` says that their images are the encoder's tokens already."""
    laid = [row.laid for row in rows]
    ids_BL = _padded([one.ids for one in laid], layout.pad)
    targets = None
    if layout.encodes:
        written = [one.targets or [] for one in laid]
        targets = TextBatch(_padded(written, layout.pad), _padded([[1] * len(one) for one in written], 0))
    images = [image for row in rows for image in row.images]
    stacked = default_collate(images) if images else None  # in a worker: into shared memory
    labels_BS = _padded([one.labels for one in laid], IGNORED)
    return DialogueBatch(
        ids_BL=ids_BL,
        mask_BL=_padded([[1] * len(one.ids) for one in laid], 0),
        slots_BL=_padded([list(map(int, one.slots)) for one in laid], 0).bool(),
        labels_BS=labels_BS,
        images_B=torch.tensor([len(row.images) for row in rows]),
        pixels_NCHW=None if looked_up else stacked,
        image_NKT=stacked if looked_up else None,
        targets=targets,
        languages=tuple(row.language for row in rows),
        sources=tuple(row.source for row in rows),
        tasks=tuple(row.task for row in rows),
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    length = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows], dtype=torch.int64).view(
        len(rows), length
    )
