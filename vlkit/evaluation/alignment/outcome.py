"""What an alignment run found: scores by language and by layer, with where they come from and what they go with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from vlkit.errors import DataError
from vlkit.evaluation.alignment.image_pivot import ImageScores
from vlkit.evaluation.alignment.layer_embeddings import Pooling
from vlkit.evaluation.alignment.scores import PairScores
from vlkit.evaluation.metrics.correlation import correlate
from vlkit.evaluation.results.frames import RowSequence, data_frame
from vlkit.evaluation.results.results_file import Results, csv_text, plain
from vlkit.files import write_atomic
from vlkit.paths import local_path

RESULT = "alignment.json"
AlignmentTable = Literal["languages", "layers", "images", "correlations"]
TABLES: tuple[AlignmentTable, ...] = get_args(AlignmentTable)
_IMAGE_SCORES = ("mexa", "p1_image_to_text", "p1_text_to_image", "english_swap")


@dataclass(frozen=True)
class LayerRow:
    """One layer of one language."""

    language: str
    pooling: Pooling | str
    """How tokens became one embedding; ``""`` for the model's own embedding."""
    layer: str
    """``"0"`` is the token embedding; ``last block``; ``projected`` is the model's own embedding."""
    scores: PairScores


@dataclass(frozen=True)
class LanguageRow:
    """One language against the pivot. Scores are NaN where they were not asked for or the model cannot give them."""

    language: str
    n: int
    """Lines with a text on both sides."""
    n_blank: int
    """Lines left out because one side is blank."""
    n_repeated: int
    """Pairs whose text occurs more than once on its side, which no strict score can count as right."""
    n_cut: int
    """Texts of either side that were longer than the model takes."""
    n_excluded: int
    """The most pairs that a layer left out because of an embedding that is not finite, or zero."""
    mexa_mean: float = math.nan
    """Mean of MEXA over layers."""
    mexa_max: float = math.nan
    """Maximum over layers: the more layers, the higher by chance alone."""
    mexa_max_layer: str = ""
    mexa_chance: float = math.nan
    """Mean over layers of what MEXA would be if the pairs were shuffled."""
    p1_from_pivot: float = math.nan
    """Mean over layers; the share of pivot texts whose nearest text is their own."""
    p1_to_pivot: float = math.nan
    csls_from_pivot: float = math.nan
    """Mean over layers; as ``p1_from_pivot`` with cosines corrected for hubs."""
    csls_to_pivot: float = math.nan
    margin: float = math.nan
    """Mean over layers of the cosine of pairs less that of all others."""
    langrank: float = math.nan
    """Language Ranker: mean cosine of the last tokens at a few layers."""
    langrank_centred: float = math.nan
    """The same with the mean of each side taken off."""
    projected_mexa: float = math.nan
    """MEXA of the model's own embedding, for image-text models."""
    projected_centred: float = math.nan
    """Its mean-centred cosine."""
    tokens_per_character: float = math.nan
    tokens_per_word: float = math.nan
    """NaN for scripts without blanks between words."""
    unknown_share: float = math.nan
    """Share of tokens that stand for what the tokenizer does not know."""


@dataclass(frozen=True)
class CorrelationRow:
    """How an alignment score and a zero-shot score go together over languages; intervals are 95 % bootstrap."""

    score: str
    variant: str
    task: str
    n: int
    """Languages; the pivot is none of them but for scores against images."""
    pearson: float
    pearson_low: float
    pearson_high: float
    spearman: float
    spearman_low: float
    spearman_high: float
    kendall: float
    kendall_low: float
    kendall_high: float


@dataclass(frozen=True)
class Alignment(RowSequence[LanguageRow]):
    """Scores of one model with their provenance: tables of a row a language, only in ``images`` with the pivot.

    ``images`` is empty without images, ``correlations`` without zero-shot scores. Iterating gives the languages.
    """

    meta: Mapping[str, Any]
    languages: tuple[LanguageRow, ...]
    layers: tuple[LayerRow, ...]
    images: tuple[ImageScores, ...] = ()
    correlations: tuple[CorrelationRow, ...] = ()

    def json(self) -> str:
        """All of it as JSON: floats rounded to 6 digits, null for NaN."""
        content = plain({"meta": self.meta, **self._tables()})
        return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Writes ``alignment.json``, a CSV of each table that has rows, and ``alignment.png``; gives their paths.

        Raises:
            VlkitError: The place cannot be written to.
        """
        from vlkit.evaluation.alignment.figure import alignment_figure
        from vlkit.evaluation.report.plots import render

        folder = local_path(folder)
        contents: dict[str, str | bytes] = {RESULT: self.json()}
        for name, rows in self._tables().items():
            if rows:
                called = "alignment.csv" if name == "languages" else f"alignment-{name}.csv"
                contents[called] = csv_text(list(rows[0]), rows)
        contents["alignment.png"] = render(alignment_figure(self), kind="png")
        for name, content in contents.items():
            write_atomic(folder / name, content)
        return [folder / name for name in contents]

    def records(self, table: AlignmentTable = "languages") -> list[dict[str, Any]]:
        """See ``RowSequence.records``; of any of the tables."""
        return self._tables()[table]

    def to_pandas(self, table: AlignmentTable = "languages") -> Any:
        """One of the tables as a ``pandas.DataFrame``.

        Raises:
            MissingPackage: pandas is not installed.
        """
        return data_frame(self.records(table))

    def _items(self) -> tuple[LanguageRow, ...]:
        return self.languages

    def _tables(self) -> dict[str, list[dict[str, Any]]]:
        tables: dict[str, list[dict[str, Any]]] = {name: list(map(asdict, getattr(self, name))) for name in TABLES}
        tables["layers"] = [row | row.pop("scores") for row in tables["layers"]]
        return tables


def correlate_with(alignment: Alignment, results: Results) -> tuple[CorrelationRow, ...]:
    """Each alignment score that has three values or more over languages, with zero-shot top-1 of each variant and task.

    Only languages that both have are used. MEXA's prediction of a task score (pooled MEXA times the score in English)
    is the same number for every language but for a factor, and so correlates as MEXA does.

    Raises:
        DataError: Fewer than three languages in common.
    """
    found: list[CorrelationRow] = []
    most = 0
    for name, by_language in _scores(alignment).items():
        for variant in results.variants:
            for task in results.tasks:
                accuracy = {
                    tag: row["acc1"] for tag, row in results.of(variant, task=task).items() if "acc1" in row.values
                }
                tags = [tag for tag, value in by_language.items() if tag in accuracy and math.isfinite(value)]
                most = max(most, len(tags))
                if len({by_language[tag] for tag in tags}) >= 3:  # two values are two groups, no line
                    one = correlate([by_language[tag] for tag in tags], [accuracy[tag] for tag in tags])
                    found.append(CorrelationRow(name, variant, task, one.n, *one.pearson, *one.spearman, *one.kendall))
    if most < 3:
        theirs, ours = ", ".join(results.languages) or "none", ", ".join(row.language for row in alignment.languages)
        raise DataError(
            f"alignment and results have {most} languages in common, and three are needed for a correlation; "
            f"alignment: {ours}; results: {theirs}"
        )
    return tuple(found)


def _scores(alignment: Alignment) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {
        field.name: {row.language: getattr(row, field.name) for row in alignment.languages}
        for field in fields(LanguageRow)
        if field.type == "float" and field.name != "mexa_chance"
    }
    for name in _IMAGE_SCORES:
        # in the pivot's own language, the swap is a text against itself
        left_out = alignment.meta["pivot"] if name == "english_swap" else ""
        scores[f"image_{name}" if name == "mexa" else name] = {
            row.language: getattr(row, name) for row in alignment.images if row.language != left_out
        }
    return scores
