"""Texts to one embedding a layer, with the states of one batch in memory at a time.

N texts, B batch, D width of a layer, E embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.alignment.hidden_states import LayeredText
from vlkit.evaluation.alignment.pooling import Pooling, pool_tokens
from vlkit.evaluation.embed.encode import evaluating
from vlkit.evaluation.embed.encoding import at_least_one
from vlkit.progress import Bar
from vlkit.types import ImageTextModel, TextBatch


@dataclass(frozen=True)
class LayerEmbeddings:
    """Embeddings of N texts, float32, on the CPU.

    Attributes:
        layers: By pooling and name of the layer, embedding_ND.
        projected_NE: The model's own, L2-normalised; None where it has none.
        n_cut: Texts of which the tokenizer left the end out.
    """

    layers: Mapping[tuple[Pooling, str], Tensor]
    projected_NE: Tensor | None
    n_cut: int


def embed_layers(
    text: LayeredText,
    texts: Sequence[str],
    *,
    wanted: Mapping[Pooling, Sequence[str]],
    language: str | None = None,
    batch_size: int = 32,
    shown: Bar | None = None,
) -> LayerEmbeddings:
    """Embeddings of texts of one language, in their order.

    Equal texts are run once, and texts of like length together.

    Args:
        text: Which model.
        texts: In any order; none of them blank.
        wanted: For each pooling the names of the layers it is wanted of.
        language: BCP 47 tag, for tokenizers that need it.
        batch_size: Texts a forward pass.
        shown: Is told of each text that is done.

    Raises:
        UnknownName: A layer that the model does not give.
        VlkitError: No texts.
    """
    _check(text, texts, wanted, batch_size=batch_size)
    length_of = _lengths(text, texts)
    order = sorted(length_of, key=lambda one: (length_of[one], one))
    blocks: dict[tuple[Pooling, str], list[Tensor]] = {
        (pooling, name): [] for pooling, names in wanted.items() for name in names
    }
    projected: list[Tensor] = []
    cut: set[str] = set()
    repeats = Counter(texts)
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


def _check(
    text: LayeredText, texts: Sequence[str], wanted: Mapping[Pooling, Sequence[str]], *, batch_size: int
) -> None:
    at_least_one("batch_size", batch_size)
    if not texts:
        raise VlkitError("no texts to embed; give at least one")
    for name in {name for names in wanted.values() for name in names}:
        if name not in text.layers:
            raise UnknownName("layer", name, allowed=text.layers, hint=text.note)


def _lengths(text: LayeredText, texts: Sequence[str]) -> dict[str, int]:
    """Tokens of each text; bytes where they cannot be counted."""
    distinct = list(dict.fromkeys(texts))
    rows = text.pieces(distinct) if text.pieces else [one.encode() for one in distinct]
    return dict(zip(distinct, map(len, rows), strict=True))
