"""The two towers of open_clip models, each with open_clip's own preprocessing and tokenizer.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, D encoder width, T width of a token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts import building
from vlkit.parts import open_clip_states as states
from vlkit.parts.image_fit import Padded
from vlkit.parts.language_marks import marks_language, set_language
from vlkit.parts.open_clip_files import (
    HF_TEXT,
    OpenClipConfig,
    OpenClipName,
    borne_out,
    check_text_tower,
    hub_or_cache,
    load_whole,
    make_tokenizer,
)
from vlkit.parts.token_layers import LAST, TokenLayers
from vlkit.parts.tokenizers import check_end_token, check_texts, check_vocabulary, vocabulary_size
from vlkit.spec.parts import OpenClipImage, OpenClipText
from vlkit.types import ImageFacts, TextBatch, Vocabulary


class OpenClipImageEncoder(building.LibraryImageEncoder):
    """The image tower: features as ``encode_image(normalize=False)`` gives them."""

    def __init__(self, tower: nn.Module, config: OpenClipConfig, *, spec: OpenClipImage) -> None:
        super().__init__()
        self.tower, self.config, self.spec = tower, config, spec
        self.width = int(config.model_cfg["embed_dim"])
        self.token_width = states.image_token_width(tower)
        self.image_size = self.resized_to = int(config.preprocess_cfg["size"])
        building.check_side(self.image_size, where=spec.name)
        with building.foreign_errors(f"{spec.name}: open_clip cannot use its preprocessing (preprocess_cfg)"):
            self.transform = self.transform_at(self.image_size)
        building.check_transform(self.transform, where=spec.name)
        self._layers: TokenLayers | None = None
        if spec.layers != LAST:
            blocks = self.on_shapes(self.image_size, "_all_blocks")
            self._layers = TokenLayers(spec.layers, count=len(blocks), where=f"open_clip:{spec.name}")
            self.token_width = int(self.on_shapes(self.image_size, "tokens").shape[2])

    @classmethod
    def build(cls, spec: OpenClipImage, *, saved: Path | None = None, empty: bool = False) -> OpenClipImageEncoder:
        """See ``image.build_image_encoder``."""
        from open_clip.model import _build_vision_tower

        name = OpenClipName.parse(str(saved or spec.name))
        config = OpenClipConfig.read(name, image_size=spec.image_size)
        if spec.pretrained and saved is None and not empty:
            return cls.from_whole(load_whole(name, image_size=spec.image_size), name, spec=spec)
        # open_clip offers no public way to build one tower alone
        vision = {**config.model_cfg["vision_cfg"], "timm_model_pretrained": False}
        cannot = building.foreign_errors(f"open_clip cannot build the image tower of {name.model}")
        with cannot, building.weightless(saved=saved is not None, empty=empty), borne_out(name, config):
            tower = _build_vision_tower(
                config.model_cfg["embed_dim"], vision, quick_gelu=config.model_cfg.get("quick_gelu", False)
            )
        return cls(tower, config, spec=spec)

    @classmethod
    def from_whole(cls, model: nn.Module, name: OpenClipName, *, spec: OpenClipImage) -> OpenClipImageEncoder:
        """The image tower of a loaded model, with the preprocessing its weights came with."""
        tower: Any = model.visual
        config = OpenClipConfig.read(name, image_size=spec.image_size)
        # the same preprocessing may write one square as 224 or as (224, 224); the transform's repr must not differ
        preprocess = {**tower.preprocess_cfg, "size": config.preprocess_cfg["size"]}
        return cls(tower, OpenClipConfig(config.model_cfg, preprocess), spec=spec)

    def transform_at(self, size: int) -> building.ImageTransform:
        """Its preprocessing for square images of another size."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = {**self.config.preprocess_cfg, "size": size}
        if self.spec.fit != "own":
            config["resize_mode"] = "squash"
        steps = image_transform_v2(PreprocessCfg(**config), is_train=False)
        if self.spec.fit == "pad":
            settings = {"library": "open_clip", **config, "fit": "pad"}
            return building.ImageTransform(Padded(steps, config["mean"]), settings)
        return building.ImageTransform(steps, {"library": "open_clip", **config})

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT of the blocks that ``layers`` names; class and register tokens left out."""
        if self._layers is None or self._layers.needs_last:
            return self.pooled_and_states(pixels_BCHW)[1]
        return self._layers.of(self._of_blocks(pixels_BCHW, self._layers))

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens`` in one pass."""
        features_BD, last_BNT = states.image_states(self.tower, building.taken(pixels_BCHW, self))
        features_BD, tokens_BNT = building.given(features_BD, self.spec), building.given(last_BNT, self.spec)
        if self._layers is not None:  # open_clip gives all blocks behind the final norm or none: a second pass
            found = {self._layers.count: tokens_BNT}
            tokens_BNT = self._layers.of(self._of_blocks(pixels_BCHW, self._layers) | found)
        return features_BD, tokens_BNT

    def _of_blocks(self, pixels_BCHW: Tensor, layers: TokenLayers) -> dict[int, Tensor]:
        """Tokens of the chosen blocks by number, as they leave the block."""
        numbers = sorted(set(layers.numbers))
        found = states.block_states(
            self.tower, building.taken(pixels_BCHW, self), blocks=[number - 1 for number in numbers]
        )
        return dict(zip(numbers, (building.given(tokens, self.spec) for tokens in found), strict=True))

    def _all_blocks(self, pixels_BCHW: Tensor) -> list[Tensor]:
        return states.block_states(self.tower, pixels_BCHW, blocks=None)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """features_BD."""
        output = self.tower(building.taken(pixels_BCHW, self))
        return building.given(output[0] if isinstance(output, tuple) else output, self.spec)

    def facts(self) -> ImageFacts:
        """See ``types.TellsFacts``."""
        extra, config = states.extra_image_tokens(self.tower), self.config.preprocess_cfg
        return building.image_facts(self, extra_tokens=extra, mean=config["mean"], std=config["std"])

    def save_config(self, folder: Path) -> None:
        """Writes ``open_clip_config.json``."""
        self.config.save(folder)


class OpenClipTextEncoder(nn.Module):
    """The text tower with the tokenizer open_clip names for it; features as of ``encode_text(normalize=False)``."""

    def __init__(self, tower: nn.Module, config: OpenClipConfig, *, tokenizer: Any, spec: OpenClipText) -> None:
        super().__init__()
        self.tower, self.config, self.tokenizer, self.spec = tower, config, tokenizer, spec
        self.width = int(config.model_cfg["embed_dim"])
        self._hf: Any = getattr(tokenizer, "tokenizer", None)  # the transformers tokenizer, where it wraps one
        self._hf_tower = "hf_model_name" in config.model_cfg["text_cfg"]
        self.marks_language = self._hf is not None and marks_language(self._hf)
        size = tokenizer.vocab_size if self._hf is None else vocabulary_size(self._hf)
        check_vocabulary(size, rows=self.vocab_size, where=spec.name)
        if self._hf_tower:
            self._check_padding(cast("Any", tower).config.pad_token_id)
        elif self._hf is not None:
            self._check_native(config.model_cfg["text_cfg"])

    @classmethod
    def build(cls, spec: OpenClipText, *, saved: Path | None = None, empty: bool = False) -> OpenClipTextEncoder:
        """See ``text.build_text_encoder``."""
        from open_clip.model import _build_text_tower

        name = OpenClipName.parse(str(saved or spec.name))
        config = OpenClipConfig.read(name)
        if spec.pretrained and saved is None and not empty:
            return cls.from_whole(load_whole(name), name, spec=spec)
        text = dict(config.model_cfg["text_cfg"])
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
            if saved is not None:
                text["hf_model_name"] = str(saved / HF_TEXT)
        # open_clip offers no public way to build one tower alone
        wants_hub = "hf_model_name" in text and not Path(text["hf_model_name"]).is_dir()
        with (
            hub_or_cache(wants_hub, f"the text tower of open_clip:{spec.name}"),
            building.weightless(saved=saved is not None, empty=empty),
            borne_out(name, config),
        ):
            check_text_tower(OpenClipConfig({**config.model_cfg, "text_cfg": text}, config.preprocess_cfg))
            tower = _build_text_tower(
                config.model_cfg["embed_dim"], text, quick_gelu=config.model_cfg.get("quick_gelu", False)
            )
        return cls(tower, config, tokenizer=make_tokenizer(name, config), spec=spec)

    @classmethod
    def from_whole(cls, model: nn.Module, name: OpenClipName, *, spec: OpenClipText) -> OpenClipTextEncoder:
        """The text tower of a loaded model."""
        tower: Any = model.text
        config = OpenClipConfig.read(name)
        return cls(tower, config, tokenizer=make_tokenizer(name, config), spec=spec)

    def _check_native(self, text: dict[str, Any]) -> None:
        """A transformers tokenizer before open_clip's own transformer: the ids that the latter looks for."""
        pool = text.get("pool_type", "argmax")
        if pool in ("argmax", "eos"):
            check_end_token(self._hf, reads=text.get("eos_id", 2) if pool == "eos" else None, where=self.spec.name)
        if text.get("embed_cls", False):
            self._check_padding(text.get("pad_id", 0))

    def _check_padding(self, used: int | None) -> None:
        given = None if self._hf is None else self._hf.pad_token_id
        if given != used:
            raise VlkitError(
                f"{self.spec.name}: the tokenizer pads with id {given} but the text model masks pad id {used}; "
                f"the tokenizer belongs to another model"
            )

    @property
    def hf_tokenizer(self) -> Any:
        """The transformers tokenizer inside open_clip's; None where it is open_clip's own."""
        return self._hf

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens as open_clip makes them; NLLB-type tokenizers are told the language.

        Raises:
            DataError: No texts, or an entry that is no string.
            VlkitError: The tokenizer needs a language and has none for this one.
        """
        texts = check_texts(texts)
        if self._hf is not None:
            set_language(self._hf, language, where=self.spec.name)
        ids_BL: Tensor = self.tokenizer(texts)
        if self._hf is None:
            # padding is id 0, which is also "!"; the text ends at its end token, the highest id
            mask_BL = (torch.arange(ids_BL.shape[1]) <= ids_BL.argmax(dim=1, keepdim=True)).long()
        else:
            mask_BL = (ids_BL != self._hf.pad_token_id).long()
        if self._hf_tower:  # masked towers need no padding beyond the longest text; native ones take a fixed length
            ids_BL, mask_BL = building.compact(ids_BL, mask_BL)
            length = max(1, int(mask_BL.sum(dim=1).max()))
            ids_BL, mask_BL = ids_BL[:, :length], mask_BL[:, :length]
        return TextBatch(ids_BL, mask_BL)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return int(states.text_table(self.tower).weight.shape[0])

    def vocabulary(self) -> Vocabulary:
        """What the ids mean."""
        return states.text_vocabulary(self.tokenizer, rows=self.vocab_size)

    @property
    def token_width(self) -> int:
        """T of ``pooled_and_states``."""
        return int(states.text_table(self.tower).weight.shape[1])

    def pooled_and_states(self, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        """features_BD and the last block's states_BLT in one pass."""
        features_BD, states_BLT = states.text_states(self.tower, tokens.ids_BL, where=self.spec.name)
        return building.given(features_BD, self.spec), building.given(states_BLT, self.spec)

    def forward(self, tokens: TextBatch) -> Tensor:
        """features_BD; in inference mode, native towers that read from left to right leave out common padding."""
        ids_BL = building.compact(*tokens)[0] if self._hf_tower else tokens.ids_BL
        short = self._hf is None and torch.is_inference_mode_enabled()
        output = states.short_text(self.tower, ids_BL, tokens.mask_BL) if short else self.tower(ids_BL)
        return building.given(output[0] if isinstance(output, tuple) else output, self.spec)

    def save_config(self, folder: Path) -> None:
        """Writes ``open_clip_config.json``, the tokenizer's files and a transformers tower's config."""
        config = copy.deepcopy(self.config)
        if self._hf is not None:
            # open_clip looks for tokenizer files in a folder only when the config names a tokenizer
            config.model_cfg["text_cfg"].setdefault("hf_tokenizer_name", self.spec.name)
            self._hf.save_pretrained(str(folder))
        config.save(folder)
        if self._hf_tower:
            tower: Any = self.tower
            tower.config.save_pretrained(str(folder / HF_TEXT))
