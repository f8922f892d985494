"""Multiway (modality-expert) encoders: an image and a text side whose last layers are one set of weights.

Sources: BEiT-3 (arXiv 2208.10442, section 2.1), VLMo (2111.02358), M2-Encoder (2401.15896). A layer has one expert
(attention and perceptron) a modality; where only one modality goes through at a time, as in a dual encoder, that makes
two stacks of layers. In the last layers both modalities take the same expert.

Shapes: B batch, C channels, H height, W width, L text length, N patches, D encoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.multiway import INIT_STD, BlockStack, SharedLayers, init_weights
from vlkit.parts import building
from vlkit.parts.language_marks import marks_language
from vlkit.parts.tokenizers import HfTokenizer, check_texts, named_tokenizer, pad_rows
from vlkit.parts.vocabulary import byte_vocabulary, hf_vocabulary
from vlkit.spec.parts import MultiwayImage, MultiwayText
from vlkit.types import ImageEncoder, ImageFacts, TextBatch, Vocabulary

# Ids of the byte-level vocabulary: a byte is its value, then these
_START, _END, _PAD = 256, 257, 258
_SPARE = 2  # position tables start with two rows that nothing uses, as in the released weights
_STRAIGHT = str.maketrans("\u201c\u201d", '""')


class MultiwayEncoder(building.OwnEncoder):
    """What both sides have: layers of their own, then ``shared``."""

    spec: MultiwayImage | MultiwayText
    shared: SharedLayers

    def __init__(self, spec: MultiwayImage | MultiwayText, *, positions: int, vl_experts: int) -> None:
        super().__init__()
        self.width = self.token_width = spec.width
        first = nn.Parameter(torch.empty(_SPARE + positions, spec.width))
        self.positions_ND = nn.init.trunc_normal_(first, std=INIT_STD)
        total = spec.layers + spec.vl_layers

        def stack(depths: range) -> BlockStack:
            return BlockStack(
                spec.width, spec.heads, hidden=spec.ffn, depths=depths, total=total, drop_path=spec.drop_path
            )

        self.own = stack(range(1, spec.layers + 1))
        last = range(spec.layers + 1, total + 1)
        self.shared = SharedLayers(spec.width, stack(last), spare=stack(last) if vl_experts == 2 else None)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keeps each layer's input only and runs the layer again in the backward pass."""
        for stack in (self.own, self.shared.stack):
            stack.set_grad_checkpointing(enable)

    def _run(self, x_BND: Tensor, keep_BN: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.positions_ND[_SPARE : _SPARE + x_BND.shape[1]]
        return building.given(self.shared(self.own(x_BND, keep_BN), keep_BN), self.spec)


class MultiwayImageEncoder(MultiwayEncoder):
    """Patches behind a CLS token, whose last state is the feature."""

    spec: MultiwayImage

    def __init__(self, spec: MultiwayImage) -> None:
        building.check_patches(spec.image_size, spec.patch_size, where="multiway image encoder")
        count = (spec.image_size // spec.patch_size) ** 2
        super().__init__(spec, positions=1 + count, vl_experts=spec.vl_experts)
        self.spec = spec
        self.image_size = self.resized_to = spec.image_size
        self.patches = nn.Conv2d(3, spec.width, spec.patch_size, stride=spec.patch_size)
        init_weights(self.patches)
        self.cls_D = nn.init.trunc_normal_(nn.Parameter(torch.empty(spec.width)), std=INIT_STD)
        self.transform = self.transform_at(spec.image_size)

    def transform_at(self, size: int) -> building.ImageTransform:
        """Its preprocessing for square images of another size."""
        settings = {"library": "vlkit", "resize": "square", "size": size, "mean": 0.5}
        return building.ImageTransform(partial(building.resize_to_square, size=size), settings)

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``."""
        return building.image_facts(self, extra_tokens=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def num_tokens(self, size: int) -> int:
        """N of ``tokens``."""
        return (size // self.spec.patch_size) ** 2

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and the patches' states_BND in one pass."""
        patches_BND = self.patches(building.taken(pixels_BCHW, self)).flatten(2).transpose(1, 2)
        states_BND = self._run(torch.cat([self.cls_D.expand(len(patches_BND), 1, -1), patches_BND], dim=1))
        return states_BND[:, 0], states_BND[:, 1:]

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """The patches' states_BND."""
        return self.pooled_and_states(pixels_BCHW)[1]


class MultiwayTextEncoder(MultiwayEncoder):
    """Tokens, of which the first one's last state is the feature.

    ``tokenizer`` is None for bytes, and where nothing is tokenized (shapes alone).
    """

    spec: MultiwayText

    def __init__(self, spec: MultiwayText, *, tokenizer: HfTokenizer | None) -> None:
        super().__init__(spec, positions=spec.max_length, vl_experts=1)
        self.spec, self.tokenizer, self.max_length = spec, tokenizer, spec.max_length
        self.embedding = nn.Embedding(spec.vocab, spec.width)
        init_weights(self.embedding)

    @classmethod
    def build(cls, spec: MultiwayText, *, saved: Path | None = None, empty: bool = False) -> MultiwayTextEncoder:
        """Random weights from torch's global generator; the tokenizer is read from ``saved`` where that is given.

        Raises:
            AssetError: There is no such tokenizer.
            VlkitError: It has more tokens than ``vocab``.
        """
        tokenizer = None
        if spec.tokenizer is not None and not empty:
            tokenizer = named_tokenizer(spec.tokenizer, saved, rows=spec.vocab, max_length=spec.max_length)
        with building.weightless(saved=saved is not None, empty=empty):
            return cls(spec, tokenizer=tokenizer)

    def join(self, image: ImageEncoder) -> None:
        """Takes over the shared layers of the image side, if that is a multiway one too.

        Raises:
            ShapeError: The two sides' shared layers are not of one shape.
        """
        if not isinstance(image, MultiwayImageEncoder):
            return
        for key in ("width", "heads", "ffn", "layers", "vl_layers", "drop_path", "dtype"):
            ours, theirs = getattr(self.spec, key), getattr(image.spec, key)
            if ours != theirs:
                raise ShapeError(
                    f"model.image.{key} = {theirs} and model.text.{key} = {ours}: two multiway encoders share their "
                    f"last layers and must agree; set both to one value"
                )
        self.shared = image.shared

    @property
    def marks_language(self) -> bool:
        """Whether the tokenizer puts a mark of the language into its input."""
        return self.tokenizer is not None and marks_language(self.tokenizer.tokenizer)

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens, or bytes between marks of start and end, cut to ``max_length``.

        Raises:
            DataError: No texts, or one that is no string.
            VlkitError: The encoder was built without its tokenizer.
        """
        texts = check_texts(texts)
        if self.spec.normalize:
            texts = [text.translate(_STRAIGHT).lower() for text in texts]
        if self.tokenizer is not None:
            return self.tokenizer(texts, language=language)
        if self.spec.tokenizer is not None:
            raise VlkitError("this multiway text encoder holds shapes alone (a dry run) and has no tokenizer")
        rows = [[_START, *text.encode()[: self.max_length - 2], _END] for text in texts]
        return pad_rows(rows, pad_id=_PAD)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return self.spec.vocab

    def vocabulary(self) -> Vocabulary:
        """What the ids mean."""
        if self.tokenizer is None:
            return byte_vocabulary(self.spec.vocab)
        return hf_vocabulary(self.tokenizer.tokenizer, rows=self.spec.vocab)

    def pooled_and_states(self, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        """features_BD and states_BLD of the tokens, the real ones first, in one pass."""
        ids_BL, mask_BL = building.compact(*tokens)
        states_BLD = self._run(self.embedding(ids_BL), mask_BL > 0)
        return states_BLD[:, 0], states_BLD

    def save_config(self, folder: Path) -> None:
        """Writes the tokenizer's files, where there are any."""
        if self.tokenizer is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.tokenizer.save(folder)
