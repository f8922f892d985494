"""The Q-Former: learned queries that look at an image, in a transformer of BERT's form that can read text as well.

Source: BLIP-2 (arXiv 2301.12597, section 3.1). Queries and text share the self-attention and its norms; each has
feed-forward layers of its own, and the queries alone look at the image, in every ``cross_every``-th layer from the
first on. All is post-norm, as in BERT (1810.04805): branch, dropout, sum, LayerNorm.

Shapes: B batch, N image tokens, T their width, M queries, L text length, S what is looked at, W inner width, E model
width, V vocabulary, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import ShapeError
from vlkit.nn.multiway import INIT_STD, Recomputing
from vlkit.nn.projections import BaseBridge

_EPS = 1e-12  # BERT's
_IMAGE_EPS = 1e-6  # as transformers holds BLIP-2's norm over image tokens; LAVIS has 1e-5


class Mixing(nn.Module):
    """Multi-head attention, dropout, sum with what looks, LayerNorm. ``source_width`` is that of what is looked at."""

    def __init__(self, width: int, heads: int, *, source_width: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ShapeError(f"width = {width} is no multiple of heads = {heads}; change one of them")
        self.heads, self.share = heads, dropout
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(source_width, width), nn.Linear(source_width, width)
        self.out, self.dropout, self.norm = nn.Linear(width, width), nn.Dropout(dropout), nn.LayerNorm(width, eps=_EPS)

    def forward(self, x_BLW: Tensor, source_BSC: Tensor, sees_B1LS: Tensor | None = None) -> Tensor:
        """Tokens to tokens; where ``sees`` is false, token l does not look at s."""
        query, key, value = (
            one(of).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for one, of in ((self.query, x_BLW), (self.key, source_BSC), (self.value, source_BSC))
        )
        share = self.share if self.training else 0.0
        mixed_BhLd = F.scaled_dot_product_attention(query, key, value, attn_mask=sees_B1LS, dropout_p=share)
        result_BLW: Tensor = self.norm(x_BLW + self.dropout(self.out(mixed_BhLd.transpose(1, 2).flatten(2))))
        return result_BLW


class FeedForward(nn.Module):
    """Linear, GELU, linear, dropout, sum, LayerNorm."""

    def __init__(self, width: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(width, eps=_EPS)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Tokens to tokens."""
        result_BLW: Tensor = self.norm(x_BLW + self.dropout(self.down(F.gelu(self.up(x_BLW)))))
        return result_BLW


class QueryLayer(nn.Module):
    """Self-attention of queries and text, attention of the queries to the image, feed-forward of the queries.

    ``image_width`` is T where the queries look at the image in this layer, else None.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, image_width: int | None, dropout: float) -> None:
        super().__init__()
        self.attention = Mixing(width, heads, source_width=width, dropout=dropout)
        self.cross = None if image_width is None else Mixing(width, heads, source_width=image_width, dropout=dropout)
        self.ffn = FeedForward(width, hidden, dropout=dropout)

    def forward(
        self,
        x_BLW: Tensor,
        source_BSW: Tensor,
        image_BNT: Tensor | None,
        *,
        queries: int,
        sees_B1LS: Tensor | None,
        text_ffn: FeedForward | None,
    ) -> Tensor:
        """Tokens to tokens; the first ``queries`` of them are queries, the others text.

        ``source_BSW`` is what the self-attention looks at, ``sees_B1LS`` is false where it does not.
        """
        x_BLW = self.attention(x_BLW, source_BSW, sees_B1LS)
        x_BMW, text_BLW = x_BLW[:, :queries], x_BLW[:, queries:]
        if queries and self.cross is not None:
            x_BMW = self.cross(x_BMW, image_BNT)
        done = [self.ffn(x_BMW)] if queries else []
        if text_ffn is not None:
            done.append(text_ffn(text_BLW))
        return torch.cat(done, dim=1)


class QueryStates(NamedTuple):
    """What queries became, ``last_BMW``, and what they were before each layer, for text that looks at them."""

    last_BMW: Tensor
    before: tuple[Tensor, ...]


class QueryTransformer(BaseBridge, Recomputing):
    """Any number of image tokens to ``num_queries`` model tokens, which learned queries gather.

    Args:
        in_width: T of the image tokens.
        out_width: E of the model tokens.
        num_queries: M.
        width: W inside.
        layers: Transformer layers.
        heads: Attention heads; a divisor of ``width``.
        ffn: Hidden width of the feed-forward layers.
        cross_every: The queries look at the image in every such layer, from the first on.
        dropout: Share of states and attention weights silenced in training.
        norm_image: A LayerNorm over the image tokens first.
    """

    kind = "qformer"

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        num_queries: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        cross_every: int,
        dropout: float,
        norm_image: bool,
    ) -> None:
        super().__init__(in_width, out_width)
        self.width, self.heads = width, heads
        self.image_norm = nn.LayerNorm(in_width, eps=_IMAGE_EPS) if norm_image else None
        # alike, the queries would stay alike for ever: nothing else tells them apart
        self.queries_MW = nn.Parameter(torch.empty(num_queries, width))
        self.norm, self.dropout = nn.LayerNorm(width, eps=_EPS), nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            QueryLayer(
                width,
                heads,
                hidden=ffn,
                image_width=None if place % cross_every else in_width,
                dropout=dropout,
            )
            for place in range(layers)
        )
        self.projection = nn.Linear(width, out_width)
        bert_init(self)
        nn.init.normal_(self.queries_MW, std=INIT_STD)

    def num_tokens(self, count: int) -> int:
        """M, whatever the number of image tokens."""
        return len(self.queries_MW)

    def forward(self, tokens_BNT: Tensor) -> Tensor:
        """tokens_BME."""
        out_BME: Tensor = self.projection(self.query_states(tokens_BNT).last_BMW)
        return out_BME

    def query_states(self, tokens_BNT: Tensor) -> QueryStates:
        """The queries' states of an image, before the projection."""
        image_BNT = tokens_BNT if self.image_norm is None else self.image_norm(tokens_BNT)
        x_BMW = self._entered(self.queries_MW.expand(len(tokens_BNT), -1, -1))
        before = []
        for layer in self.layers:
            before.append(x_BMW)
            x_BMW = self.run(layer, x_BMW, x_BMW, image_BNT, queries=x_BMW.shape[1], sees_B1LS=None, text_ffn=None)
        return QueryStates(x_BMW, tuple(before))

    def _entered(self, x_BLW: Tensor) -> Tensor:
        entered_BLW: Tensor = self.dropout(self.norm(x_BLW))
        return entered_BLW

    def text_states(
        self, text: QueryText, ids_BL: Tensor, mask_BL: Tensor, *, beside: QueryStates | None = None
    ) -> Tensor:
        """states_BLW of a text alone; or, with ``beside``, of a text that is written to an image.

        Alone each token sees all others (of BLIP-2's masks the uni-modal one). Beside queries it sees them and the
        tokens up to itself (the multimodal causal one), while they see none of it, so that they are as they were.
        ``mask_BL`` is 1 for real tokens.
        """
        x_BLW = self._entered(text.embed(ids_BL))
        sees_B1LL = mask_BL[:, None, None, :] > 0
        if beside is not None:
            length, queries = ids_BL.shape[1], beside.last_BMW.shape[1]
            sees_B1LL = sees_B1LL & torch.ones(length, length, dtype=torch.bool, device=ids_BL.device).tril()
            sees_B1LL = F.pad(sees_B1LL, (queries, 0), value=True)
        for place, (layer, ffn) in enumerate(zip(self.layers, text.ffns, strict=True)):
            source_BSW = x_BLW if beside is None else torch.cat([beside.before[place], x_BLW], dim=1)
            x_BLW = self.run(layer, x_BLW, source_BSW, None, queries=0, sees_B1LS=sees_B1LL, text_ffn=ffn)
        return x_BLW

    def joint_states(self, text: QueryText, tokens_BNT: Tensor, *, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """states_BMW of queries that look at an image and a text, which look at them (the bi-directional mask).

        ``mask_BL`` is 1 for real tokens.
        """
        image_BNT = tokens_BNT if self.image_norm is None else self.image_norm(tokens_BNT)
        queries_BMW = self.queries_MW.expand(len(tokens_BNT), -1, -1)
        x_BSW = self._entered(torch.cat([queries_BMW, text.embed(ids_BL)], dim=1))
        queries = queries_BMW.shape[1]
        sees_B11S = F.pad(mask_BL[:, None, None, :] > 0, (queries, 0), value=True)
        for layer, ffn in zip(self.layers, text.ffns, strict=True):
            x_BSW = self.run(layer, x_BSW, x_BSW, image_BNT, queries=queries, sees_B1LS=sees_B11S, text_ffn=ffn)
        return x_BSW[:, :queries]


class QueryText(nn.Module):
    """What a Q-Former needs to read text: embeddings of words and places, and feed-forward layers of the text's own.

    ``vocab_size`` is V, ``max_length`` the longest text, ``hidden`` the width of the feed-forward layers.
    """

    def __init__(
        self, width: int, vocab_size: int, *, max_length: int, layers: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocab_size, width), nn.Embedding(max_length, width)
        self.ffns = nn.ModuleList(FeedForward(width, hidden, dropout=dropout) for _ in range(layers))
        bert_init(self)

    def embed(self, ids_BL: Tensor) -> Tensor:
        """embeddings_BLW of words at their places."""
        places_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        embeddings_BLW: Tensor = self.words(ids_BL) + self.places(places_L)
        return embeddings_BLW


class WordPrediction(nn.Module):
    """States to logits over the vocabulary by the words' own embedding, as BERT's masked words are predicted."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.map, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=_EPS)
        self.bias_V = nn.Parameter(torch.zeros(vocab_size))
        bert_init(self)

    def forward(self, states_RW: Tensor, words_VW: Tensor) -> Tensor:
        """logits_RV."""
        return F.linear(self.norm(F.gelu(self.map(states_RW))), words_VW, self.bias_V)


def bert_init(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and zero biases for all linear maps and embeddings below, as BERT has them."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=INIT_STD)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
