"""ImageNet class names from the Open Multilingual Wordnet, whose files are free to pass on.

A file has lines ``offset-pos<TAB>lang:lemma<TAB>form`` with WordNet 3.0 offsets, which are the numbers of ImageNet's
ids. ``wn-data-*.tab`` are wordnets made by hand, ``wn-wikt-*.tab`` and ``wn-cldr-*.tab`` were linked automatically.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlkit import languages as language_table
from vlkit.data.formats.folders import walk
from vlkit.data.formats.text_files import read_lines
from vlkit.data.names.imagenet import english_lemmas, english_names, wordnet_ids
from vlkit.data.names.label_set import LabelSet, script
from vlkit.errors import DataError, UnknownName
from vlkit.paths import local_path

_FILE = re.compile(r"wn-(?P<kind>data|wikt|cldr|nodia)-(?P<code>.+)\.tab")
_OFFSET = re.compile(r"\d{8}-[a-z]")
_GAP = "GAP!"  # how some wordnets write that the language has no word
_MARKUP = str.maketrans("", "", "[]!\u00ad\u200b\u200e\u200f")  # wiki links, direction slips, soft hyphens
# marks that dictionaries print and ordinary text leaves out; Yiddish and Persian write some of them
_UNWRITTEN = {
    "he": re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"),
    "ar": re.compile("[\u064b-\u0652\u0670]"),
}


@dataclass
class _Words:
    """One language: the lemmas of each synset by kind of file, and how many synsets each lemma has."""

    by_hand: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    linked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    senses: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def build_omw(
    source: str | Path,
    *,
    lemmas: Literal["one", "all"] = "one",
    drop_english: bool = False,
    min_classes: int = 10,
) -> LabelSet:
    """Names of the 1000 ImageNet classes from a folder of Open Multilingual Wordnet files.

    English is OpenAI's names, with which CLIP was evaluated: of WordNet's English lemmas the rule below takes poor ones
    ("k" for the kite), and other languages are compared with English.

    OMW lists the lemmas of a synset in no order of use. Of several, the first is taken by: in the script that most of
    the language's lemmas are in (not Korean in Chinese characters); in a wordnet made by hand and in Wiktionary as
    well; without brackets; short; of few other synsets in that language; alphabetical.

    Args:
        source: A folder with ``.tab`` files at any depth (``wns`` of github.com/omwn/omw-data).
        lemmas: ``one`` a class, by the rule above, or ``all`` (in its order), whose embeddings are averaged.
        drop_english: Leave out lemmas that are spelled as an English lemma of any class, as Babel-ImageNet does.
        min_classes: Leave out languages that name fewer classes.

    Raises:
        DataError: No such folder, no such file in it, or a line of another form.
    """
    source = local_path(source)
    paths = sorted(path for _, path in walk(source) if _FILE.fullmatch(path.name)) if source.is_dir() else []
    if not paths:
        raise DataError(f"{source} has no Open Multilingual Wordnet files (wn-data-*.tab, wn-wikt-*.tab)")
    words: dict[str, _Words] = defaultdict(_Words)
    sources: dict[str, str] = {}
    notes: list[str] = []
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is None or match["kind"] == "nodia":  # a copy of the Arabic file without diacritics
            continue
        try:
            tag = language_table.get(match["code"], system="omw").tag
        except UnknownName:
            notes.append(f"{path.name}: the language {match['code']!r} is not known and was left out")
            continue
        name, license = _read(path, words[tag], language=tag, by_hand=match["kind"] == "data")
        sources.setdefault(name, license)
    english = {lemma.casefold() for each in english_lemmas() for lemma in each} if drop_english else set()
    named = {tag: _named(words[tag], english, every=lemmas == "all") for tag in sorted(words)}
    names = {tag: found for tag, found in named.items() if len(found) >= max(min_classes, 1)}
    if not names:
        raise DataError(f"no language in {source} names {min_classes} ImageNet classes; lower min_classes")
    names["en"] = {number: (name,) for number, name in enumerate(english_names())}
    notes.append("en: OpenAI's names of the ImageNet classes, not lemmas of WordNet")
    listed = "; ".join(f"{name} ({license})" if license else name for name, license in sorted(sources.items()))
    notice = f"Open Multilingual Wordnet: {listed}; English: OpenAI's names for CLIP, as open_clip has them (MIT)"
    return LabelSet("omw-imagenet", len(wordnet_ids()), dict(sorted(names.items())), notice, notes=tuple(notes))


def _read(path: Path, words: _Words, *, language: str, by_hand: bool) -> tuple[str, str]:
    """Adds a file's lemmas; gives the wordnet's name and license."""
    name, license = path.stem, ""
    table = words.by_hand if by_hand else words.linked
    for number, line in enumerate(read_lines(path), start=1):
        cells = line.removesuffix("\r").split("\t")
        if line.startswith("#"):
            if number == 1:
                name, license = cells[0].lstrip("# ").strip(), cells[3].strip() if len(cells) > 3 else ""
            continue
        if not line.strip():
            continue
        if len(cells) < 3 or not _OFFSET.fullmatch(cells[0]):
            raise DataError(f"{path}:{number}: expected offset-pos, lang:lemma and a form with tabs between: {line!r}")
        if cells[1].rpartition(":")[2] == "lemma" and (lemma := clean_lemma(cells[2], language)):
            table[cells[0]].add(lemma)
            words.senses[lemma].add(cells[0])
    return name, license


def clean_lemma(form: str, language: str) -> str:
    """A lemma without markup, underscores, Hebrew points and Arabic vowel signs, in NFC; empty where there is none."""
    if form.strip() == _GAP:
        return ""
    text = form.partition("|")[0].replace("_", " ").translate(_MARKUP)
    if marks := _UNWRITTEN.get(language):
        text = marks.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _named(words: _Words, english: set[str], *, every: bool) -> dict[int, tuple[str, ...]]:
    found = {}
    usual = Counter(map(script, words.senses)).most_common(1)
    for number, wnid in enumerate(wordnet_ids()):
        key = f"{wnid[1:]}-n"
        by_hand, linked = words.by_hand.get(key, set()), words.linked.get(key, set())
        agreed = {lemma.casefold() for lemma in by_hand} & {lemma.casefold() for lemma in linked}

        def order(lemma: str, agreed: set[str] = agreed) -> tuple[bool, bool, bool, int, int, str]:
            foreign, alone = script(lemma) != usual[0][0], lemma.casefold() not in agreed
            return foreign, alone, "(" in lemma, len(lemma), len(words.senses[lemma]), lemma

        lemmas = sorted((lemma for lemma in by_hand | linked if lemma.casefold() not in english), key=order)
        if lemmas:
            found[number] = tuple(lemmas) if every else (lemmas[0],)
    return found
