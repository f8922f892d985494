"""Parts inside whole vision-language models of transformers (BLIP-2 and its like, LLaVA): where in them each one is.

A folder of such a model can stand where a part is named (`hf:FOLDER`): the image encoder or language model in it is
taken, straight from the whole model's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from vlkit.errors import VlkitError

_LLAVA_TOWER = r"^(model\.)?vision_tower\.(vision_model\.)?"
_LLAVA_WRITER = r"^(model\.language_model|language_model\.model)\."
_LLAVA_OUTPUT = r"^language_model\.lm_head\."
WHOLE = ("blip-2", "llava")
"""Their values of `model_type`."""


class PartInside(NamedTuple):
    """One part of a whole model: its own configuration, and patterns of its tensors' names with what to put there."""

    config: Any
    names: Mapping[str, str]


def renamed(names: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that read a part alone."""
    return {"key_mapping": dict(names)} if names else {}


def part_inside(config: Any, part: Literal["image encoder", "language model"], *, where: str) -> PartInside:
    """The part of a model by the model's configuration; of other models than those of ``WHOLE`` the model itself.

    Raises:
        VlkitError: Its configuration does not say what the part is.
    """
    if config.model_type not in WHOLE:
        return PartInside(config, {})
    inner = getattr(config, "vision_config" if part == "image encoder" else "text_config", None)
    if inner is None:
        raise VlkitError(f"{where}: its configuration says nothing of its {part}; get the folder again, all of it")
    if config.model_type == "blip-2":
        return PartInside(inner, {r"^vision_model\." if part == "image encoder" else r"^language_model\.": ""})
    if part == "image encoder":
        return PartInside(inner, {_LLAVA_TOWER: ""})
    return PartInside(inner, {_LLAVA_WRITER: f"{_prefix(inner, where=where)}.", _LLAVA_OUTPUT: "lm_head."})


def _prefix(config: Any, *, where: str) -> str:
    """What stands before the names of a language model's layers: its output map is beside them."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise VlkitError(f"{where}: text_config.model_type = {config.model_type!r} is no language model that can write")
    return str(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].base_model_prefix)
