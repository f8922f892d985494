"""A dual encoder in a user's hands: pictures and sentences as they are, what to call instead, and how it shows itself.

Shapes: N images, T texts, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.foreign import clean
from vlkit.models.image_input import AnImage, listed, read_given
from vlkit.models.trainable import ADAPTER, in_eval, trainable_report

if TYPE_CHECKING:
    from vlkit.models.dual_encoder.model import DualEncoder

_IMAGES, _TEXTS = 32, 128  # of a forward pass
_NAME = 40  # characters of the name of a part that are shown


class Embedded(NamedTuple):
    """Embeddings of what was given, L2-normalised, float32 on the CPU: ``image_NE @ text_TE.T`` are the cosines."""

    image_NE: Tensor | None
    text_TE: Tensor | None


@torch.no_grad()
def embed(
    model: DualEncoder,
    *,
    images: AnImage | Sequence[AnImage] | None,
    texts: str | Sequence[str] | None,
    language: str | None,
) -> Embedded:
    """See ``DualEncoder.embed``."""
    if images is None and texts is None:
        raise VlkitError("embed takes images=[...] (paths, PIL images, arrays), texts=[...] with language=..., or both")
    image_NE = text_TE = None
    with in_eval(model):
        if images is not None:
            given = [read_given(one) for one in listed(images)]
            image_NE = _joined(
                [
                    model.encode_image(
                        torch.stack([model.transform(image) for image in given[start : start + _IMAGES]])
                    )
                    for start in range(0, len(given), _IMAGES)
                ],
                model.embed_dim,
            )
        if texts is not None:
            lines = [_text(one) for one in listed(texts)]
            text_TE = _joined(
                [
                    model.encode_text(model.tokenize(lines[start : start + _TEXTS], language=language))
                    for start in range(0, len(lines), _TEXTS)
                ],
                model.embed_dim,
            )
    return Embedded(image_NE, text_TE)


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise VlkitError(f"embed takes texts as str, not {type(given).__name__}; images go into images=[...]")
    return clean(given)


def _joined(blocks: Sequence[Tensor], width: int) -> Tensor:
    return torch.cat([block.float().cpu() for block in blocks]) if blocks else torch.zeros(0, width)


def refuse_pixels(given: object) -> NoReturn:
    """Says what to call with what is no batch of pixels.

    Raises:
        VlkitError: Always.
    """
    if isinstance(given, Tensor):
        raise VlkitError(
            f"encode_image takes pixels_BCHW, four dimensions, and this is {list(given.shape)}; for one image: "
            f"model.encode_image(pixels[None])"
        )
    raise VlkitError(
        f"encode_image takes pixels_BCHW as model.transform makes them, not {_kind(given)}; for paths and PIL images: "
        f"model.embed(images=[...])"
    )


def refuse_tokens(given: object) -> NoReturn:
    """Says what to call with what are no tokens.

    Raises:
        VlkitError: Always.
    """
    raise VlkitError(
        f"encode_text takes tokens as model.tokenize(texts, language=...) makes them, not {_kind(given)}; for texts: "
        f'model.embed(texts=[...], language="en")'
    )


def _kind(given: object) -> str:
    if isinstance(given, list | tuple) and given:
        return f"a {type(given).__name__} of {type(given[0]).__name__}"
    return f"a {type(given).__name__}"


def summary(model: DualEncoder) -> str:
    """The model in a few lines; ``print(model.image)`` shows all layers of a part."""
    lines = []
    for row in trainable_report(model).rows:
        part = model.parts().get(row.part)
        name = getattr(getattr(part, "spec", None), "name", None) or ""
        what = f"in {row.part.removesuffix(ADAPTER)}" if row.part.endswith(ADAPTER) else ""
        if part is not None:
            what = f"{type(part).__name__} {name if len(name) <= _NAME else '...' + name[-_NAME:]}".strip()
        state = f"{row.trainable:,} train" if row.trainable else "frozen"
        lines.append(f"  {row.part}: " + ", ".join(filter(None, [what, f"{row.parameters:,} parameters", state])))
    return "\n".join([f"{type(model).__name__}(embed_dim={model.embed_dim}", *lines, ")"])
