"""The two towers of open_clip models, each with open_clip's own preprocessing and tokenizer.

Shapes: B batch, C channels, H height, W width, L text length, N image tokens, D encoder width, T width of a token.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.parts import building
from vlkit.parts import open_clip_states as states
from vlkit.parts.assets import hub
from vlkit.parts.tokenizers import (
    check_end_token,
    check_texts,
    check_vocabulary,
    marks_language,
    set_language,
    vocabulary_size,
)
from vlkit.spec.parts import OpenClipImage, OpenClipText
from vlkit.types import TextBatch, Vocabulary

_CONFIG = "open_clip_config.json"
_HF_TEXT = "hf_text"  # the config of a transformers text tower, so that a saved model needs no hub


@dataclass(frozen=True)
class OpenClipName:
    """A parsed name: ``model`` as open_clip's functions take it, ``weights`` a tag or file, or None."""

    model: str
    weights: str | None

    @classmethod
    def parse(cls, name: str) -> OpenClipName:
        """Reads ``MODEL``, ``MODEL/TAG``, ``MODEL/FILE``, ``hf-hub:ORG/NAME`` or a folder in hub layout.

        Raises:
            UnknownName: There is no such model, or no such weights of it.
            AssetError: The folder holds no open_clip model.
        """
        import open_clip

        if name.startswith("hf-hub:"):
            return cls(name, None)
        if Path(name).is_dir():
            if not (Path(name) / _CONFIG).is_file():
                raise AssetError(f"{name} is no open_clip folder in hub layout: it has no {_CONFIG}")
            return cls(f"local-dir:{name}", None)
        model, _, weights = name.partition("/")
        if model not in open_clip.list_models():
            raise UnknownName(
                "open_clip model", model, allowed=open_clip.list_models(), hint="See open_clip.list_models()."
            )
        if weights and not Path(weights).is_file():
            tags = open_clip.list_pretrained_tags_by_model(model)
            if weights not in tags:
                kind = f"open_clip weights of {model}"
                raise UnknownName(
                    kind, weights, allowed=tags, hint="Name one of its tags or a weights file that exists."
                )
        return cls(model, weights or None)


@dataclass(frozen=True)
class OpenClipConfig:
    """What open_clip keeps in ``open_clip_config.json``."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]

    @classmethod
    def read(cls, name: OpenClipName, *, image_size: int | None = None) -> OpenClipConfig:
        """The config of a model, without its weights.

        Raises:
            AssetError: It cannot be read.
            VlkitError: A kind of model that is not offered.
        """
        import open_clip
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        preprocess: dict[str, Any] = {}
        from_hub = name.model.startswith("hf-hub:")
        with _hub_or_cache(from_hub, f"the open_clip config of {name.model}"):
            if name.model.startswith("local-dir:"):
                folder = Path(name.model.removeprefix("local-dir:"))
                preprocess = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("preprocess_cfg", {})
            elif name.weights and not Path(name.weights).is_file():
                preprocess = open_clip.get_pretrained_cfg(name.model, name.weights)
            model_cfg = copy.deepcopy(open_clip.get_model_config(name.model))
        if image_size is not None:
            building.check_patches(image_size, model_cfg["vision_cfg"].get("patch_size"), where=name.model)
            model_cfg["vision_cfg"]["image_size"] = image_size
        side = model_cfg["vision_cfg"].get("image_size", 224)
        size = {"size": side if isinstance(side, int) else side[0]}
        return cls(model_cfg, merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), preprocess), size))

    def wants_hub(self, name: OpenClipName) -> bool:
        """Whether building this model with its weights asks the hub for anything."""
        text, folder = self.model_cfg["text_cfg"], name.model.startswith("local-dir:")
        tag = name.weights is not None and not Path(name.weights).is_file()
        towers = [text[key] for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)]
        if folder:  # the tokenizer's files lie in the folder
            towers = [text["hf_model_name"]] if text.get("hf_model_name") else []
        return tag or name.model.startswith("hf-hub:") or not all(Path(tower).is_dir() for tower in towers)

    def save(self, folder: Path) -> None:
        """Writes ``open_clip_config.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
        (folder / _CONFIG).write_text(json.dumps(content, indent=2), encoding="utf-8")


def load_whole(name: OpenClipName, *, image_size: int | None = None) -> nn.Module:
    """The open_clip model with its weights and separate towers (``.visual``, ``.text``), in float32.

    Raises:
        AssetError: There are no weights, or they cannot be had or read.
        VlkitError: open_clip cannot build the model.
    """
    import open_clip

    if name.weights is None and not name.model.startswith(("local-dir:", "hf-hub:")):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name.model)) or "none"
        raise AssetError(
            f"open_clip:{name.model} names no weights; write MODEL/TAG (tags: {tags}) or MODEL/FILE, "
            f"or set pretrained=false"
        )
    what = f"{name.model}/{name.weights}" if name.weights else name.model
    wants_hub = OpenClipConfig.read(name).wants_hub(name)
    with _hub_or_cache(wants_hub, f"the weights of open_clip:{what}"):
        model: nn.Module = open_clip.create_model(
            name.model,
            name.weights,
            force_custom_text=True,
            force_image_size=image_size,
            require_pretrained=True,
            pretrained_text=False,
            weights_only=True,
        )
    return model.eval()


class OpenClipImageEncoder(building.LibraryImageEncoder):
    """The image tower: features as ``encode_image(normalize=False)`` gives them."""

    def __init__(self, tower: nn.Module, config: OpenClipConfig, *, spec: OpenClipImage) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        super().__init__()
        self.tower, self.config, self.spec = tower, config, spec
        self.width = int(config.model_cfg["embed_dim"])
        self.token_width = states.image_token_width(tower)
        self.image_size = self.resized_to = int(config.preprocess_cfg["size"])
        steps = image_transform_v2(PreprocessCfg(**config.preprocess_cfg), is_train=False)
        self.transform = building.ImageTransform(steps, {"library": "open_clip", **config.preprocess_cfg})

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
        with building.weightless(saved=saved is not None, empty=empty):
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

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """tokens_BNT of the last block; the class token left out."""
        return self.pooled_and_states(pixels_BCHW)[1]

    def pooled_and_states(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """features_BD and ``tokens`` in one pass."""
        features_BD, tokens_BNT = states.image_states(self.tower, building.taken(pixels_BCHW, self))
        return building.given(features_BD, self.spec), building.given(tokens_BNT, self.spec)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """features_BD."""
        output = self.tower(building.taken(pixels_BCHW, self))
        return building.given(output[0] if isinstance(output, tuple) else output, self.spec)

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
                text["hf_model_name"] = str(saved / _HF_TEXT)
        # open_clip offers no public way to build one tower alone
        wants_hub = "hf_model_name" in text and not Path(text["hf_model_name"]).is_dir()
        with (
            _hub_or_cache(wants_hub, f"the text tower of open_clip:{spec.name}"),
            building.weightless(saved=saved is not None, empty=empty),
        ):
            tower = _build_text_tower(
                config.model_cfg["embed_dim"], text, quick_gelu=config.model_cfg.get("quick_gelu", False)
            )
        return cls(tower, config, tokenizer=_tokenizer(name, config), spec=spec)

    @classmethod
    def from_whole(cls, model: nn.Module, name: OpenClipName, *, spec: OpenClipText) -> OpenClipTextEncoder:
        """The text tower of a loaded model."""
        tower: Any = model.text
        config = OpenClipConfig.read(name)
        return cls(tower, config, tokenizer=_tokenizer(name, config), spec=spec)

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
            tower.config.save_pretrained(str(folder / _HF_TEXT))


def _tokenizer(name: OpenClipName, config: OpenClipConfig) -> Any:
    import open_clip

    named = bool(config.model_cfg["text_cfg"].get("hf_tokenizer_name"))
    with _hub_or_cache(named and not name.model.startswith("local-dir:"), f"the tokenizer of open_clip:{name.model}"):
        return open_clip.get_tokenizer(name.model)


@contextmanager
def _hub_or_cache(wants_hub: bool, what: str) -> Iterator[None]:
    """Lets open_clip ask the hub where that answers, else its cache alone, so that a missing hub costs seconds.

    Raises:
        AssetError: What is loaded inside cannot be had or read.
    """
    from huggingface_hub import constants

    why, allowed = None, constants.HF_HUB_OFFLINE
    if wants_hub:
        forbidden = hub.offline()
        unreachable = None if forbidden else hub.unreachable(hub.endpoint())
        why = f"{forbidden} is set" if forbidden else unreachable and f"{hub.endpoint()}: {unreachable}"
    if why:
        constants.HF_HUB_OFFLINE = True
    quiet = logging.root.manager.disable
    logging.disable(logging.ERROR)  # open_clip logs to the root logger what the error below says
    try:
        yield
    except building.LOAD_ERRORS as error:
        if isinstance(error, VlkitError):
            raise
        tried = f" (the hub was not asked: {why})" if why else ""
        raise AssetError(
            f"cannot load {what}{tried}: {error}. Without a hub, write MODEL/FILE with a local weights file, or name a "
            f"folder with {_CONFIG}, open_clip_model.safetensors and the tokenizer's files"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = allowed
        logging.disable(quiet)
