"""What the rows of a kind of task hold: which figure leads, what readers call each, and where its interval stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A figure with its 95 % interval; all NaN where they are not known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measure:
    """One figure of a row.

    Attributes:
        title: What tables for readers call it; those without a title stand in files alone.
        short: What the table in the terminal calls it; those without stand elsewhere alone.
        low: Column of the lower end of its 95 % interval; "" for none.
        high: Column of the upper end.
        share: It is in 0..1 and shown in percent; else it is a number and shown as it is.
    """

    title: str = ""
    short: str = ""
    low: str = ""
    high: str = ""
    share: bool = True


@dataclass(frozen=True)
class Measures:
    """What a kind of task measures; it stands in the results file, so that readers need not know the kind.

    Attributes:
        kind: Of the task, as in a suite.
        headline: The figure that bars, rankings and comparisons go by; more is better.
        metrics: All figures by the names of their columns.
        published: The figure that published tables give; by default the headline.
        bars: The figures that the page of a task draws, where these are others than the headline.
        english: The figure that the headline has with the English names of the same things; "" for none.
        chance: What guessing gives; "" for none.
        chance_of: The figure that it is of, where this is not the headline.
        gain: A difference that is above 0 where the model makes use of what it is shown; "" for none.
        alike: Columns that have to agree where two rows are compared (0 agrees with all), and what they count.
        explained: For readers of a page, what the figures mean.
        table: Rows of kinds that say the same stand in one CSV: "" in results.csv, "x" in results-x.csv.
    """

    kind: str
    headline: str
    metrics: Mapping[str, Measure]
    published: str = ""
    bars: tuple[str, ...] = ()
    english: str = ""
    chance: str = ""
    chance_of: str = ""
    gain: str = ""
    alike: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    explained: str = ""

    def title(self, name: str) -> str:
        """What readers call a figure."""
        return self.metrics[name].title or name.replace("_", " ")

    @property
    def shown(self) -> dict[str, Measure]:
        """The figures that stand in tables for readers; all of them where none has a title."""
        return {name: one for name, one in self.metrics.items() if one.title} or dict(self.metrics)

    @property
    def brief(self) -> dict[str, Measure]:
        """The figures that stand in the table in the terminal; the headline where none has a short title."""
        return {name: one for name, one in self.metrics.items() if one.short} or {
            self.headline: self.metrics[self.headline]
        }

    def plain(self) -> dict[str, Any]:
        """For a JSON file; what is as usual is left out."""
        usual = Measure()
        metrics = {
            name: {key: value for key, value in asdict(one).items() if value != getattr(usual, key)}
            for name, one in self.metrics.items()
        }
        rest = {key: value for key, value in asdict(self).items() if key != "metrics" and value not in ("", {}, ())}
        return {**rest, "metrics": metrics}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Measures:
        """From what ``plain`` gave.

        Raises:
            TypeError, KeyError: It is something else.
        """
        metrics = {name: Measure(**one) for name, one in content["metrics"].items()}
        return cls(**{**content, "metrics": metrics, "bars": tuple(content.get("bars", ()))})
