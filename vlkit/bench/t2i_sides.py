"""Two ways to sample the same images of the same model: vlkit's, and the loop of the published code.

The published loop (Show-o, NeoBabel) pads all prompts on the left to a fixed length, runs prompt and image anew in
every step, with and without the prompt, and foretells all words and codes at every place, of which the image's codes
are cut out. It is written down here on the same weights, so that both find the same codes.

Shapes: B images, N codes, T text places, L places, K codebook size, V rows of words and codes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlkit.bench.memory import extra_memory
from vlkit.bench.vlm_sides import number_tokenizer
from vlkit.models.registry import build
from vlkit.models.text_to_image.model import TextToImageModel
from vlkit.models.text_to_image.painting import Prompted
from vlkit.nn.code_attention import added, text_then_image
from vlkit.nn.code_head import CodeHead
from vlkit.nn.code_sampler import CodeLogits, sample
from vlkit.parts.building import weightless
from vlkit.parts.hf_common import quiet
from vlkit.parts.hf_language import HfLanguageModel, auto_class
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.language import HfLanguage
from vlkit.spec.model import ImageTokenizerModelSpec
from vlkit.spec.text_to_image import SamplingSpec

_WORDS = (4, 24)  # fewest and most of a prompt
_SPREAD = 0.02


@dataclass(frozen=True)
class T2iSetting:
    """What is sampled.

    ``text_rows`` and ``codes`` are the rows of words and codes, ``width`` and ``layers`` the language model's,
    ``side`` the rows of an image's codes, ``padded`` the length that the published loop pads prompts to, ``batch``
    images at a time, ``guidance`` as diffusers has it.
    """

    text_rows: int = 12_000
    codes: int = 8_192
    width: int = 512
    layers: int = 12
    side: int = 16
    padded: int = 513
    batch: int = 1
    guidance: float = 6.0


class T2iSides:
    """One model with random weights, sampled in both ways."""

    def __init__(self, setting: T2iSetting) -> None:
        self.setting = setting
        torch.manual_seed(0)
        self.model = _model(setting).eval()
        layout = self.model.layout
        draw = random.Random(0)
        prompts = [
            " ".join(str(draw.randrange(4, setting.text_rows)) for _ in range(draw.randint(*_WORDS)))
            for _ in range(setting.batch)
        ]
        self.ids = [layout.laid(prompt, language=None).ids for prompt in prompts]

    @torch.no_grad()
    def sampled(self, name: str, steps: int) -> Tensor:
        """codes_BN by ``vlkit``, by ``prefix`` (prompts are read once, but words are foretold, too) or ``naive``."""
        logits_of = self._naive() if name == "naive" else self._fast(all_rows=name == "prefix")
        return sample(
            logits_of,
            spec=SamplingSpec(steps=steps, guidance=self.setting.guidance),
            seeds=list(range(self.setting.batch)),
            num_codes=self.model.num_codes,
            codebook_size=self.model.codebook_size,
        )

    def _fast(self, *, all_rows: bool) -> CodeLogits:
        different = list(dict.fromkeys((*self.ids, self.model.layout.null)))
        rows = [different.index(ids) for ids in self.ids]
        nulls = [len(different) - 1] * len(rows)
        model: Any = _AllRows(self.model) if all_rows else self.model
        return Prompted(model, different, rows, nulls)

    def _naive(self) -> CodeLogits:
        text = _left_padded([*self.ids, *[self.model.layout.null] * len(self.ids)], self.setting.padded)
        whole = _AllRows(self.model)

        def logits_of(codes_BN: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
            logits_BNK = whole.anew(codes_BN.repeat(2, 1), *text)
            asked_BNK, null_BNK = logits_BNK.chunk(2)
            return asked_BNK, null_BNK

        return logits_of


class _AllRows:
    """A model that foretells words and codes at every place, as with one vocabulary, and cuts out the codes."""

    def __init__(self, model: TextToImageModel) -> None:
        self.model = model
        language: Any = model.language_model
        words: Tensor = language.whole.get_output_embeddings().weight
        out = model.head.out
        self.table_VE = torch.cat([words, words[:0] if out is None else out.weight])
        self.first = len(words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def logits(self, states_BNE: Tensor) -> Tensor:
        """logits_BNK."""
        logits_BNV: Tensor = functional.linear(states_BNE, self.table_VE)
        return logits_BNV[..., self.first :]

    def anew(self, codes_BN: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """logits_BNK of one pass over padded prompts and images."""
        language: Any = self.model.language_model
        block_BME = self.model.head.block(codes_BN)
        layout = text_then_image(mask_BT, block_BME.shape[1])
        states_BLE = language.whole.base_model(
            inputs_embeds=torch.cat([language.embed(ids_BT), block_BME], dim=1),
            attention_mask=added(layout, block_BME.dtype),
            position_ids=layout.positions(),
            use_cache=False,
        ).last_hidden_state
        logits_BLV = functional.linear(states_BLE, self.table_VE)
        return logits_BLV[:, ids_BT.shape[1] + 1 : -1, self.first :]


def sampling_memory(setting: dict[str, Any], *, name: str) -> int:
    """Bytes that a step needs at its peak beyond the model; in a fresh process."""
    sides = T2iSides(T2iSetting(**setting))
    return extra_memory(lambda: sides.sampled(name, 1))


def _left_padded(prompts: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    ids = [[*[0] * (length - len(one)), *one] for one in prompts]
    mask = [[0] * (length - len(one)) + [1] * len(one) for one in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _model(setting: T2iSetting) -> TextToImageModel:
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "llama", vocab_size=setting.text_rows, hidden_size=setting.width, intermediate_size=3 * setting.width,
        num_hidden_layers=setting.layers, num_attention_heads=setting.width // 64,
        num_key_value_heads=setting.width // 64, head_dim=64, max_position_embeddings=4096, pad_token_id=0,
        bos_token_id=None, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    with quiet():
        whole = auto_class(config).from_config(config).float()
    tokenizer = number_tokenizer(setting.text_rows)
    spec = HfLanguage(name="llama", pretrained=False)
    language = HfLanguageModel(whole, config, tokenizer=tokenizer, spec=spec, where="llama")
    codes = _tokenizer(setting)
    head = CodeHead(codes.codebook_size, codes.grid, setting.width, scale=_SPREAD, places=False, tied=False, cap=None)
    torch.nn.init.normal_(head.out.weight, std=_SPREAD)  # type: ignore[union-attr]
    return TextToImageModel(language, codes, head)


def _tokenizer(setting: T2iSetting) -> Any:
    """Codes as many as are asked for; no image is decoded."""
    levels = {8_192: (8, 8, 8, 16), 256: (4, 8, 8)}.get(setting.codes, (setting.codes,))
    spec = ConvTokenizerSpec(image_size=8 * setting.side, patch=8, widths=(8,), blocks=1, levels=levels)
    with weightless(saved=False, empty=False):
        built: Any = build(ImageTokenizerModelSpec(tokenizer=spec))
    return built.tokenizer
