"""What models that make images are asked for: names of concepts with their real images, and things in a colour.

P prompts, the first P of K candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.data.sources.combine import SampleList, identities
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.metrics.text_match import normalized
from vlkit.evaluation.tasks.task import choose_languages
from vlkit.files import packaged
from vlkit.foreign import parse_yaml
from vlkit.models.code_switch import halves, switched
from vlkit.spec.generated_images import CombinationsSpec, PackagedCombinations, PromptGroup
from vlkit.types import Sample

COLOR_PROMPTS = "color_prompts.yaml"


@dataclass(frozen=True)
class PromptList:
    """Prompts that say the same in each language, and what the judge can see in their images.

    Attributes:
        languages: BCP 47 tags that images are made in.
        texts: Language to its P prompts, all in one order; those of the anchor too.
        anchor: The language whose texts the judge tells candidates by: English, where there is any.
        names: The K candidates in it; the first P are the prompts.
        real: An image of each candidate; () where there are none.
        parts: Of what a candidate is put together, by the name of the part: `{"color": ("red", ...)}`.
    """

    languages: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    anchor: str
    names: tuple[str, ...]
    real: tuple[Sample, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts[self.anchor])

    def mixed(self, language: str, *, english_first: bool) -> dict[int, str]:
        """By number the prompts that are half English, where both texts can be cut and differ."""
        if "en" not in self.languages or language == "en":
            return {}
        own, english = self.texts[language], self.texts["en"]
        return {
            number: switched(text, other, english_first=english_first)
            for number, (text, other) in enumerate(zip(own, english, strict=True))
            if text != other and halves(text) and halves(other)
        }


def named_concepts(
    every: Sequence[Sample],
    group: PromptGroup,
    languages: Iterable[str] | None,
    *,
    candidates: int | None,
    of: str,
) -> PromptList:
    """The concepts of a group that have an image and a name in all languages, in an order by a stable hash.

    Of concepts with one name in the anchor's language, which no judge could tell apart, the first stays.

    Raises:
        UnknownName: No such split, or a language that is none or has no names.
        DataError: Fewer than two concepts have names in all languages.
    """
    if group.split is not None and group.split not in (splits := {one.split for one in every}):
        raise UnknownName(f"split in the data of {of}", group.split, allowed=splits)
    pictured = [one for one in every if one.images and group.split in (None, one.split)]
    had = dict.fromkeys(tag for one in pictured for tag, texts in one.captions.items() if texts)
    tags = choose_languages(languages, had, of=of)
    anchor = "en" if "en" in had else next(iter(tags), "en")
    needed = {*tags, anchor}
    firsts: dict[str, Sample] = {}
    for one, concept in zip(pictured, identities(SampleList(pictured)), strict=True):
        if all(one.captions.get(tag) for tag in needed):
            firsts.setdefault(concept, one)
    distinct: dict[str, Sample] = {}
    for _, one in sorted(firsts.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()):
        distinct.setdefault(normalized(one.captions[anchor][0]), one)
    chosen = tuple(distinct.values())[:candidates]
    if len(chosen) < 2:
        raise DataError(f"{of}: fewer than two concepts have an image and a name in each of {', '.join(tags)}")
    asked = chosen[: group.limit]
    texts = {tag: tuple(one.captions[tag][0] for one in asked) for tag in dict.fromkeys((*tags, anchor))}
    return PromptList(tags, texts, anchor, tuple(one.captions[anchor][0] for one in chosen), chosen)


def color_combinations(spec: CombinationsSpec, languages: Iterable[str] | None, *, of: str) -> PromptList:
    """Things in a colour.

    Raises:
        DataError: The file is missing or of another form.
        UnknownName: A language that is none, or that the table does not have.
    """
    path = packaged("data") / COLOR_PROMPTS if isinstance(spec, PackagedCombinations) else Path(spec.path)
    try:
        table = parse_yaml(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{of}: cannot read {path}: {error}") from error
    rows = [_row(entry, f"{path}, entry {number}") for number, entry in enumerate(_listed(table, path), start=1)]
    had = [tag for tag in rows[0][2] if all(tag in prompts for _, _, prompts in rows)]
    tags = choose_languages(languages, had, of=f"{of} ({path})")
    anchor = "en" if "en" in had else next(iter(tags), "")
    if not anchor:
        raise DataError(f"{path}: there is no language that all entries have a prompt in")
    texts = {tag: tuple(prompts[tag] for _, _, prompts in rows) for tag in dict.fromkeys((*tags, anchor))}
    if len(set(texts[anchor])) < len(rows):
        raise DataError(f"{path}: two entries have one prompt in {anchor}; each may stand once")
    parts = {"object": tuple(row[0] for row in rows), "color": tuple(row[1] for row in rows)}
    return PromptList(tags, texts, anchor, texts[anchor], parts=parts)


def _listed(table: Any, path: Path) -> list[Any]:
    if not isinstance(table, list) or len(table) < 2:
        raise DataError(
            f"{path}: expected a list of two or more {{object: hat, color: green, prompts: {{en: green hat}}}}"
        )
    return table


def _row(entry: Any, where: str) -> tuple[str, str, dict[str, str]]:
    if not isinstance(entry, dict) or set(entry) != {"object", "color", "prompts"}:
        raise DataError(f"{where}: expected the keys object, color, prompts")
    prompts = entry["prompts"]
    texts = [entry["object"], entry["color"], *(prompts.values() if isinstance(prompts, dict) else [None])]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: object, color and each of prompts must be a text")
    return entry["object"], entry["color"], {language_table.normalize(str(tag)): one for tag, one in prompts.items()}
