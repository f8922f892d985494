"""Published scores to compare with: tables shipped with vlkit, and result files of Babel-ImageNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vlkit import languages as language_table
from vlkit.errors import DataError, UnknownName
from vlkit.files import packaged
from vlkit.foreign import read_json
from vlkit.paths import local_path

_SYSTEMS: dict[str, language_table.System] = {"babel_imagenet": "babelnet", "xm3600": "xm3600"}


@dataclass(frozen=True)
class Reference:
    """A table of published scores of a benchmark."""

    name: str
    metric: str
    models: Mapping[str, str]
    """Short name to where the weights are."""
    scores: Mapping[str, Mapping[str, float]]
    """By BCP 47 tag and short name of the model, shares in 0..1 (published to 0.001)."""
    num_classes: Mapping[str, int]
    """By the benchmark's own language code, where it has classes."""
    codes: Mapping[str, str]
    """BCP 47 tag to the benchmark's own code."""

    def of(self, model: str) -> dict[str, float]:
        """One model's scores by BCP 47 tag.

        Raises:
            UnknownName: No such model in the table.
        """
        if model not in self.models:
            raise UnknownName(f"model in the table {self.name}", model, allowed=self.models)
        return {tag: row[model] for tag, row in self.scores.items()}

    def classes_of(self, tag: str) -> int:
        """How many classes a language of the table has."""
        return self.num_classes[self.codes[tag]]


def references() -> tuple[str, ...]:
    """Names of the tables there are."""
    return tuple(sorted(path.stem for path in (packaged("eval") / "reference").glob("*.yaml")))


def reference(name: str) -> Reference:
    """One of the tables.

    Raises:
        UnknownName: No such table.
    """
    from ruamel.yaml import YAML  # YAML 1.2, where `no:` is a string

    if name not in references():
        raise UnknownName("reference table", name, allowed=references())
    raw = YAML(typ="safe", pure=True).load(packaged("eval") / "reference" / f"{name}.yaml")
    codes = {language_table.get(code, system=_SYSTEMS.get(name)).tag: code for code in raw["scores"]}
    scores = {
        tag: {model: round(percent / 100, 4) for model, percent in zip(raw["models"], raw["scores"][code], strict=True)}
        for tag, code in codes.items()
    }
    counts = {**raw.get("languages", {}), **raw.get("other_languages", {})}
    return Reference(raw["name"], raw["metric"], raw["models"], scores, counts, codes)


class BabelScore(NamedTuple):
    """One accuracy of a released result file, in 0..1; ``num_classes`` is 0 where the file does not say."""

    language: str
    prompt: str
    num_classes: int
    accuracy: float


def read_babel_scores(path: str | Path) -> list[BabelScore]:
    """A result file of Babel-ImageNet, in its order.

    Raises:
        DataError: Missing, or not of that form.
    """
    path = local_path(path)
    try:
        entries: list[dict[str, Any]] = read_json(path)["results"]
        scores = [float(entry["accuracy"]) for entry in entries]
        unit = 100.0 if max(scores, default=0.0) > 1 else 1.0  # percent, unless nothing is above one
        return [
            BabelScore(
                language_table.get(entry["lang"], system="babelnet").tag,
                str(entry["prompt"]),
                int(entry.get("num_classes", 0)),
                score / unit,
            )
            for entry, score in zip(entries, scores, strict=True)
        ]
    except FileNotFoundError:
        raise DataError(f"no result file {path}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a result file of Babel-ImageNet: {type(error).__name__}: {error}") from error
