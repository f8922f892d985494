"""A dual encoder as a two-tower model of transformers: config, safetensors, image processor, tokenizer.

Only models whose both encoders are the two sides of one kind of two-tower model have this form: transformers' other
way of joining two encoders reads a text model's own pooled output, which none of our poolings is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.export.fold_heads import Affine, affine_or_zero
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.obstacles import Obstacles
from vlkit.parts.building import weightless
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.hf_text import HfTextEncoder
from vlkit.parts.tokenizers import save_tokenizer

_ELSE = "use --format open_clip, or keep vlkit's own format"


def write_transformers(model: DualEncoder, folder: Path) -> list[str]:
    """Writes the files of a transformers model in hub layout.

    The encoders are the two sides of one kind of two-tower model (CLIP, SigLIP, Chinese-CLIP, AltCLIP,
    VisionTextDualEncoder, ...), as ``load`` gives them; the folder exists and is empty.

    Returns:
        What the other format cannot say, one sentence each.

    Raises:
        VlkitError: Something of the model has no place in transformers; the message names it and the alternative.
    """
    obstacles = Obstacles()
    heads = {side: affine_or_zero(model, side, obstacles) for side in ("image", "text")}
    with obstacles.met():
        image, text = _sides(model)
    obstacles.refuse()
    config = copy.deepcopy(image.config)
    config.text_config = copy.deepcopy(text.config.text_config)
    config.dtype = "float32"
    state = image.model.state_dict() | text.model.state_dict()
    state = {name: tensor.detach().float().cpu() if tensor.is_floating_point() else tensor.cpu()
             for name, tensor in state.items()}  # fmt: skip
    for side, name, encoder in (("image", "visual_projection", image), ("text", "text_projection", text)):
        with obstacles.met():
            _fold(state, heads[side], name, part=encoder.model, side=side)
    obstacles.refuse()
    if hasattr(config, "projection_dim"):
        config.projection_dim = model.embed_dim
    notes = _add_similarity(model, state, config)
    whole = _build(config, state)
    whole.save_pretrained(str(folder))
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    image.processor.save_pretrained(str(folder))
    save_tokenizer(text.tokenizer.tokenizer, folder, prefix=text.tokenizer.prefix)
    if image.options:
        notes.append(
            f"the images are of another size than the model was made for: call it with "
            f"{', '.join(f'{key}={value}' for key, value in image.options.items())}"
        )
    return notes


def _sides(model: DualEncoder) -> tuple[HfImageEncoder, HfTextEncoder]:
    image, text = model.image, model.text
    obstacles = Obstacles()
    for side, encoder, kind in (("image", image, HfImageEncoder), ("text", text, HfTextEncoder)):
        if not isinstance(encoder, kind) or not encoder.projects:
            obstacles.found.append(
                f"{side}: transformers takes the two sides of a CLIP-type model of its own, and this is a "
                f"{type(encoder).__name__}"
                f"{' with a pooling of ours' if isinstance(encoder, kind) else ''}: {_ELSE}"
            )
    obstacles.refuse()
    if image.config.model_type != text.config.model_type or not hasattr(text.config, "text_config"):  # type: ignore[attr-defined]
        raise VlkitError(
            f"the sides are of two kinds of models, {image.config.model_type!r} and "  # type: ignore[attr-defined]
            f"{text.config.model_type!r}, and transformers' models are of one: {_ELSE}"  # type: ignore[attr-defined]
        )
    return image, text  # type: ignore[return-value]


def _fold(state: dict[str, Tensor], head: Affine | None, name: str, *, part: nn.Module, side: str) -> None:
    if head is None:
        return
    projection = getattr(part, name, None)
    if not isinstance(projection, nn.Linear):
        raise VlkitError(f"{side}: {type(part).__name__} ends in no linear map that could take {side}_head: {_ELSE}")
    folded = head.after(Affine.of(projection))
    if folded.bias_E is not None and projection.bias is None:
        raise VlkitError(f"{side}_head has a bias or centres, and {name} of {type(part).__name__} has none: {_ELSE}")
    folded.put(state, name)


def _add_similarity(model: DualEncoder, state: dict[str, Tensor], config: Any) -> list[str]:
    with torch.device("meta"):
        own = _plain_class(config)(copy.deepcopy(config)).state_dict()
    state["logit_scale"] = model.scale.detach().cpu().log().reshape(own["logit_scale"].shape)
    bias = None if model.bias is None else model.bias.detach().float().cpu()
    if "logit_bias" in own:
        state["logit_bias"] = (torch.zeros(()) if bias is None else bias).reshape(own["logit_bias"].shape)
    elif bias is not None:
        return [
            f"the similarity bias {float(bias):.4g} is lost, {_plain_class(config).__name__} has none; embeddings and "
            f"rankings do not change"
        ]
    return []


def _build(config: Any, state: dict[str, Tensor]) -> Any:
    with weightless(saved=True, empty=False):
        whole = _plain_class(config)(config)
    try:
        whole.load_state_dict(state)
    except RuntimeError as error:
        raise VlkitError(f"transformers cannot take the weights: {error}; {_ELSE}") from error
    return whole.eval()


def _plain_class(config: Any) -> Any:
    from transformers import MODEL_MAPPING

    return MODEL_MAPPING[type(config)]
