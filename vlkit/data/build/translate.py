"""A data set in further languages by machine translation, as mBLIP and Centurio make theirs; a killed call goes on.

What comes out are shards of the translations alone, marked as such: a recipe names them beside the originals and
weights the two. Text in images stays what it is, so questions about it are left out (Centurio, section 3).
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vlkit.data.build.reshard import ShardOptions, Written, write_shards
from vlkit.data.formats.caption_forms import tag
from vlkit.data.formats.text_files import read_lines
from vlkit.data.plan.mixes import settled
from vlkit.data.sources.combine import meta_of
from vlkit.data.stream.pipeline import find_pipeline
from vlkit.errors import DataError, VlkitError
from vlkit.files import digest, disk_errors, file_state
from vlkit.foreign import parse_json
from vlkit.outputs import locked
from vlkit.parts.translation import HfTranslator, Translate
from vlkit.progress import bar
from vlkit.spec.dataset import MixingSpec, ProportionalMixing, UniformMixing, WeightsMixing
from vlkit.types import IMAGE_MARK, Sample, SampleMeta, Source, Turn

TEXT_IN_IMAGES = frozenset({"ocr", "text_in_image", "docvqa", "chartqa"})
"""Tasks whose answers are read off the image: a translation of them would not be what stands there."""
Spread = Literal["all", "uniform", "mc4", "marco_llm"]
_SPREADS: dict[str, MixingSpec] = {
    "uniform": UniformMixing(),
    "mc4": ProportionalMixing(),
    "marco_llm": ProportionalMixing(table="marco_llm"),
}
_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_APART = re.compile(rf"({re.escape(IMAGE_MARK)}|\n)")
_AGAIN = "run the same command again, it goes on from there"


@dataclass(frozen=True)
class TranslationOptions:
    """What is translated into what.

    Texts in ``source`` are translated into the languages ``to`` (BCP 47 tags). ``spread``: ``all`` of them for each
    sample, or one a sample, in equal shares or in those of a published table, dealt by ``seed``; ``source`` among them
    stays as it is. ``text_in_images`` translates tasks about text in images too.
    """

    to: tuple[str, ...]
    source: str = "en"
    spread: Spread = "all"
    seed: int = 0
    text_in_images: bool = False
    batch_size: int = 32


@dataclass
class Translated:
    """What came of it: the shards, how many texts a model translated, and samples that are about text in images."""

    shards: Written
    texts: int
    left_out: int


def open_translator(model: str, *, device: Any = "cpu", beams: int = 1) -> tuple[Translate, str]:
    """A translator and what it is known by: ``hf:NAME``, a hub id or folder, or a function ``module:function``.

    The function is called with texts, source and target language, and gives as many texts (None: no translation).

    Raises:
        VlkitError: It cannot be had.
    """
    if not model.startswith("hf:") and _FUNCTION.fullmatch(model):
        function = find_pipeline(model)
        file = inspect.getsourcefile(inspect.unwrap(function)) if inspect.isfunction(function) else None
        return function, digest([model, file_state(Path(file)) if file else ""])
    translator = HfTranslator(model.removeprefix("hf:"), device=device, beams=beams)
    return translator, translator.identity


def translate(
    source: Source,
    folder: Path,
    options: TranslationOptions,
    *,
    translator: Translate,
    identity: str,
    shards: ShardOptions | None = None,
    workers: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> Translated:
    """Translates a source and writes it as shards (``vlkit.data.build.reshard``).

    Translations are kept beside the folder until the shards are whole, under what the translator is known by
    (``identity``), so that a call that was stopped goes on when it is made again.

    Raises:
        VlkitError: Nothing to translate, a language the model does not know, or the folder holds something.
    """
    options = _checked(options)
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise DataError(f"{folder}: is there already; choose another --out, or replace it with --overwrite")
    if isinstance(translator, HfTranslator):
        translator.check((options.source, *options.to))
    planned, left_out = _plan(source, options)
    scratch = folder.parent / f".{folder.name}.translations"
    with disk_errors(folder, scratch=scratch, then=_AGAIN), locked(scratch):
        memo = _Memo(scratch / f"{digest([identity, options.source])}.jsonl")
        wanted = _pieces(source, planned, options)
        made = _fill(memo, wanted, translator, options, quiet=quiet)
        found = TranslatedSource.of(source, planned, memo.known, options.source)
        written = write_shards(
            found, folder, shards or ShardOptions(), workers=workers, overwrite=overwrite, quiet=quiet
        )  # fmt: skip
        shutil.rmtree(scratch)
    return Translated(written, made, left_out)


@dataclass(frozen=True)
class TranslatedSource:
    """The samples of ``source`` in other languages: ``entries`` are its numbers and the languages of each.

    Of a conversation there is one sample a language, of captions one with all of them. ``table`` has the translation of
    each piece of text by language. ``problems``: what has a piece that could not be translated.
    """

    source: Source
    entries: Sequence[tuple[int, tuple[str, ...]]]
    table: Mapping[tuple[str, str], str | None]
    language: str
    problems: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: Source,
        planned: Iterable[tuple[int, tuple[str, ...]]],
        table: Mapping[tuple[str, str], str | None],
        language: str,
    ) -> TranslatedSource:
        """The samples whose texts all have a translation, per language."""
        entries: list[tuple[int, tuple[str, ...]]] = []
        problems: dict[str, str] = {}
        for index, targets in planned:
            sample = source[index]
            whole = []
            for target in targets:
                lost = [] if target == language else [
                    one for one in _pieces_of(sample, language) if table.get((target, one)) is None
                ]  # fmt: skip
                if lost:
                    problems[f"{sample.key} ({target})"] = f"no translation into {target} of {lost[0][:60]!r}"
                else:
                    whole.append(target)
            if whole:
                entries += [(index, (one,)) for one in whole] if sample.turns else [(index, tuple(whole))]
        return cls(source, entries, table, language, problems)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        number, targets = self.entries[index]
        sample = self.source[number]
        if sample.turns:
            target = targets[0]
            turns = tuple(self._turn(turn, target) for turn in sample.turns)
            key = f"{sample.key}-{target}"
            return replace(sample, key=key, turns=turns, translated=target != self.language, keywords=())
        texts = sample.captions[self.language]
        captions = {target: tuple(self._text(text, target) for text in texts) for target in targets}
        return replace(sample, captions=captions, translated=targets != (self.language,), keywords=())

    def meta(self, index: int) -> SampleMeta:
        """Key, concept, split and languages."""
        return meta_of(self[index])

    def _turn(self, turn: Turn, target: str) -> Turn:
        if turn.language != self.language:
            return turn
        return replace(turn, text=self._text(turn.text, target), language=target)

    def _text(self, text: str, target: str) -> str:
        if target == self.language:
            return text
        return "".join(
            part if _stays(part) else self.table[target, part.strip()] or "" for part in _APART.split(text)
        )  # fmt: skip


def _checked(options: TranslationOptions) -> TranslationOptions:
    source, to = tag(options.source), tuple(dict.fromkeys(tag(code) for code in options.to))
    if options.batch_size < 1:
        raise DataError(f"--batch-size {options.batch_size}: must be 1 or more")
    if options.spread == "all" and source in to:
        raise DataError(f"--to names {source}, the language that is translated from; leave it out, or use --spread")
    if not set(to) - {source}:
        raise DataError("--to names no language to translate into; name one or more (--to de,sw)")
    return replace(options, source=source, to=to)


def _plan(source: Source, options: TranslationOptions) -> tuple[list[tuple[int, tuple[str, ...]]], int]:
    """Numbers of the samples with a text to translate and the languages of each; how many are about text in images."""
    numbers, left_out, seen = [], 0, set[str]()
    for index in range(len(source)):
        meta = source.meta(index)
        seen.update(meta.languages)
        if options.source not in meta.languages:
            continue
        if not options.text_in_images and source[index].task in TEXT_IN_IMAGES:
            left_out += 1
        else:
            numbers.append(index)
    if not numbers:
        if left_out:
            raise DataError(
                f"all {left_out} samples are about text in images, which a translation does not change; give "
                "--text-in-images to translate them all the same"
            )
        raise DataError(f"no text in {options.source} to translate; there are: {', '.join(sorted(seen)) or 'none'}")
    if options.spread == "all":
        return [(index, options.to) for index in numbers], left_out
    dealt = _dealt(len(numbers), options)
    return [(index, (language,)) for index, language in zip(numbers, dealt, strict=True)], left_out


def _dealt(count: int, options: TranslationOptions) -> list[str]:
    """One language for each of so many samples, in the shares of the spread to the nearest sample."""
    try:
        mixing = settled(_SPREADS[options.spread], dict.fromkeys(options.to, 1), options.to)
    except DataError as error:
        raise DataError(f"--spread {options.spread}: {error}") from None
    weights = mixing.weights if isinstance(mixing, WeightsMixing) else dict.fromkeys(options.to, 1.0)
    languages = list(weights)
    exact = np.array(list(weights.values())) / sum(weights.values()) * count
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: count - int(counts.sum())]] += 1  # the largest remainders
    order = np.repeat(np.arange(len(languages)), counts)
    np.random.default_rng(options.seed).shuffle(order)
    return [languages[number] for number in order.tolist()]


def _pieces(
    source: Source, planned: Iterable[tuple[int, tuple[str, ...]]], options: TranslationOptions
) -> dict[str, list[str]]:
    """What is to be translated into each language: each piece once, short ones first, so that batches pad little."""
    found: dict[str, set[str]] = {language: set() for language in options.to}
    for index, targets in planned:
        pieces = _pieces_of(source[index], options.source)
        for target in targets:
            found[target].update(pieces)
    return {
        language: sorted(pieces, key=lambda piece: (len(piece), piece))
        for language, pieces in found.items()
        if language != options.source
    }


def _pieces_of(sample: Sample, language: str) -> list[str]:
    """Lines of a sample's texts in a language, apart from the places of images."""
    texts = (
        [turn.text for turn in sample.turns if turn.language == language]
        if sample.turns
        else sample.captions.get(language, ())
    )
    return [part.strip() for text in texts for part in _APART.split(text) if not _stays(part)]


def _stays(part: str) -> bool:
    return part == IMAGE_MARK or not part.strip()


class _Memo:
    """Translations in a file, a line each as they come; a line that a kill cut is left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[str, str], str | None] = {}
        if not path.is_file() or not path.stat().st_size:
            return
        whole = 0
        for number, line in enumerate(read_lines(path, may_be_cut=True), start=1):
            target, piece, translation = parse_json(line, where=f"{path}:{number}", expected=list)
            self.known[target, piece] = translation
            whole += len(line.encode("utf-8")) + 1
        with path.open("r+b") as stream:
            stream.truncate(whole)

    def add(self, target: str, pieces: Sequence[str], translations: Sequence[str | None]) -> None:
        """Notes a batch."""
        lines = []
        for piece, translation in zip(pieces, translations, strict=True):
            self.known[target, piece] = translation
            lines.append(json.dumps([target, piece, translation], ensure_ascii=False) + "\n")
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            stream.writelines(lines)


def _fill(
    memo: _Memo, wanted: Mapping[str, Sequence[str]], translator: Translate, options: TranslationOptions, *, quiet: bool
) -> int:
    """Translates what is not known yet."""
    left = {target: [one for one in pieces if (target, one) not in memo.known] for target, pieces in wanted.items()}
    total, made = sum(map(len, left.values())), 0
    try:
        with bar("translating", total=total, unit="texts", quiet=quiet) as shown:
            for target, pieces in left.items():
                for start in range(0, len(pieces), options.batch_size):
                    batch = pieces[start : start + options.batch_size]
                    memo.add(target, batch, _translated(translator, batch, options.source, target))
                    made += len(batch)
                    shown.advance(len(batch))
    except KeyboardInterrupt as stop:
        stop.args = (f"stopped; {made:,} of {total:,} texts are translated: {_AGAIN}",)
        raise
    return made


def _translated(translator: Translate, batch: Sequence[str], source: str, target: str) -> list[str | None]:
    try:
        found = list(translator(batch, source, target))
    except VlkitError:
        raise
    except Exception as error:
        raise DataError(f"the translator fails: {type(error).__name__}: {error}") from error
    if len(found) != len(batch) or not all(one is None or isinstance(one, str) for one in found):
        raise DataError(
            f"the translator gave {len(found)} results for {len(batch)} texts; it must give a text, or None, for each"
        )
    return [None if one is None else " ".join(one.split()) or None for one in found]
