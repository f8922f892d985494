"""Image encoders in the form of BLIP-2's: a pre-norm vision transformer with a class token and one norm at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import VlkitError, some
from vlkit.models.vision_language.export.into_transformers import ELSE
from vlkit.obstacles import Obstacles
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.timm_image import TimmImageEncoder

_KIND = "blip_2_vision_model"
_TIMM = {"cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding"}
_PATCHES = re.compile(r"patch_embed\.proj\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(norm1|norm2|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)")
_QKV = re.compile(r"blocks\.(\d+)\.attn\.(qkv\.weight|qkv\.bias|q_bias|v_bias)")
_BELOW = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.projection", "mlp.fc1": "mlp.fc1",
          "mlp.fc2": "mlp.fc2"}  # fmt: skip
_BEHIND = re.compile(r"(head|fc_norm|norm)\.")  # what a classifier has behind the blocks


@dataclass
class BlipVision:
    """What stands in a BLIP-2 for an image encoder and the norm behind it."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    processor: Any
    notes: list[str] = field(default_factory=list)


def blip_vision(encoder: HfImageEncoder | TimmImageEncoder, image_norm: nn.LayerNorm | None) -> BlipVision:
    """The image encoder and the norm of image tokens that a Q-Former may begin with, as one.

    Raises:
        VlkitError: BLIP-2 has no such encoder; the message says why.
    """
    obstacles = Obstacles()
    if not encoder.spec.extra_tokens:
        obstacles.found.append(
            f"encoder: a Q-Former of BLIP-2 sees the class token, and this model was made without "
            f"(extra_tokens: true): {ELSE}"
        )
    if isinstance(encoder, TimmImageEncoder):
        return _of_timm(encoder, image_norm, obstacles)
    return _of_transformers(encoder, image_norm, obstacles)


def _of_transformers(encoder: HfImageEncoder, image_norm: nn.LayerNorm | None, obstacles: Obstacles) -> BlipVision:
    kind, layers = encoder.config.model_type, encoder.spec.layers
    reasons = [
        (
            kind != _KIND,
            f"encoder: BLIP-2's is a {_KIND}, and this is a {kind}; take the one of a BLIP-2 folder (encoder: "
            f"{{kind: hf, name: FOLDER, extra_tokens: true}}): {ELSE}",
        ),
        (layers != (-1,), f"encoder: BLIP-2 reads its last layer, not layers = {list(layers)}: {ELSE}"),
        (
            image_norm is not None,
            f"bridge: with norm_image = true the image tokens are normed a second time, which BLIP-2 cannot: {ELSE}",
        ),
    ]
    obstacles.found += [why for wrong, why in reasons if wrong]
    obstacles.refuse()
    found = BlipVision(encoder.config.to_dict(), dict(encoder.vision.state_dict()), encoder.processor)
    if options := ", ".join(f"{key}={value}" for key, value in encoder.options.items()):
        found.notes.append(
            f"the images are of another size than the encoder was made for: call the model with {options}"
        )
    return found


def _of_timm(encoder: TimmImageEncoder, image_norm: nn.LayerNorm | None, obstacles: Obstacles) -> BlipVision:
    """Of a vision transformer, EVA's too: the blocks up to the one that is read, and the norm of model or bridge."""
    layers, model = encoder.spec.layers, encoder.model
    blocks: Any = getattr(model, "blocks", ())
    last = layers in ((-1,), (len(blocks),))
    norm = getattr(model, "norm", None) if last else image_norm
    if len(layers) != 1 or not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        obstacles.found.append(
            f"encoder: BLIP-2 reads one layer of a vision transformer, not layers = {list(layers)} of a "
            f"{type(model).__name__}: {ELSE}"
        )
    if not isinstance(norm, nn.LayerNorm) or (last and image_norm is not None):
        obstacles.found.append(
            f"bridge: BLIP-2 norms image tokens once, behind its encoder; norm_image must be {str(not last).lower()} "
            f"where layers = {list(layers)}: {ELSE}"
        )
    obstacles.refuse()
    depth = layers[0] if layers[0] > 0 else len(blocks) + 1 + layers[0]
    state = _renamed(model.state_dict(), depth=depth, what=type(model).__name__)
    for name, tensor in () if norm is None else norm.state_dict().items():
        state[f"post_layernorm.{name}"] = tensor
    first, patch = blocks[0], state["embeddings.patch_embedding.weight"].shape[-1]
    config = {
        "hidden_size": state["embeddings.class_embedding"].shape[-1],
        "intermediate_size": len(state["encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": depth,
        "num_attention_heads": first.attn.num_heads,
        "image_size": encoder.image_size,
        "patch_size": patch,
        "layer_norm_eps": first.norm1.eps,
    }
    return BlipVision(config, state, _processor(encoder.data_config, size=encoder.image_size))


def _renamed(state: Mapping[str, Tensor], *, depth: int, what: str) -> dict[str, Tensor]:
    """The tensors of a timm model by the names of BLIP-2's; of blocks before ``depth`` alone.

    Raises:
        VlkitError: It has others than a plain vision transformer.
    """
    found: dict[str, Tensor] = {}
    attention: dict[str, dict[str, Tensor]] = {}
    strange = []
    for name, tensor in state.items():
        if (block := re.match(r"blocks\.(\d+)\.", name)) and int(block[1]) >= depth:
            continue
        if name in _TIMM:
            found[_TIMM[name]] = tensor
        elif patches := _PATCHES.fullmatch(name):
            found[f"embeddings.patch_embedding.{patches[1]}"] = tensor
        elif part := _BLOCK.fullmatch(name):
            found[f"encoder.layers.{part[1]}.{_BELOW[part[2]]}.{part[3]}"] = tensor
        elif qkv := _QKV.fullmatch(name):
            attention.setdefault(qkv[1], {})[qkv[2]] = tensor
        elif not _BEHIND.match(name):
            strange.append(name)
    if strange or "embeddings.class_embedding" not in found:
        why = f"it has {some(strange, most=3)}" if strange else "it has no class token"
        raise VlkitError(f"encoder: BLIP-2's is a plain vision transformer, and this is a {what}: {why}: {ELSE}")
    for number, parts in attention.items():
        weight = parts["qkv.weight"]
        none = weight.new_zeros(len(weight) // 3)
        apart = torch.cat([parts.get("q_bias", none), none, parts.get("v_bias", none)])  # EVA's keys have none
        found[f"encoder.layers.{number}.self_attn.qkv.weight"] = weight
        found[f"encoder.layers.{number}.self_attn.qkv.bias"] = parts.get("qkv.bias", apart)
    return found


def _processor(data: Mapping[str, Any], *, size: int) -> Any:
    """An image processor of transformers that squashes images to a square, as BLIP-2's does."""
    from PIL.Image import Resampling
    from transformers import BlipImageProcessor

    smooth = {"bilinear": Resampling.BILINEAR, "nearest": Resampling.NEAREST}
    return BlipImageProcessor(
        size={"height": size, "width": size},
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
        resample=smooth.get(data["interpolation"], Resampling.BICUBIC),
    )
