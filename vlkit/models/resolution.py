"""A trained model whose image encoder goes on with images of another size.

Shapes: N positions, D width.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.adapt.inject import adapter_of, add_adapter
from vlkit.errors import VlkitError
from vlkit.models.locate import SPEC
from vlkit.parts.encoders import build_image_encoder
from vlkit.paths import local_path
from vlkit.types import ImageEncoder, Model, TakesSizes, as_module


def at_size(model: Model, size: int) -> None:
    """Gives the image encoder of a loaded model square inputs of ``size`` pixels, in place.

    Learned positions are interpolated to the new grid (bicubic, antialiased), as timm does; all other weights stay.

    Raises:
        VlkitError: The model came from no folder of vlkit's, or its image encoder takes no other size.
    """
    if isinstance(model, TakesSizes):
        model.at_size(size)
        return
    for name, part in model.parts().items():
        if not isinstance(part, ImageEncoder) or part.image_size == size:
            continue
        spec: Any = getattr(part, "spec", None)
        folder = local_path(model.loaded_from or "")
        if not (folder / SPEC).is_file() or "image_size" not in type(spec).model_fields:
            raise VlkitError(
                f"model.image_size = {size}: the {type(part).__name__} of {model.loaded_from} takes no other size than "
                f"{part.image_size}; name a model folder of vlkit's with an encoder of timm or transformers"
            )
        setattr(as_module(model), name, _resized(part, spec.model_copy(update={"image_size": size}), folder / name))


def _resized(old: Any, spec: Any, folder: Path) -> nn.Module:
    new: Any = build_image_encoder(spec, saved=folder)
    if (adapter := adapter_of(old)) is not None:
        add_adapter(new, adapter)
    held, wanted = old.state_dict(), new.state_dict()
    counts = (old.num_tokens(old.image_size), new.num_tokens(new.image_size))
    state = {name: _fitted(held[name], tensor, counts) for name, tensor in wanted.items()}
    new.load_state_dict(state)
    moved: nn.Module = new.to(next(old.parameters()).device).train(old.training)
    return moved


def _fitted(tensor: Tensor, wanted: Tensor, counts: tuple[int, int]) -> Tensor:
    """Positions at a grid of another number of tokens; all else as it is. Class and register tokens stand first."""
    if tensor.shape == wanted.shape:
        return tensor
    place = next(at for at, (a, b) in enumerate(zip(tensor.shape, wanted.shape, strict=True)) if a != b)
    first, sides = tensor.shape[place] - counts[0], [math.isqrt(count) for count in counts]
    if first < 0 or wanted.shape[place] - counts[1] != first or [side**2 for side in sides] != list(counts):
        raise VlkitError(
            f"model.image_size: positions of shape {list(tensor.shape)} cannot be interpolated to {list(wanted.shape)}"
        )
    rows_ND = tensor.movedim(place, 0)
    grid = rows_ND[first:].float().reshape(1, sides[0], sides[0], -1).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic", antialias=True)
    new_ND = grid.permute(0, 2, 3, 1).reshape(counts[1], *rows_ND.shape[1:]).to(tensor.dtype)
    return torch.cat([rows_ND[:first], new_ND]).movedim(0, place)
