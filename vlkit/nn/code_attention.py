"""Who sees whom where a language model makes an image: text looks back, the image's block looks at all real text.

The rule (Show-o, arXiv 2408.12528, section 3.3, and NeoBabel, 2507.06137), for a place q that looks and a place k that
is looked at:

- a place of text sees real places up to itself;
- a place of the image block sees all real text and the whole block, also in layers whose text looks back no further
  than a window;
- padding is seen by nobody and sees itself alone, so that no row is empty and softmax gives no NaN.

The block stands behind the text; nothing of it is seen by a text, whose states can therefore be kept from step to step.
All forms (bool, added to scores, flex attention) ask ``_allowed``.

Shapes: B images, T text places, M places of the image block (marks around the codes included), L = T + M, R rows that
look: L, or fewer of them at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlkit.errors import ShapeError, VlkitError

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Flex attention's form of a mask: (batch, head, query, key) to whether the query sees the key."""


class CodeLayout(NamedTuple):
    """Which places of a sequence are real, and which belong to the image block; bool [B, L] each."""

    real_BL: Tensor
    image_BL: Tensor

    def positions(self) -> Tensor:
        """The place of each token among the real ones, int64 [B, L] from 0; padding has that of its neighbour before.

        With these a prompt's padding, on whichever side and however long, changes nothing.
        """
        return (self.real_BL.long().cumsum(dim=1) - 1).clamp(min=0)


def text_then_image(mask_BT: Tensor, block: int) -> CodeLayout:
    """The layout of prompts and the ``block`` places of an image behind them.

    ``mask_BT`` is 1 (or true) where a token is real; padding may stand on the left, on the right, or on both.

    Raises:
        ShapeError: A mask of another form, or a block without a place.
    """
    if mask_BT.ndim != 2:
        raise ShapeError(f"the mask of prompts is [B, T], and this one is {list(mask_BT.shape)}")
    if block < 1:
        raise ShapeError(f"block = {block}: an image has 1 place or more")
    text_BT = mask_BT.bool()
    image_BM = text_BT.new_ones((len(text_BT), block))
    return CodeLayout(torch.cat([text_BT, image_BM], dim=1), torch.cat([torch.zeros_like(text_BT), image_BM], dim=1))


def _allowed(
    real_q: Tensor, image_q: Tensor, real_k: Tensor, *, q: Tensor, k: Tensor, window: int | None = None
) -> Tensor:
    """The rule, for any shapes that fit each other."""
    back = k <= q if window is None else (k <= q) & (q - k < window)
    return (real_q & real_k & (back | image_q)) | (q == k)


def sees(layout: CodeLayout, *, rows: int | None = None, window: int | None = None) -> Tensor:
    """Whether row r sees place l, bool [B, 1, R, L] (the form of SDPA's masks: true takes part).

    ``rows`` are the last places that look, as many as are run behind a kept prefix; None takes all. With a ``window``
    text sees so many places, its own the last of them; padding then stands behind the text.

    Raises:
        ShapeError: More rows than places, or none.
    """
    real_BL, image_BL = layout
    k_L = torch.arange(real_BL.shape[1], device=real_BL.device)
    first = _first_row(layout, rows)
    allowed_BRL = _allowed(
        real_BL[:, first:, None],
        image_BL[:, first:, None],
        real_BL[:, None, :],
        q=k_L[first:, None],
        k=k_L[None, :],
        window=window,
    )
    return allowed_BRL.unsqueeze(1)


def added(layout: CodeLayout, dtype: torch.dtype, *, rows: int | None = None, window: int | None = None) -> Tensor:
    """The mask to be added to attention scores, ``dtype`` [B, 1, R, L]: 0 where a place is seen, else very low.

    That is the lowest finite number of the dtype; every row sees a place, so softmax over it gives no NaN in float16,
    bfloat16 and float32 alike.
    """
    allowed_B1RL = sees(layout, rows=rows, window=window)
    nothing = torch.zeros((), dtype=dtype, device=allowed_B1RL.device)
    return torch.where(allowed_B1RL, nothing, torch.finfo(dtype).min)


def mask_mod(layout: CodeLayout, *, rows: int | None = None) -> MaskMod:
    """The rule as flex attention asks for it; see ``sees``."""
    real_BL, image_BL = layout
    first = _first_row(layout, rows)

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = query + first
        return _allowed(real_BL[batch, place], image_BL[batch, place], real_BL[batch, key], q=place, k=key)

    return allowed


def block_mask(layout: CodeLayout, *, rows: int | None = None) -> Any:
    """The ``BlockMask`` of flex attention; blocks that nobody sees are skipped, and no [L, L] mask is held.

    Raises:
        VlkitError: This torch has no flex attention.
    """
    try:
        from torch.nn.attention.flex_attention import create_block_mask
    except ImportError as error:
        raise VlkitError(
            f"flex attention came with torch 2.5, and this is torch {torch.__version__}; update torch, or take another "
            f"form of the mask"
        ) from error
    batch, places = layout.real_BL.shape
    first = _first_row(layout, rows)
    mod, device = mask_mod(layout, rows=rows), layout.real_BL.device
    return create_block_mask(mod, batch, None, places - first, places, device=str(device))


def _first_row(layout: CodeLayout, rows: int | None) -> int:
    places = layout.real_BL.shape[1]
    if rows is not None and not 1 <= rows <= places:
        raise ShapeError(f"rows = {rows}: of {places} places 1 to {places} can look")
    return 0 if rows is None else places - rows
