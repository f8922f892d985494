"""What both of transformers' forms need: the `<image>` token with a row of its own, and weights put into the model.

Shapes: V vocabulary, E width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.vision_language.export.check import IMAGE_TOKEN
from vlkit.obstacles import Obstacles
from vlkit.parts.building import weightless
from vlkit.parts.hf_language import HfLanguageModel

ELSE = "keep vlkit's own format (vlkit.save)"
_MULTIPLE = 64  # rows of an embedding that is made larger, as transformers advises


def known_parts(
    model: Any,
    obstacles: Obstacles,
    *,
    encoder: tuple[type[nn.Module], ...],
    bridge: type[nn.Module],
    wanted: tuple[str, str],
) -> tuple[Any, Any, HfLanguageModel]:
    """The three parts, where they are of the sorts that transformers has; ``wanted`` are encoder and bridge in words.

    Raises:
        VlkitError: They are not.
    """
    kinds: dict[str, Any] = {"encoder": encoder, "bridge": bridge, "language_model": HfLanguageModel}
    needs = dict(zip(kinds, (*wanted, "a language model of transformers (kind: hf)"), strict=True))
    for name, part in model.parts().items():
        if not isinstance(part, kinds[name]):
            kind = getattr(getattr(part, "spec", None), "kind", type(part).__name__)
            obstacles.found.append(f"{name}: transformers' model has {needs[name]}, and this is of kind {kind}: {ELSE}")
    if getattr(getattr(model.language_model, "spec", None), "quantize", "none") != "none":
        obstacles.found.append(
            f"language_model: its weights are quantized; load it with quantize: none and merge adapters then: {ELSE}"
        )
    obstacles.refuse()
    return model.encoder, model.bridge, model.language_model


@torch.no_grad()
def with_image_token(language_model: HfLanguageModel) -> tuple[Any, Any, int]:
    """The library's language model and its tokenizer with a token for places of images, and its id.

    Rows of the embedding are added where there is none left, up to a multiple of 64. New ones are the mean of all
    others, so that their logits are the mean and never the highest. The language model given is changed.
    """
    whole, tokenizer = language_model.whole, copy.deepcopy(language_model.tokenizer)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        from transformers import AddedToken

        tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
    token = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    rows = language_model.vocab_size
    if token >= rows:
        whole.resize_token_embeddings(-(-(token + 1) // _MULTIPLE) * _MULTIPLE, mean_resizing=False)
        tables = {id(table.weight): table for table in (whole.get_input_embeddings(), whole.get_output_embeddings())}
        for table in tables.values():
            for values in (table.weight, getattr(table, "bias", None)):
                if values is not None:
                    values[rows:] = values[:rows].mean(dim=0)
    return whole, tokenizer, token


def starts_texts(language_model: HfLanguageModel) -> bool:
    """Whether the tokenizer puts its start token before a text."""
    tokenizer = language_model.tokenizer
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def text_config(language_model: HfLanguageModel) -> dict[str, Any]:
    """The language model's configuration, with what ends its texts: the whole model's ``generate`` looks there."""
    settings: dict[str, Any] = language_model.whole.config.to_dict()
    ends = list(language_model.end_ids)
    if ends:
        settings["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if language_model.tokenizer.pad_token_id is not None:
        settings["pad_token_id"] = language_model.tokenizer.pad_token_id
    settings["dtype"] = "float32"
    return settings


def write_whole(model_class: Any, config: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """Writes the whole model.

    Raises:
        VlkitError: The weights do not fit what its configuration describes.
    """
    config.dtype = "float32"
    with weightless(saved=True, empty=False):
        whole = model_class(config)
    plain = {name: tensor.detach().float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    try:
        whole.load_state_dict(plain)
    except RuntimeError as error:
        raise VlkitError(f"transformers cannot take the weights: {error}; {ELSE}") from error
    whole.eval().save_pretrained(str(folder))
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


def prefixed(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The tensors of a module under the name that it has in the whole model."""
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}
