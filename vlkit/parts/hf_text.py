"""Text encoders of transformers: encoders, causal language models, encoder-decoders, the text side of CLIP-like models.

Shapes: B batch, L text length, D encoder width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.parts import assets
from vlkit.parts.building import compact, foreign_errors, given
from vlkit.parts.configs import read_settings
from vlkit.parts.hf_common import (
    is_two_tower,
    keep_side,
    last_states,
    load_model,
    read_config,
    side_width,
    token_table,
    unusable,
)
from vlkit.parts.language_marks import marks_language
from vlkit.parts.tokenizers import (
    HfTokenizer,
    check_end_token,
    check_padding,
    check_vocabulary,
    load_tokenizer,
    longest_input,
    vocabulary_size,
)
from vlkit.parts.vocabulary import hf_vocabulary
from vlkit.spec.parts import HfText
from vlkit.types import TextBatch, Vocabulary

_Pooling = Literal["mean", "cls", "last", "eos"]
_LONGEST_PREFIX = 4096
_AT_THE_END = ("clip", "groupvit", "owl")  # text models of these types read the feature at the end token


class HfTextEncoder(nn.Module):
    """A text model of transformers with its own tokenizer.

    With pooling ``auto`` the text side of a two-tower model (CLIP, SigLIP, VisionTextDualEncoder, ...) ends in the
    model's own shared space, exactly as the library's ``get_text_features``; all others get an explicit pooling.

    ``config`` is that of the whole model as it was read; of a two-tower model the text side is kept. Pooling and prefix
    of ``spec`` are resolved.
    """

    def __init__(self, model: nn.Module, config: Any, *, tokenizer: Any, spec: HfText) -> None:
        super().__init__()
        two_tower = is_two_tower(config)
        self.projects = spec.pooling == "auto"
        if two_tower:
            if not hasattr(model, "text_model"):
                raise VlkitError(
                    f"{spec.name}: model_type = {config.model_type!r} has no text model beside its image model; name "
                    f"its language model itself"
                )
            model = keep_side(model, "text")
        self.model: nn.Module = model if self.projects or not two_tower else cast("nn.Module", model.text_model)
        self.config, self.spec, self._two_tower = config, spec, two_tower
        text_config = config.text_config if two_tower else config
        if hasattr(text_config, "use_cache"):
            text_config.use_cache = False  # nothing is generated
        text_model = self._text_model
        check_vocabulary(vocabulary_size(tokenizer), rows=self.vocab_size, where=spec.name)
        check_padding(tokenizer, text_model, where=spec.name)
        if two_tower and self.projects:
            _check_pooled_token(tokenizer, text_model, kind=str(text_config.model_type), where=spec.name)
        # SigLIP's text models attend to padding and read the last position
        self.fixed_length = str(text_config.model_type).startswith("siglip")
        longest = longest_input(tokenizer, text_model, config=text_config)
        self.tokenizer = HfTokenizer(
            tokenizer,
            spec.name,
            max_length=int(text_config.max_position_embeddings) if self.fixed_length else min(spec.max_length, longest),
            prefix=spec.prefix or "",
            end_token=spec.pooling == "eos" or (two_tower and str(text_config.model_type).startswith(_AT_THE_END)),
            fixed_length=self.fixed_length,
        )
        self._layers = _check_layers(spec, text_config)
        self.token_width = int(text_config.hidden_size)
        if not self.projects:
            self.width = self.token_width * len(spec.layers)
        elif two_tower:
            self.width = side_width(model, config, side="text") or int(config.projection_dim)
        else:
            self.width = int(getattr(config, "projection_size", None) or config.hidden_size)

    @classmethod
    def build(cls, spec: HfText, *, saved: Path | None = None, empty: bool = False) -> HfTextEncoder:
        """See ``text.build_text_encoder``."""
        folder = saved or assets.resolve(spec.name, library="hf")
        config = read_config(folder)
        model, _ = load_model(folder, config, spec=spec, pooler=is_two_tower(config), saved=saved, empty=empty)
        spec = resolve_spec(spec, folder, config=config)
        tokenizer = load_tokenizer(folder)
        with foreign_errors(unusable(config, where=spec.name), error=VlkitError):
            return cls(_text_part(model, config), config, tokenizer=tokenizer, spec=spec)

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens with the model's prefix, and its language token where it has one.

        Raises:
            DataError: No texts, an entry that is no string, or a text that leaves no token at all.
            VlkitError: The tokenizer needs a language and has none for this one.
        """
        return self.tokenizer(texts, language=language)

    @property
    def marks_language(self) -> bool:
        """Whether the tokenizer puts a mark of the language into its input."""
        return marks_language(self.tokenizer.tokenizer)

    @property
    def _text_model(self) -> Any:
        return self.model.text_model if self._two_tower and self.projects else self.model

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return token_table(self._text_model, where=self.spec.name).num_embeddings

    def vocabulary(self) -> Vocabulary:
        """What the ids mean."""
        return hf_vocabulary(self.tokenizer.tokenizer, rows=self.vocab_size)

    def forward(self, tokens: TextBatch) -> Tensor:
        """Pooled features_BD."""
        return self._pooled(self._output(tokens), tokens)

    def pooled_and_states(self, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        """Pooled features_BD and the last block's states_BLD, those of real tokens first, in one pass."""
        output = self._output(tokens)
        return self._pooled(output, tokens), given(last_states(output, where=self.spec.name), self.spec)

    def _output(self, tokens: TextBatch) -> Any:
        model: Any = self.model
        ids_BL, mask_BL = self._input(tokens)
        attention = None if self.fixed_length else mask_BL
        if self.projects:
            call = model.get_text_features if self._two_tower else model
            return call(input_ids=ids_BL, attention_mask=attention)
        deep = self._layers != (-1,)
        return model(input_ids=ids_BL, attention_mask=attention, output_hidden_states=deep, return_dict=True)

    def _input(self, tokens: TextBatch) -> tuple[Tensor, Tensor]:
        return tokens if self.fixed_length else compact(*tokens)

    def _pooled(self, output: Any, tokens: TextBatch) -> Tensor:
        if self.projects:
            return given(output if isinstance(output, Tensor) else output.pooler_output, self.spec)
        ids_BL, mask_BL = self._input(tokens)
        # the last block's states go through the final norm, which hidden_states[-1] lacks in some models
        states = [output.last_hidden_state if i == -1 else output.hidden_states[i] for i in self._layers]
        return torch.cat([self._pool(given(state_BLD, self.spec), ids_BL, mask_BL) for state_BLD in states], dim=-1)

    def _pool(self, state_BLD: Tensor, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        if self.spec.pooling == "mean":
            weight_BL1 = mask_BL.unsqueeze(-1).to(state_BLD.dtype)
            return (state_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1)
        if self.spec.pooling == "cls":
            return state_BLD[:, 0]
        if self.spec.pooling == "last":
            index_B = mask_BL.sum(dim=1) - 1
        else:
            index_B = ((ids_BL == self.tokenizer.end_id) & (mask_BL > 0)).int().argmax(dim=1)
        return state_BLD[torch.arange(len(ids_BL), device=ids_BL.device), index_B]

    def save_config(self, folder: Path) -> None:
        """Writes the model's config and its tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(str(folder))
        self.tokenizer.save(folder)


class _Known(NamedTuple):
    pooling: _Pooling | None
    prefix: str | None


def resolve_spec(spec: HfText, folder: Path, *, config: Any) -> HfText:
    """Fills in pooling and prefix where the spec leaves them open.

    Order: the spec, the folder's sentence-transformers files, what is known of the name, the architecture. Pooling
    stays ``auto`` for models that pool and project by themselves (two-tower models, SigLIP's text models).

    Raises:
        VlkitError: A pooling that cannot work with this model.
    """
    own = is_two_tower(config) or str(config.model_type).startswith("siglip")
    if own and spec.pooling == "auto":
        if spec.layers != (-1,):
            raise VlkitError(
                f"{spec.name}: layers = {list(spec.layers)} needs an explicit pooling, e.g. pooling = 'eos'"
            )
        return spec.model_copy(update={"prefix": spec.prefix or ""})
    files, name = _sentence_transformers(folder), _by_name(spec.name)
    pooling = spec.pooling if spec.pooling != "auto" else files.pooling or name.pooling or _by_architecture(config)
    prefixes = (spec.prefix, files.prefix, name.prefix, "")
    return spec.model_copy(update={"pooling": pooling, "prefix": next(p for p in prefixes if p is not None)})


def _sentence_transformers(folder: Path) -> _Known:
    """Pooling of ``1_Pooling/config.json`` and the default (else the query) prompt, where a folder has these files."""
    pooling: _Pooling | None = None
    modes = _settings(folder / "1_Pooling" / "config.json")
    names: tuple[tuple[str, _Pooling], ...] = (
        ("pooling_mode_cls_token", "cls"), ("pooling_mode_mean_tokens", "mean"), ("pooling_mode_lasttoken", "last"),
    )  # fmt: skip
    chosen = [mode for key, mode in names if modes.get(key)]
    unknown = [key for key, value in modes.items() if key.startswith("pooling_mode_") and value is True]
    if len(unknown) > len(chosen) or len(chosen) > 1:
        raise VlkitError(
            f"{folder / '1_Pooling' / 'config.json'} asks for {', '.join(unknown)}; only one of cls, mean and "
            f"lasttoken is offered: set pooling"
        )
    if chosen:
        pooling = chosen[0]
    path = folder / "config_sentence_transformers.json"
    settings = _settings(path)
    prompts, name = settings.get("prompts") or {}, settings.get("default_prompt_name") or "query"
    prefix: Any = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else False
    if not isinstance(prefix, str | None) or len(prefix or "") > _LONGEST_PREFIX:
        raise VlkitError(
            f"{path}: the prompt {name!r} should be a text of at most {_LONGEST_PREFIX:,} characters: set prefix"
        )
    return _Known(pooling, prefix)


def _settings(path: Path) -> dict[str, Any]:
    return read_settings(path) if path.is_file() else {}


def _by_name(name: str) -> _Known:
    """The E5 family (arXiv 2212.03533, 2402.05672): mean pooling, ``query: `` where both sides are alike."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    if not re.search(r"(^|[-_])e5([-_]|$)", last):
        return _Known(None, None)
    if "mistral" in last:
        return _Known("last", "")
    return _Known("mean", "" if "instruct" in last else "query: ")


def _by_architecture(config: Any) -> _Pooling:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if str(config.model_type).startswith("clip"):
        return "eos"
    if config.is_encoder_decoder:
        return "mean"
    kind = type(config)
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    return "last" if causal else "mean"


def _text_part(model: nn.Module, config: Any) -> nn.Module:
    whole: Any = model
    if is_two_tower(config):
        return model
    if getattr(config, "is_encoder_decoder", False):
        return cast("nn.Module", whole.get_encoder())
    if hasattr(config, "vision_config") or hasattr(config, "text_config"):
        raise VlkitError(f"model_type = {config.model_type!r} is neither a text model nor a two-tower model")
    return model


def _check_pooled_token(tokenizer: Any, model: nn.Module, *, kind: str, where: str) -> None:
    if kind.startswith("owl"):
        check_end_token(tokenizer, reads=None, where=where)
        return
    for module in model.modules():
        if isinstance(reads := getattr(module, "eos_token_id", None), int):
            legacy = kind.startswith(_AT_THE_END) and reads == 2  # then CLIP looks for the highest id
            check_end_token(tokenizer, reads=None if legacy else reads, where=where)
            return


def _check_layers(spec: HfText, config: Any) -> tuple[int, ...]:
    """The layers as indices from the end, -1 the last.

    Raises:
        VlkitError: The model has no such layer, or none were named.
    """
    count = int(config.num_hidden_layers) + 1
    if not spec.layers or any(not -count <= index < count for index in spec.layers):
        raise VlkitError(
            f"{spec.name}: layers = {list(spec.layers)}; allowed: one or more of {-count}..{count - 1} "
            f"(0 the embeddings, {count - 1} or -1 the last block)"
        )
    return tuple(index - count if index >= 0 else index for index in spec.layers)
