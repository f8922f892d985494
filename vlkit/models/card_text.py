"""The README.md of a model folder, for any kind of model: parts with licenses, languages, data, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlkit.adapt.inject import adapter_of
from vlkit.models.trainable import ADAPTER, trainable_report
from vlkit.parts.assets import ASSETS
from vlkit.spec.base import Spec
from vlkit.spec.parts import TiledImage
from vlkit.types import Model, as_module
from vlkit.version import __version__

MADE = "Made with vlkit"
"""How a card ends, by which a folder of our making is known."""
UNKNOWN = "see the model's own page"
"""What a card says of the license of a part that is not in the table of weights."""


@dataclass(frozen=True)
class CardFacts:
    """What only the maker of a model knows."""

    title: str = ""  # "" for what the kind of model is
    summary: str = ""  # one or two sentences: what it is for
    languages: Sequence[str] = ()  # BCP 47 tags of the training texts
    data: Sequence[str] = ()  # one line of Markdown for each data set, with its license
    scores: Mapping[str, float] = field(default_factory=dict)  # fractions in 0..1 by what was measured
    limits: Sequence[str] = ()  # one line of Markdown for each known limit


@dataclass(frozen=True)
class KindFacts:
    """What the cards of one kind of model say: its title, the tags that model hubs know, lines that use it.

    In ``usage`` stands ``{language}`` for a language of the model; ``usage_in`` is what the lines are written in.
    """

    title: str
    pipeline: str
    tags: Sequence[str]
    usage: str
    usage_in: str = "python"
    unnamed: str = ""  # what a part without a spec is


def card_text(
    model: Model, facts: CardFacts, kind: KindFacts, *, library: str = "vlkit", usage: str | None = None
) -> str:
    """The model card as Markdown with the front matter that model hubs read.

    ``library`` is who loads the folder, as hubs name it; ``usage`` are lines that show how, None takes the kind's.
    """
    usage = usage or kind.usage.replace("{language}", (*facts.languages, "en")[0])
    sections = [
        _front_matter(facts, kind, library),
        f"# {facts.title or kind.title}",
        facts.summary,
        f"```{kind.usage_in}\n{usage}\n```",
        "## Parts\n\n" + _parts(model, kind.unnamed),
        _list("Languages", [", ".join(facts.languages)] if facts.languages else []),
        _list("Data", facts.data),
        _scores(facts.scores),
        _list("Limits", facts.limits),
        f"{MADE} {__version__}.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(facts: CardFacts, kind: KindFacts, library: str) -> str:
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {kind.pipeline}"]
    if facts.languages:
        # Quoted: Norwegian is not a boolean.
        lines += ["language:", *(f'- "{tag}"' for tag in facts.languages)]
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in kind.tags), "---"])


def _parts(model: Model, unnamed: str) -> str:
    rows = ["| part | what | parameters | license and source |", "| --- | --- | ---: | --- |"]
    module = as_module(model)
    for row in trainable_report(module).rows:
        spec = getattr(getattr(module, row.part, None), "spec", None)
        if row.part.endswith(ADAPTER):
            spec = adapter_of(module.get_submodule(row.part.removesuffix(ADAPTER)))
        what, source = _describe(spec) if isinstance(spec, Spec) else (unnamed, "")
        rows.append(f"| {row.part} | {_cell(what)} | {row.parameters:,} | {_cell(source)} |")
    return "\n".join(rows)


def _describe(spec: Spec) -> tuple[str, str]:
    if isinstance(spec, TiledImage):
        what, source = _describe(spec.of)
        return f"{spec.grid}x{spec.grid} tiles of {what}", source
    kind, name = getattr(spec, "kind", "for training alone"), getattr(spec, "name", None)
    if name is None:  # made of others, perhaps
        sides = [_describe(one) for one in vars(spec).values() if isinstance(one, Spec) and hasattr(one, "kind")]
        told = [side for side in sides if side[1]]
        return "; ".join([kind, *(what for what, _ in told)]), " ".join(source for _, source in told)
    for asset in ASSETS:
        if asset.library == kind and name in (asset.name, *asset.aliases):
            return f"{kind}: {name}", f"{asset.license}. {asset.source}"
    return f"{kind}: {name}", UNKNOWN


def _scores(scores: Mapping[str, float]) -> str:
    if not scores:
        return ""
    rows = [f"| {_cell(name)} | {100 * score:.1f} % |" for name, score in scores.items()]
    return "\n".join(["## Scores\n", "| measured | score |", "| --- | ---: |", *rows])


def _list(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
