"""A dual encoder as an open_clip model: ``open_clip_config.json``, ``open_clip_model.safetensors``, tokenizer files.

The two sides are translated apart: towers of open_clip's own as they are, timm models and transformers encoders as the
towers that open_clip wraps around them. Linear heads become the towers' last projections.

Shapes: D tower width, E embedding width.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.export.fold_heads import Affine, absorb, affine_or_zero
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.weights import write_tensors
from vlkit.obstacles import Obstacles
from vlkit.parts.hf_text import HfTextEncoder
from vlkit.parts.open_clip_parts import OpenClipImageEncoder, OpenClipTextEncoder
from vlkit.parts.timm_image import TimmImageEncoder
from vlkit.parts.tokenizers import save_tokenizer

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_KEEP = "keep vlkit's own format"
# where a transformers encoder's last layer norm is: a shift of its bias is a shift of the pooled features
_LAST_NORM = {
    "bert": "encoder.layer.{last}.output.LayerNorm.bias",
    "roberta": "encoder.layer.{last}.output.LayerNorm.bias",
    "xlm-roberta": "encoder.layer.{last}.output.LayerNorm.bias",
    "m2m_100": "layer_norm.bias",
}


@dataclass
class _Tower:
    """One tower: its section of the config, its tensors, and what the whole model has to know of it."""

    config: dict[str, Any]  # ``vision_cfg`` or ``text_cfg``
    state: dict[str, Tensor]
    quick_gelu: bool | None = None  # None where its activations are not to be chosen
    custom: bool = True  # of texts: a module of its own, not spread over open_clip's first model class
    preprocess: dict[str, Any] = field(default_factory=dict)  # of images
    notes: list[str] = field(default_factory=list)  # what open_clip cannot say


def write_open_clip(model: DualEncoder, folder: Path) -> list[str]:
    """Writes the files of an open_clip model in hub layout.

    The encoders are those of open_clip, timm (images) or transformers (texts); the folder exists and is empty.

    Returns:
        What the other format cannot say, one sentence each.

    Raises:
        VlkitError: Something of the model has no place in open_clip; the message names all of it and the alternatives.
    """
    obstacles = Obstacles()
    with obstacles.met():
        image = _image_side(model, affine_or_zero(model, "image", obstacles))
    with obstacles.met():
        text = _text_side(model, folder, affine_or_zero(model, "text", obstacles))
    obstacles.refuse()
    config: dict[str, Any] = {"embed_dim": model.embed_dim, "vision_cfg": image.config, "text_cfg": text.config}
    choices = {side.quick_gelu for side in (image, text)} - {None}
    if len(choices) > 1:
        raise VlkitError(f"one tower uses QuickGELU and the other does not, and open_clip has one switch: {_KEEP}")
    config |= {"quick_gelu": True} if True in choices else {}
    config |= {"custom_text": True} if text.custom else {}
    config |= {} if model.bias is None else {"init_logit_bias": float(model.bias.detach())}
    content = {"model_cfg": config, "preprocess_cfg": image.preprocess}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    state = {f"visual.{name}": tensor for name, tensor in image.state.items()}
    state |= {f"text.{name}" if text.custom else name: tensor for name, tensor in text.state.items()}
    state["logit_scale"] = model.scale.detach().log()
    if model.bias is not None:
        state["logit_bias"] = model.bias.detach()
    plain = {name: (x.float() if x.is_floating_point() else x).clone() for name, x in state.items()}
    write_tensors(plain, folder / WEIGHTS, metadata={"format": "pt"})
    return [*image.notes, *text.notes]


def name_text_tower(folder: Path, name: str) -> None:
    """Sets where open_clip finds the configuration of a transformers text tower: a folder or a hub name."""
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    text = content["model_cfg"]["text_cfg"]
    if "hf_model_name" in text:
        text["hf_model_name"] = text["hf_tokenizer_name"] = name
        (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _image_side(model: DualEncoder, head: Affine | None) -> _Tower:
    encoder = model.image
    if isinstance(encoder, OpenClipImageEncoder):
        return _open_clip_image(encoder, head)
    if isinstance(encoder, TimmImageEncoder):
        return _timm_image(encoder, head)
    raise VlkitError(
        f"image: open_clip has no tower for a {type(encoder).__name__}; it takes encoders of open_clip and timm: "
        f"{_KEEP}, or for a CLIP-type model of transformers use --format transformers"
    )


def _text_side(model: DualEncoder, folder: Path, head: Affine | None) -> _Tower:
    encoder = model.text
    if isinstance(encoder, OpenClipTextEncoder):
        return _open_clip_text(encoder, head, folder)
    if isinstance(encoder, HfTextEncoder):
        return _hf_text(encoder, head, folder, embed_dim=model.embed_dim)
    raise VlkitError(
        f"text: open_clip has no tower for a {type(encoder).__name__}; it takes encoders of open_clip and of "
        f"transformers: {_KEEP}"
    )


def _open_clip_image(encoder: OpenClipImageEncoder, head: Affine | None) -> _Tower:
    config = copy.deepcopy(encoder.config.model_cfg)
    vision, tower = config["vision_cfg"], encoder.tower
    vision.pop("output_tokens", None)
    native = "timm_model_name" not in vision and isinstance(vision.get("layers", 12), int)
    side = _Tower(vision, dict(tower.state_dict()), quick_gelu=config.get("quick_gelu", False) if native else None)
    side.preprocess = encoder.config.preprocess_cfg
    if "multimodal_cfg" in config:
        side.notes.append("the caption decoder of CoCa is no part of the two towers and is left out")
    if head is None:
        return side
    if isinstance(getattr(tower, "proj", None), Tensor):
        _fold_matrix(side.state, "proj", head, norm="ln_post.bias", what="image_head")
        return side
    last = next((name for name in ("head.proj", "head.mlp.fc2", "attnpool.c_proj") if _has(tower, name)), None)
    if last is not None:
        linear: Any = tower.get_submodule(last)
        bias = head.after(Affine.of(linear)).put(side.state, last)
        if last.startswith("head."):
            vision["timm_proj_bias"] = bias
    elif vision.get("timm_proj") == "none":
        vision["timm_proj"] = "linear"
        vision["timm_proj_bias"] = head.put(side.state, "head.proj")
    else:
        raise VlkitError(f"image: no projection is known in {type(tower).__name__} to take the linear head: {_KEEP}")
    return side


def _timm_image(encoder: TimmImageEncoder, head: Affine | None) -> _Tower:
    model: Any = encoder.model
    pool = model.global_pool if isinstance(model.global_pool, str) else model.global_pool.pool_type
    vision: dict[str, Any] = {
        "image_size": encoder.image_size,
        "timm_model_name": encoder.architecture,
        "timm_model_pretrained": False,
        "timm_pool": pool if head is None else "",
        "timm_proj": "none" if head is None else "linear",
    }
    state = _trunk(encoder, {} if head is not None else {"num_classes": 0, "global_pool": pool})
    side = _Tower(vision, {f"trunk.{name}": tensor for name, tensor in state.items()})
    if head is not None:
        vision["timm_proj_bias"] = head.put(side.state, "head.proj")
    side.preprocess, side.notes = _timm_preprocess(encoder)
    return side


def _trunk(encoder: TimmImageEncoder, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of the model as open_clip will build it: by its architecture's name alone, without a classifier."""
    import timm

    with torch.device("meta"):
        plain: Any = timm.create_model(encoder.architecture, pretrained=False, **arguments)
        plain.reset_classifier(0)
    state, wanted = encoder.model.state_dict(), plain.state_dict()
    wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if wrong or int(plain.num_features) != encoder.width:
        first = wrong[0] if wrong else "its width"
        raise VlkitError(
            f"image: open_clip builds {encoder.architecture} as timm's name alone says, and then {first} is another; "
            f"this model has image_size = {encoder.image_size} or other arguments of its own: {_KEEP}"
        )
    return {name: state[name] for name in wanted}


def _timm_preprocess(encoder: TimmImageEncoder) -> tuple[dict[str, Any], list[str]]:
    data = encoder.data_config
    modes = {"center": "shortest", "squash": "squash", "border": "longest"}
    mode, share = modes.get(data.get("crop_mode", "center"), "shortest"), float(data.get("crop_pct") or 1)
    smooth = data["interpolation"] if data["interpolation"] in ("bicubic", "bilinear") else "bicubic"
    preprocess = {
        "size": encoder.image_size, "mean": list(data["mean"]), "std": list(data["std"]), "interpolation": smooth,
        "resize_mode": mode,
    }  # fmt: skip
    notes = []
    if share != 1 or smooth != data["interpolation"] or mode == "longest":
        notes.append(
            f"preprocessing differs: here images are resized to {encoder.image_size / share:.0f} "
            f"({data['interpolation']}) and the middle {encoder.image_size} pixels taken (crop_pct = {share:g}, "
            f"crop_mode = {data.get('crop_mode', 'center')!r}), which open_clip cannot do: it resizes to "
            f"{encoder.image_size} ({smooth}); equal pixels give equal features"
        )
    return preprocess, notes


def _open_clip_text(encoder: OpenClipTextEncoder, head: Affine | None, folder: Path) -> _Tower:
    config = copy.deepcopy(encoder.config.model_cfg)
    text, tower = config["text_cfg"], encoder.tower
    text.pop("output_tokens", None)
    native = "hf_model_name" not in text
    side = _Tower(text, dict(tower.state_dict()), quick_gelu=config.get("quick_gelu", False) if native else None)
    side.custom = not native or bool(config.get("custom_text", False))
    if encoder.hf_tokenizer is not None:
        text.setdefault("hf_tokenizer_name", encoder.spec.name)
        save_tokenizer(encoder.hf_tokenizer, folder)
    if not native:
        part: Any = tower
        _save_text_config(part.config, folder)
        text["hf_model_name"] = str(folder)
        text["hf_model_pretrained"] = False
    if head is None:
        return side
    last = next((name for name in ("text_projection", "proj.2", "proj") if _has(tower, name)), None)
    if last is not None:
        linear: Any = tower.get_submodule(last)
        folded = head.after(Affine.of(linear))
        if folded.bias_E is not None and linear.bias is None:
            if last != "proj" or "transformer.pooler.dense.weight" in side.state:
                raise VlkitError(f"text_head has a bias, and open_clip's {type(tower).__name__} has no place: {_KEEP}")
            folded = _absorb(side.state, folded, part.config)
        folded.put(side.state, last)
    elif isinstance(getattr(tower, "text_projection", None), Tensor):
        _fold_matrix(side.state, "text_projection", head, norm="ln_final.bias", what="text_head")
    else:
        raise VlkitError(f"text: no projection is known in {type(tower).__name__} to take the linear head: {_KEEP}")
    return side


def _hf_text(encoder: HfTextEncoder, head: Affine | None, folder: Path, *, embed_dim: int) -> _Tower:
    from open_clip.hf_configs import arch_dict

    spec, kind = encoder.spec, str(encoder.config.model_type)
    poolers = {"mean": "mean_pooler", "cls": "cls_last_hidden_state_pooler"}
    problems = [
        (kind not in arch_dict, f"open_clip takes text encoders of the types {', '.join(arch_dict)}, not {kind!r}"),
        (spec.pooling not in poolers, f"open_clip pools by mean or cls, not by {spec.pooling!r}"),
        (spec.layers != (-1,), f"open_clip reads the last layer alone, not layers = {list(spec.layers)}"),
        (encoder.tokenizer.tokenizer.pad_token_id is None, "open_clip tells padding by its id, and there is no pad id"),
    ]
    obstacles = Obstacles()
    obstacles.found += [f"text: {why}: {_KEEP}" for wrong, why in problems if wrong]
    obstacles.refuse()
    state = {f"transformer.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    config = copy.deepcopy(encoder.config)
    config.pad_token_id = encoder.tokenizer.tokenizer.pad_token_id  # open_clip's mask is where this id is not
    _save_text_config(config, folder)
    save_tokenizer(encoder.tokenizer.tokenizer, folder, prefix=encoder.tokenizer.prefix)
    text = {
        "context_length": encoder.tokenizer.max_length, "hf_model_name": str(folder), "hf_model_pretrained": False,
        "hf_tokenizer_name": str(folder), "hf_pooler_type": poolers[spec.pooling], "hf_proj_type": "linear",
    }  # fmt: skip
    head = head or Affine(torch.eye(embed_dim), None)
    (head if head.bias_E is None else _absorb(state, head, config)).put(state, "proj")
    return _Tower(text, state)


def _absorb(state: dict[str, Tensor], head: Affine, config: Any) -> Affine:
    """Moves a head's bias into the last layer norm of a transformers tower, whose projection has none."""
    kind = str(config.model_type)
    if kind not in _LAST_NORM:
        raise VlkitError(f"text_head has a bias or centres, which a {kind} tower of open_clip cannot take: {_KEEP}")
    norm = "transformer." + _LAST_NORM[kind].format(last=int(config.num_hidden_layers) - 1)
    state[norm] = state[norm].cpu() + absorb(head, what="text_head")
    return Affine(head.weight_ED, None)


def _fold_matrix(state: dict[str, Tensor], name: str, head: Affine, *, norm: str, what: str) -> None:
    """A projection kept as a bare matrix [D, E] after a layer norm, whose bias takes what the head adds."""
    folded = head.after(Affine(state[name].float().cpu().T, None))
    state[norm] = state[norm].cpu() + absorb(folded, what=what)
    state[name] = folded.weight_ED.T


def _save_text_config(config: Any, folder: Path) -> None:
    config = copy.deepcopy(config)
    config.dtype = "float32"  # else open_clip builds the tower in the type its weights once came in
    config.save_pretrained(str(folder))


def _has(tower: nn.Module, name: str) -> bool:
    return isinstance(dict(tower.named_modules()).get(name), nn.Linear)
