"""The seams: what toy classes without a base class must have to stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit import types
from vlkit.spec.language import GenerationSpec
from vlkit.types import TextBatch, lacking


class ToyLanguageModel:
    """Two embeddings; the next token is the one that the last state is most like."""

    width, vocab_size, max_length, encodes, tokenizer = 2, 2, 8, False, None

    def embed(self, ids_BL: torch.Tensor) -> torch.Tensor:
        return torch.eye(2)[ids_BL]

    def __call__(
        self, embeddings_BLE: Any, mask_BL: Any, *, targets: TextBatch | None = None, positions_BL: Any = None
    ) -> torch.Tensor:
        return embeddings_BLE.flip(-1)

    def logits(self, states_RE: torch.Tensor) -> torch.Tensor:
        return states_RE @ torch.eye(2).T

    def generate(self, embeddings_BLE: Any, mask_BL: Any, *, generation: GenerationSpec, **more: Any) -> list[str]:
        last_BE = self(embeddings_BLE, mask_BL)[:, -1]
        return ["ab"[index] * generation.max_tokens for index in self.logits(last_BE).argmax(dim=-1).tolist()]

    def save_config(self, folder: Path) -> None:
        pass


class ToyBridge:
    """The mean of the image tokens, as wide as the language model."""

    in_width, out_width = 4, 2

    def num_tokens(self, count: int) -> int:
        return 1

    def __call__(self, tokens_BNT: torch.Tensor) -> torch.Tensor:
        return tokens_BNT.mean(dim=1, keepdim=True)[..., : self.out_width]


class ToyImageTokenizer:
    """One bit a quarter of the image: bright or dark."""

    codebook_size, grid, transform = 2, (2, 2), staticmethod(lambda image: torch.zeros(3, 4, 4))

    def encode(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return (torch.nn.functional.adaptive_avg_pool2d(pixels_BCHW.mean(1), self.grid) > 0.5).long().flatten(1)

    def decode(self, codes_BN: torch.Tensor) -> torch.Tensor:
        return codes_BN.view(-1, 1, *self.grid).float().expand(-1, 3, -1, -1)

    def save_config(self, folder: Path) -> None:
        pass


class ToyImageEncoder:
    width, token_width, image_size, transform = 2, 2, 4, staticmethod(lambda image: torch.zeros(3, 4, 4))

    def num_tokens(self, size: int) -> int:
        return size * size

    def __call__(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.tokens(pixels_BCHW).mean(dim=1)

    def tokens(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return pixels_BCHW[:, :2].flatten(2).transpose(1, 2)

    def save_config(self, folder: Path) -> None:
        pass


class ToyTextEncoder:
    width, marks_language = 1, False

    def tokenize(self, texts: Any, *, language: str | None = None) -> TextBatch:
        ids_BL = torch.tensor([[len(text)] for text in texts])
        return TextBatch(ids_BL, torch.ones_like(ids_BL))

    def __call__(self, tokens: TextBatch) -> torch.Tensor:
        return tokens.ids_BL.float()

    def save_config(self, folder: Path) -> None:
        pass


@pytest.mark.parametrize(
    ("toy", "protocol", "names"),
    [
        (ToyImageEncoder, types.ImageEncoder, "width token_width image_size transform num_tokens tokens save_config"),
        (ToyTextEncoder, types.TextEncoder, "width marks_language tokenize save_config"),
        (ToyLanguageModel, types.LanguageModel,
         "width vocab_size max_length encodes tokenizer embed logits generate save_config"),
        (ToyBridge, types.Bridge, "in_width out_width num_tokens"),
        (ToyImageTokenizer, types.ImageTokenizer, "codebook_size grid transform encode decode save_config"),
    ],
)  # fmt: skip
def test_a_toy_fits_and_each_missing_name_is_told(toy: type, protocol: type, names: str) -> None:
    assert isinstance(toy(), protocol) and lacking(toy(), protocol) == []
    assert lacking(object(), protocol) == names.split()
    for name in names.split():
        rest = type("Rest", (), {key: value for key, value in vars(toy).items() if key != name})
        assert lacking(rest(), protocol) == [name] and not isinstance(rest(), protocol)


def test_what_an_encoder_may_offer_is_told_from_what_it_has() -> None:
    encoder = ToyTextEncoder()
    assert not isinstance(encoder, types.GivesStates) and not isinstance(encoder, types.KnowsVocabulary)
    encoder.token_width = 1  # type: ignore[attr-defined]
    assert lacking(encoder, types.GivesStates) == ["pooled_and_states"]
    encoder.pooled_and_states = lambda tokens: (tokens, tokens)  # type: ignore[attr-defined]
    assert isinstance(encoder, types.GivesStates)
    assert lacking(encoder, types.KnowsVocabulary) == ["vocab_size", "vocabulary"]
    assert not isinstance(ToyImageEncoder(), types.KnowsClasses | types.ResizesImages | types.SharesLayers)
    assert lacking(ToyImageEncoder(), types.TransformsAtSizes) == ["transform_at"]


def test_an_image_goes_over_a_bridge_into_a_language_model() -> None:
    encoder, bridge, model = ToyImageEncoder(), ToyBridge(), ToyLanguageModel()
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[0, 0], pixels[1, 1] = 1.0, 1.0
    read = torch.cat([bridge(encoder.tokens(pixels)), model.embed(torch.tensor([[1], [0]]))], dim=1)
    assert read.shape == (2, bridge.num_tokens(encoder.num_tokens(4)) + 1, model.width)
    assert model.generate(read[:, :1], torch.ones(2, 1), generation=GenerationSpec(max_tokens=2)) == ["bb", "aa"]


def test_codes_of_an_image_come_back() -> None:
    tokenizer, codes = ToyImageTokenizer(), torch.tensor([[0, 1, 1, 0]])
    assert torch.equal(tokenizer.encode(tokenizer.decode(codes)), codes)
