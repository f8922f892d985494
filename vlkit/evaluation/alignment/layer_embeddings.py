"""Texts to one embedding a layer, with the states of one batch in memory at a time.

N texts, B batch, L tokens with padding, D width of a layer, E embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.alignment.hidden_states import LayeredText
from vlkit.evaluation.embed.encode import evaluating
from vlkit.evaluation.embed.encoding import at_least_one
from vlkit.progress import Bar
from vlkit.types import ImageTextModel, TextBatch

Pooling = Literal["weighted", "last", "mean"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True)
class LayerEmbeddings:
    """Embeddings of N texts, float32, on the CPU."""

    layers: Mapping[tuple[Pooling, str], Tensor]
    """By pooling and name of the layer, embedding_ND."""
    projected_NE: Tensor | None
    """The model's own, L2-normalised; None where it has none."""
    n_cut: int
    """Texts of which the tokenizer left the end out."""


def embed_layers(
    text: LayeredText,
    texts: Sequence[str],
    *,
    wanted: Mapping[Pooling, Sequence[str]],
    language: str | None = None,
    batch_size: int = 32,
    shown: Bar | None = None,
) -> LayerEmbeddings:
    """Embeddings of texts of one language, in their order, by the poolings ``wanted`` of the layers of these names.

    Equal texts are run once, and texts of like length together; none may be blank. ``shown`` is told of each text.

    Raises:
        UnknownName: A layer that the model does not give.
        VlkitError: No texts.
    """
    at_least_one("batch_size", batch_size)
    if not texts:
        raise VlkitError("no texts to embed; give at least one")
    for name in {name for names in wanted.values() for name in names}:
        if name not in text.layers:
            raise UnknownName("layer", name, allowed=text.layers, hint=text.note)
    repeats = Counter(texts)
    pieces = text.pieces(list(repeats)) if text.pieces else [one.encode() for one in repeats]
    length_of = dict(zip(repeats, map(len, pieces), strict=True))  # in bytes where tokens cannot be counted
    order = sorted(length_of, key=lambda one: (length_of[one], one))
    blocks: dict[tuple[Pooling, str], list[Tensor]] = {
        (pooling, name): [] for pooling, names in wanted.items() for name in names
    }
    projected: list[Tensor] = []
    cut: set[str] = set()
    with evaluating(cast("ImageTextModel", text.module)) as device:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            tokens = TextBatch(*(part.to(device) for part in text.tokenize(batch, language=language)))
            if text.pieces:
                sizes = tokens.mask_BL.sum(dim=1).tolist()
                cut |= {one for one, size in zip(batch, sizes, strict=True) if size < length_of[one]}
            states = text.states(tokens)
            for (pooling, name), parts in blocks.items():
                state_BLD = states.layers[text.layers.index(name)]
                parts.append(pool_tokens(state_BLD, states.mask_BL, pooling=pooling).cpu())
            if states.projected_BE is not None:
                projected.append(states.projected_BE.float().cpu())
            if shown is not None:
                shown.advance(sum(repeats[one] for one in batch))
    place = {one: row for row, one in enumerate(order)}
    rows_N = torch.tensor([place[one] for one in texts])  # each text's row among the distinct ones
    return LayerEmbeddings(
        layers={key: torch.cat(parts)[rows_N] for key, parts in blocks.items()},
        projected_NE=F.normalize(torch.cat(projected), dim=1)[rows_N] if projected else None,
        n_cut=sum(one in cut for one in texts),
    )


def pool_tokens(states_BLD: Tensor, mask_BL: Tensor, *, pooling: Pooling) -> Tensor:
    """embedding_BD of one layer in float32, wherever the padding (0 in mask_BL) is; NaN for a text without tokens.

    ``weighted`` gives the t-th real token the weight t, counted from 1 (SGPT, Muennighoff 2022, arXiv 2202.08904,
    equation 2; the default of MEXA); ``last`` takes the last real token; ``mean`` weighs all alike.

    Raises:
        UnknownName: No such pooling.
    """
    if pooling not in POOLINGS:
        raise UnknownName("pooling", pooling, allowed=POOLINGS)
    real_BL = mask_BL > 0
    place_BL = real_BL.cumsum(dim=1) * real_BL  # the mask is counted, so that padding on the left moves nothing
    if pooling == "weighted":
        weight_BL = place_BL.float()
    elif pooling == "mean":
        weight_BL = real_BL.float()
    else:
        weight_BL = ((place_BL == place_BL.max(dim=1, keepdim=True).values) & real_BL).float()
    # padding may hold anything, NaN too, which a weight of zero would let through
    states_BLD = torch.where(real_BL[:, :, None], states_BLD.float(), 0.0)
    return torch.einsum("bl,bld->bd", weight_BL, states_BLD) / weight_BL.sum(dim=1, keepdim=True)
