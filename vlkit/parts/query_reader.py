"""What a Q-Former needs beside itself to learn from texts: a tokenizer, layers that read, maps that compare and write.

Shapes: B batch, L text length, M queries, R chosen places, W inner width of the Q-Former, E width of the shared space,
V vocabulary with the start mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor, nn

from vlkit.errors import VlkitError
from vlkit.nn.qformer import QueryText, WordPrediction, bert_init
from vlkit.parts.building import weightless
from vlkit.parts.tokenizers import HfTokenizer, check_texts, named_tokenizer, pad_rows
from vlkit.spec.bridges import QFormerBridgeSpec, QueryTextSpec
from vlkit.types import TextBatch

# ids of the byte-level vocabulary: a byte is its value, then these
_FIRST, _END, _PAD = 256, 257, 258


class QueryReader(nn.Module):
    """Reads texts in the layers of a Q-Former, compares them with its queries, and foretells words.

    The text's feature is the state of its first token, a mark; a text that is written begins with ``start`` instead,
    a row of its own, so that the same states need not do both (BLIP-2's ``[DEC]``).

    Args:
        spec: Tokenizer and sizes.
        bridge: That of the Q-Former, whose layers it reads in.
        embed_dim: E.
        tokenizer: None for bytes, and where nothing is tokenized (shapes alone).
    """

    def __init__(
        self, spec: QueryTextSpec, bridge: QFormerBridgeSpec, *, embed_dim: int, tokenizer: HfTokenizer | None
    ) -> None:
        super().__init__()
        self.spec, self.tokenizer = spec, tokenizer
        self.start = spec.vocab
        self.text = QueryText(
            bridge.width,
            spec.vocab + 1,
            max_length=spec.max_length,
            layers=bridge.layers,
            hidden=bridge.ffn,
            dropout=bridge.dropout,
        )
        self.projection, self.matching = nn.Linear(bridge.width, embed_dim), nn.Linear(bridge.width, 2)
        bert_init(self.projection)
        bert_init(self.matching)
        self.prediction = WordPrediction(bridge.width, spec.vocab + 1)
        if tokenizer is not None:
            self._check_first(tokenizer)

    @classmethod
    def build(
        cls,
        spec: QueryTextSpec,
        bridge: QFormerBridgeSpec,
        *,
        embed_dim: int,
        saved: Path | None = None,
        empty: bool = False,
    ) -> QueryReader:
        """Random weights; the tokenizer is read from ``saved`` where that is given.

        Raises:
            AssetError: There is no such tokenizer.
            VlkitError: It has more tokens than ``vocab``, or begins texts with no mark.
        """
        tokenizer = None
        if spec.tokenizer is not None and not empty:
            tokenizer = named_tokenizer(spec.tokenizer, saved, rows=spec.vocab, max_length=spec.max_length)
        with weightless(saved=saved is not None, empty=empty):
            return cls(spec, bridge, embed_dim=embed_dim, tokenizer=tokenizer)

    def _check_first(self, tokenizer: HfTokenizer) -> None:
        first = int(tokenizer(["a"]).ids_BL[0, 0])
        if first not in tokenizer.tokenizer.all_special_ids:
            raise VlkitError(
                f"{self.spec.tokenizer}: texts must begin with a mark (as BERT's and XLM-R's do), whose state is the "
                f"text's feature, and this tokenizer puts none there; set model.text.tokenizer to another one"
            )

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens, or bytes between marks, cut to ``max_length``.

        Raises:
            DataError: No texts, or one that is no string.
            VlkitError: It was built without its tokenizer.
        """
        if self.tokenizer is not None:
            return self.tokenizer(texts, language=language)
        if self.spec.tokenizer is not None:
            raise VlkitError("this Q-Former holds shapes alone (a dry run) and has no tokenizer")
        rows = [[_FIRST, *text.encode()[: self.spec.max_length - 2], _END] for text in check_texts(texts)]
        return pad_rows(rows, pad_id=_PAD)

    def embedded(self, states_BLW: Tensor) -> Tensor:
        """text_BE of a text's states, L2-normalised."""
        return F.normalize(self.projection(states_BLW[:, 0]).float(), dim=-1)

    def match_logits(self, states_BMW: Tensor) -> Tensor:
        """logits_B2 that a pair does not and does belong together, from the queries' states beside the text."""
        logits_B2: Tensor = self.matching(states_BMW).float().mean(dim=1)
        return logits_B2

    def logits(self, states_RW: Tensor) -> Tensor:
        """logits_RV of the next token."""
        logits_RV: Tensor = self.prediction(states_RW, self.text.words.weight)
        return logits_RV

    def save_config(self, folder: Path) -> None:
        """Writes the tokenizer's files, where there are any."""
        if self.tokenizer is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.tokenizer.save(folder)


def written(ids_BL: Tensor, *, start: int) -> Tensor:
    """ids_BL of texts as they are written: their first token is the mark ``start``."""
    return torch.cat([torch.full_like(ids_BL[:, :1], start), ids_BL[:, 1:]], dim=1)
