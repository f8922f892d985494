"""What a configuration that came with weights may say: it is read within bounds, and refused where it asks for code.

Libraries read most of these files by themselves, so they are judged first, as they stand. How large a model they
describe is for ``weight_files.within`` to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlkit.errors import AssetError
from vlkit.foreign import json_kind, printable, read_json

_READ_BY_LIBRARIES = (
    "config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "generation_config.json",
)  # fmt: skip
# how open_clip's own tokenizers clean texts; all else would go on to transformers
_TOKENIZER_KWARGS = ("additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token")
# arguments of timm's functions around the architecture: where weights are, and what else is made of the model
_AROUND_TIMM = (
    "cache_dir", "checkpoint_path", "exportable", "feature_cls", "feature_cfg", "features_only", "file", "no_jit",
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn", "scriptable", "state_dict", "url",
)  # fmt: skip
_COUNTED = re.compile(r"(^|_)(layers?|depths?|blocks|heads?|experts|stages|labels|classes)$")
_SIZED = re.compile(r"(hidden|vocab|patch|image|embedding)_size|embed_dim|d_model|width")
_MOST = 1_000_000
_OBJECTS = ("model_args", "model_cfg", "multimodal_cfg", "preprocess_cfg", "pretrained_cfg", "text_cfg", "text_config",
            "tokenizer_kwargs", "vision_cfg", "vision_config")  # fmt: skip
_LONGEST_INPUT = 65_536
_OF_THE_HUB = "names code of the hub, which vlkit never runs; take the key out"


def read_settings(path: Path) -> dict[str, Any]:
    """A configuration file that came with weights; each one that anything is built from is read by this function.

    Raises:
        AssetError: It cannot be read, is no JSON object, or says what no configuration may: the message names the key.
    """
    try:
        found: dict[str, Any] = read_json(path, expected=dict, error=AssetError)
    except OSError as error:
        raise AssetError(f"cannot read {path}: {error.strerror or error}") from error
    for keys, value in _values(found):
        if why := _wrong(keys[-1], value):
            shown = "{…}" if isinstance(value, dict) else "[…]" if isinstance(value, list) else repr(value)[:120]
            raise AssetError(f"{path}: {printable('.'.join(keys))} = {printable(shown)} {why}")
    return found


def check_settings(folder: Path) -> None:
    """Reads all configuration files of a folder that libraries read by themselves.

    Raises:
        AssetError: See ``read_settings``.
    """
    for name in _READ_BY_LIBRARIES:
        if (folder / name).is_file():
            read_settings(folder / name)


def numbers(settings: Mapping[str, Any]) -> dict[str, int]:
    """The whole numbers of a configuration by dotted key, of a list the largest: ``text_config.vocab_size``."""
    found: dict[str, int] = {}
    for keys, value in _values(settings):
        if isinstance(value, int) and not isinstance(value, bool):
            found[".".join(keys)] = max(value, found.get(".".join(keys), value))
    return found


def largest(settings: Mapping[str, Any]) -> str:
    """Its three largest ones, for messages."""
    first = sorted(numbers(settings).items(), key=lambda entry: -entry[1])[:3]
    return ", ".join(f"{key} = {value:,}" for key, value in first)


def _values(settings: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value below with its keys, however deep; items of lists have those of their list."""
    left: list[tuple[tuple[str, ...], Any]] = [((), settings)]
    while left:
        keys, value = left.pop()
        named = isinstance(value, Mapping)
        for key, child in value.items() if named else [("", item) for item in value]:
            below = (*keys, key) if named else keys
            yield below, child
            if isinstance(child, dict | list):
                left.append((below, child))


def _wrong(key: str, value: Any) -> str | None:
    """What is wrong with the value of a key; None when nothing is."""
    if key in _OBJECTS and value is not None and not isinstance(value, dict):
        return f"is {json_kind(type(value))}; expected an object"
    if rule := _RULES.get(key):
        return rule(value)
    if _COUNTED.search(key) and isinstance(value, int) and value > _MOST:
        return f"is more than any model has; allowed: up to {_MOST:,}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and value < 1 and (key.endswith("heads") or _SIZED.fullmatch(key)):
        return "must be 1 or more"
    return None


def _tokenizer_kwargs(value: Any) -> str | None:
    if more := sorted(set(value or ()) - {*_TOKENIZER_KWARGS}):
        allowed = ", ".join(_TOKENIZER_KWARGS)
        return f"holds {', '.join(more)}, which a configuration may not pass on to a tokenizer; allowed: {allowed}"
    return None


def _model_args(value: Any) -> str | None:
    if more := sorted(set(value or ()) & {*_AROUND_TIMM}):
        return f"holds {', '.join(more)}, which is no argument of an architecture; take it out"
    return None


def _plain_name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"[\w.+-]+", value)):
        return None
    return "is no name of a timm model; write one that timm.list_models() has"


def _no_place(value: Any) -> str | None:
    if not isinstance(value, str) or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value):
        return None
    return "names a place; write the name of a model"


def _known_code(value: Any) -> str | None:
    names = [*value.values()] if isinstance(value, dict) else [value]
    return _OF_THE_HUB if any("/" in str(name) for name in names) else None


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"is {json_kind(type(value))}; expected text, or no such key"


def _number(value: Any) -> str | None:
    fits = value is None or isinstance(value, int | float)
    return None if fits else f"is {json_kind(type(value))}; expected a number"


def _context(value: Any) -> str | None:
    if value is None or (isinstance(value, int) and 1 <= value <= _LONGEST_INPUT):
        return None
    return f"is no length of a text; allowed: 1 to {_LONGEST_INPUT:,} tokens"


def _no_kernels(value: Any) -> str | None:
    return _OF_THE_HUB if value else None


def _file_beside(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors(\.index\.json)?", value)):
        return None
    return "is no safetensors file beside it"


_RULES: dict[str, Callable[[Any], str | None]] = {
    "tokenizer_kwargs": _tokenizer_kwargs,
    "model_args": _model_args,
    "backbone_kwargs": _model_args,
    "architecture": _plain_name,
    "backbone": _no_place,
    "timm_model_name": _plain_name,
    "context_length": _context,
    "model_max_length": _number,
    "hf_model_name": _text,
    "hf_tokenizer_name": _text,
    "attn_implementation": _known_code,
    "_attn_implementation": _known_code,
    "_attn_implementation_internal": _known_code,
    "experts_implementation": _known_code,
    "_experts_implementation": _known_code,
    "use_kernels": _no_kernels,
    "kernel_config": _no_kernels,
    "transformers_weights": _file_beside,
}
