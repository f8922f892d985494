"""Scores a model on parallel texts: each text is run once, one language at a time.

N lines, D width of a layer, E embedding width.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from vlkit import languages as language_table
from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.alignment.hidden_states import PROJECTED, LayeredText
from vlkit.evaluation.alignment.image_pivot import ImageScores, embed_pivot_images, score_images
from vlkit.evaluation.alignment.layer_embeddings import POOLINGS, LayerEmbeddings, Pooling, embed_layers
from vlkit.evaluation.alignment.outcome import Alignment, LanguageRow, LayerRow
from vlkit.evaluation.alignment.parallel_texts import ParallelTexts
from vlkit.evaluation.alignment.scores import CSLS_K, PairScores, pair_scores, ranker_layers
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.models.digest import weights_digest
from vlkit.progress import Bar, bar
from vlkit.provenance import provenance
from vlkit.types import Sample

Score = Literal["mexa", "langrank", "all"]
SCORES: tuple[Score, ...] = ("mexa", "langrank", "all")
# written without blanks between words
_NO_BLANKS = frozenset(("Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"))


def align(
    text: LayeredText,
    texts: ParallelTexts,
    *,
    name: str = "model",
    languages: Iterable[str] | None = None,
    score: Score = "all",
    pooling: Pooling = "weighted",
    images: Sequence[Sample] = (),
    encoding: Encoding | None = None,
) -> Alignment:
    """Scores every language against the pivot.

    Memory holds the embeddings of the pivot and of one language, at all layers.

    Args:
        text: From ``hidden_states.open_text``.
        texts: From ``parallel_texts.open_texts``.
        name: What results call the model.
        languages: BCP 47 tags or other codes; None takes all of the texts.
        score: ``mexa`` with its companions, ``langrank``, or all.
        pooling: How tokens become one embedding for MEXA.
        images: An image for each line, for image-text models: they are compared with the texts as well.
        encoding: Batches and progress; None takes 32 texts at a time (all layers are held) and shows progress.

    Raises:
        UnknownName: A language, score or pooling that is none.
        VlkitError: The model gives nothing that the score needs, or images for a model without an image side.
    """
    encoding = Encoding(text_batch_size=32, quiet=False) if encoding is None else encoding
    start = time.monotonic()
    plan = _plan(text, score=score, pooling=pooling)
    tags = texts.choose(languages)
    image_NE = embed_pivot_images(text.model, images, lines=len(texts.keys), encoding=encoding) if images else None
    rows, layers = list[LanguageRow](), list[LayerRow]()
    own: dict[str, tuple[Sequence[int], Tensor]] = {}  # the model's own embeddings
    total = sum(len(texts.rows(tag)) for tag in (texts.pivot, *tags))
    with bar(f"texts of {len(tags)} languages", total=total, unit="texts", quiet=encoding.quiet) as shown:
        size = encoding.text_batch_size
        pivot = _LanguageEmbeddings.of(text, texts, texts.pivot, plan=plan, batch_size=size, shown=shown)
        for tag in tags:
            side = _LanguageEmbeddings.of(text, texts, tag, plan=plan, batch_size=size, shown=shown)
            found = list(_layer_rows(pivot, side, plan=plan))
            layers += found
            rows.append(_language_row(text, texts, pivot, side, found=found, plan=plan))
            own |= side.own() if images else {}
        own |= pivot.own()
    scored: tuple[ImageScores, ...] = () if image_NE is None else score_images(image_NE, own, pivot=texts.pivot)
    meta = provenance(
        models={name: weights_digest(text.module)},
        seed=0,
        languages=list(tags),
        prompts="none",
        data_digest=texts.digest,
        seconds=time.monotonic() - start,
        score=score,
        images=len(images),
        **_settings(text, texts, plan),
    )
    return Alignment(meta, tuple(rows), tuple(layers), scored)


@dataclass(frozen=True)
class _WantedLayers:
    """Which layers are wanted, and how their tokens become one embedding."""

    mexa: tuple[str, ...]
    ranked: tuple[str, ...]
    pooling: Pooling
    projected: bool

    @property
    def wanted(self) -> dict[Pooling, tuple[str, ...]]:
        if self.pooling == "last":
            return {"last": tuple(dict.fromkeys((*self.mexa, *self.ranked)))}
        wanted: dict[Pooling, tuple[str, ...]] = {self.pooling: self.mexa, "last": self.ranked}
        return {pooling: names for pooling, names in wanted.items() if names}


def _plan(text: LayeredText, *, score: Score, pooling: Pooling) -> _WantedLayers:
    if score not in SCORES:
        raise UnknownName("score", score, allowed=SCORES)
    if pooling not in POOLINGS:
        raise UnknownName("pooling", pooling, allowed=POOLINGS)
    ranked = tuple(map(str, ranker_layers(text.depth))) if score != "mexa" and text.depth else ()
    if score == "langrank":
        if not ranked:
            raise VlkitError(
                f"Language Ranker needs the states of all layers, which this model does not give. {text.note}"
            )
        return _WantedLayers((), ranked, pooling, projected=False)
    return _WantedLayers(text.layers, ranked, pooling, projected=text.projects)


def _settings(text: LayeredText, texts: ParallelTexts, plan: _WantedLayers) -> dict[str, Any]:
    return {
        "texts": texts.name,
        "pivot": texts.pivot,
        "lines": len(texts.keys),
        "pooling": plan.pooling,
        "prefix": text.prefix,
        "depth": text.depth,
        "layers": list(text.layers),
        "langrank_layers": list(plan.ranked),
        "csls_k": CSLS_K,
        "note": text.note,
    }


@dataclass(frozen=True)
class _LanguageEmbeddings:
    """The embeddings of one language's texts."""

    language: str
    rows: list[int]
    texts: tuple[str, ...]
    embeddings: LayerEmbeddings

    @classmethod
    def of(
        cls, text: LayeredText, texts: ParallelTexts, tag: str, *, plan: _WantedLayers, batch_size: int, shown: Bar
    ) -> _LanguageEmbeddings:
        rows = texts.rows(tag)
        lines = tuple(texts.lines[tag][row] for row in rows)
        found = embed_layers(text, lines, wanted=plan.wanted, language=tag, batch_size=batch_size, shown=shown)
        return cls(tag, rows, lines, found)

    def own(self) -> dict[str, tuple[Sequence[int], Tensor]]:
        """The model's own embeddings and the lines that they are of, by language; nothing where it has none."""
        found_NE = self.embeddings.projected_NE
        return {} if found_NE is None else {self.language: (self.rows, found_NE)}

    def at(self, rows: Sequence[int]) -> list[int]:
        """Where these lines stand among the embeddings."""
        place = {row: number for number, row in enumerate(self.rows)}
        return [place[row] for row in rows]


def _layer_rows(pivot: _LanguageEmbeddings, other: _LanguageEmbeddings, *, plan: _WantedLayers) -> Iterator[LayerRow]:
    own = pivot.at(other.rows)
    for pooling, names in plan.wanted.items():
        for name in names:
            one_ND, other_ND = (side.embeddings.layers[pooling, name] for side in (pivot, other))
            yield LayerRow(other.language, pooling, name, pair_scores(one_ND[own].numpy(), other_ND.numpy()))
    one_NE, other_NE = pivot.embeddings.projected_NE, other.embeddings.projected_NE
    if plan.projected and one_NE is not None and other_NE is not None:
        yield LayerRow(other.language, "", PROJECTED, pair_scores(one_NE[own].numpy(), other_NE.numpy()))


def _language_row(
    text: LayeredText,
    texts: ParallelTexts,
    pivot: _LanguageEmbeddings,
    other: _LanguageEmbeddings,
    *,
    found: Sequence[LayerRow],
    plan: _WantedLayers,
) -> LanguageRow:
    sides = [pivot.texts[place] for place in pivot.at(other.rows)], other.texts
    repeats = [Counter(side) for side in sides]
    return LanguageRow(
        language=other.language,
        n=len(other.rows),
        n_blank=len(texts.keys) - len(other.rows),
        n_repeated=sum(repeats[0][one] > 1 or repeats[1][two] > 1 for one, two in zip(*sides, strict=True)),
        n_cut=pivot.embeddings.n_cut + other.embeddings.n_cut,
        n_excluded=max((row.scores.n_excluded for row in found), default=0),
        **_over_layers(found, plan),
        **fertility(text, other.texts, language=other.language),
    )


def _over_layers(found: Sequence[LayerRow], plan: _WantedLayers) -> dict[str, Any]:
    by_layer = {row.layer: row.scores for row in found if row.pooling == plan.pooling and row.layer in plan.mexa}
    scores: dict[str, Any] = {}
    if by_layer:
        best = max(by_layer, key=lambda layer: by_layer[layer].mexa)  # of equal ones the first
        names = ("mexa_chance", "p1_from_pivot", "p1_to_pivot", "csls_from_pivot", "csls_to_pivot", "margin")
        scores = {name: _mean(name, by_layer.values()) for name in names}
        scores["mexa_mean"] = _mean("mexa", by_layer.values())
        scores |= {"mexa_max": by_layer[best].mexa, "mexa_max_layer": best}
    if last := [row.scores for row in found if row.layer == PROJECTED]:
        scores |= {"projected_mexa": last[0].mexa, "projected_centred": last[0].centred_cosine}
    if ranked := [row.scores for row in found if row.pooling == "last" and row.layer in plan.ranked]:
        scores |= {"langrank": _mean("cosine", ranked), "langrank_centred": _mean("centred_cosine", ranked)}
    return scores


def fertility(text: LayeredText, texts: Sequence[str], *, language: str) -> dict[str, Any]:
    """How many tokens a tokenizer makes of a language: the more, the less of it the model has seen, as a rule.

    The columns of ``LanguageRow``, special tokens and prefix left out, over all texts together, so that long ones weigh
    more; characters are code points other than white space, words what stands between blanks.
    """
    if text.pieces is None or not texts:
        return {}
    rows = text.pieces(list(texts))
    tokens = sum(map(len, rows))
    unknown = sum(row.count(text.unknown_id) for row in rows) if text.unknown_id is not None else 0
    words = sum(len(one.split()) for one in texts)
    characters = sum(len("".join(one.split())) for one in texts)
    spaced = language_table.get(language).script not in _NO_BLANKS
    return {
        "tokens_per_character": tokens / characters if characters else math.nan,
        "tokens_per_word": tokens / words if spaced and words else math.nan,
        "unknown_share": unknown / tokens if tokens else math.nan,
    }


def _mean(name: str, scores: Collection[PairScores]) -> float:
    return math.fsum(getattr(one, name) for one in scores) / len(scores)
