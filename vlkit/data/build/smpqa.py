"""Plots with words in many languages, and questions that only who reads them can answer: sets as SMPQA is.

SMPQA is that of Centurio (arXiv 2501.05122, section 2.5 and appendix C.5): the same plots and questions in each
language, with other words. The files are laid out as Centurio's evaluation reads its own: ``LANG_ground.json`` and
``LANG_name.json`` with ``context``, an empty ``label``, ``text_label`` and ``image_id``. What is not published, ranges,
colours and word lists, is vlkit's own, so scores on such a set are not those on SMPQA.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from vlkit import files
from vlkit import languages as table
from vlkit.data.batches.workers import in_workers
from vlkit.data.build.builders import stopped
from vlkit.data.build.chart_drawing import MAX_EMS, draw_chart
from vlkit.data.build.chart_plans import GROUNDING, READING, ChartPlan, chart_plans, questions_about
from vlkit.data.build.chart_words import WordSet, begins_as, find_words, in_order
from vlkit.data.build.fonts import Face, best_pair, find_faces
from vlkit.data.build.lettering import Lettering, check_shaping
from vlkit.data.formats.caption_forms import tag
from vlkit.errors import DataError, MissingPackage
from vlkit.obstacles import Obstacles
from vlkit.outputs import check_replaceable
from vlkit.progress import bar

_log = logging.getLogger(__name__)
LANGUAGES = ("en", "de", "it", "id", "zu", "ru", "zh", "ko", "hi", "ar", "th")
"""SMPQA's own, in seven scripts."""
OWN_LANGUAGES = ("en", "ru", "el", "ar", "he", "hy", "ka", "lo", "zh", "ja", "ko", "hi", "th")
"""Those of ``own_plots``, one a script."""
PLOTS = 100
_OWN_PLOTS, _OWN_VERSION = 20, 1
PROMPT = "{question}\nAnswer the question using a single word or phrase."
"""Centurio's, appendix C."""
_GROUND, _NAME, _PLANS, _IMAGES = "_ground.json", "_name.json", "plots.json", "images"
_SAMPLE = 100  # pixels per em at which words are measured
_FROM = {
    "countries": "Unicode CLDR's names of territories, as `babel` ships them. License: Unicode-3.0.",
    "emoji": "the `emoji` package's CLDR short names (and, where asked for, CLDR's annotations). License: Unicode-3.0.",
}


@dataclass(frozen=True)
class _Plot:
    """One image to be."""

    plan: ChartPlan
    words: tuple[str, ...]
    lettering: Lettering

    @property
    def path(self) -> str:
        return f"{_IMAGES}/{self.lettering.language}/{self.plan.name}.png"


def build_smpqa(
    folder: Path,
    *,
    languages: Sequence[str] = LANGUAGES,
    words: WordSet | Path = "countries",
    cldr: Path | None = None,
    fonts: Path | None = None,
    plots: int = PLOTS,
    seed: int = 0,
    workers: int = 2,
    quiet: bool = False,
) -> Path:
    """Writes plots and questions about them in each language; the same input gives the same bytes.

    A seed gives the same plots and questions in each language, whichever others are asked for: only the words differ.
    With ``words`` of one key in all languages (countries, emoji) these are mostly the same things too. Each plot has
    eight grounding questions, half of them to be answered by yes, and five reading questions.

    The folder, which is given back, is taken over when all is written: an interrupted build leaves what was there.

    Args:
        folder: Where to.
        languages: BCP 47 tags.
        words: See ``find_words``.
        cldr: See ``find_words``.
        fonts: A folder of fonts; None takes those of the system.
        plots: Images a language, half of them bar plots and half pie charts.
        seed: Of plots, questions and words.
        workers: Processes that draw; the bytes do not depend on it.
        quiet: No progress display.

    Raises:
        MissingPackage: babel, emoji or fonttools is not installed.
        DataError: No font for a language, too few words, a number out of range.
    """
    tags = tuple(dict.fromkeys(map(tag, languages)))
    if not 2 <= plots <= 1000 or plots % 2:
        raise DataError(f"--count {plots}: must be even, 2 to 1000: half bar plots, half pie charts")
    check_replaceable(
        folder,
        what="the plots of vlkit data build smpqa",
        made=lambda there: (there / _PLANS).is_file() and any(there.glob(f"*{_GROUND}")),
        names=(f"*{_GROUND}", f"*{_NAME}", _PLANS, _IMAGES, "README.md", "ATTRIBUTION"),
        inputs=[path for path in (words, cldr, fonts) if isinstance(path, Path)],
    )
    plans = chart_plans(seed, plots // 2)
    drawn = _plots(plans, find_words(words, tags, cldr=cldr), find_faces(fonts), seed=seed)
    with stopped(folder), files.atomic_folder(folder) as scratch:
        _draw(scratch, [plot for of_language in drawn.values() for plot in of_language], workers, quiet=quiet)
        for language, of_language in drawn.items():
            _write_questions(scratch, language, of_language, seed)
        _write_json(scratch / _PLANS, [{"name": plan.name, **asdict(plan)} for plan in plans])
        said = _FROM.get(str(words), f"{words}.")
        (scratch / "README.md").write_text(_readme(drawn, seed, said), encoding="utf-8")
        (scratch / "ATTRIBUTION").write_text(f"Words: {said}\n", encoding="utf-8")
    return folder


def own_plots() -> Path:
    """The cache's own plots, drawn at the first call with the system's fonts: 20 in each of ``OWN_LANGUAGES``.

    Languages that no font is found for are left out, which is logged with what to install; once there is one, they are
    drawn.

    Raises:
        MissingPackage: babel or fonttools is not installed.
        DataError: No font for any of them.
    """
    faces, fonts, lacking = find_faces(), dict[str, str](), dict[str, DataError]()
    for language, keyed in find_words("countries", OWN_LANGUAGES).items():
        try:
            fonts[language] = _lettering(language, keyed, faces).fonts.name
        except MissingPackage:
            raise
        except DataError as error:
            lacking[language] = error
    if not fonts:
        raise next(iter(lacking.values()))
    if lacking:
        named = ", ".join(f"{table.get(tag).name} ({tag})" for tag in lacking)
        _tell_once(f"left out of the plots with words: {named}: {next(iter(lacking.values()))}")
    known = [_OWN_VERSION, _OWN_PLOTS, fonts, importlib.metadata.version("babel")]
    folder = files.home() / "data" / f"smpqa-{files.digest(known)}"
    return folder if folder.is_dir() else build_smpqa(folder, languages=tuple(fonts), plots=_OWN_PLOTS)


@lru_cache(maxsize=1)
def _tell_once(message: str) -> None:
    """Two tasks of a suite ask for the same plots."""
    _log.warning(message)


def _lettering(language: str, keyed: Mapping[str, str], faces: Sequence[Face]) -> Lettering:
    text = "".join(keyed.values())
    check_shaping(language, text)
    return Lettering(best_pair(faces, language, text), language)


def _draw(folder: Path, plots: Sequence[_Plot], workers: int, *, quiet: bool) -> None:
    pictures = in_workers(_DrawnPlots(plots), workers, order=range(len(plots)), ahead=8)
    with closing(pictures), bar("building smpqa", total=len(plots), unit="images", quiet=quiet) as progress:
        for plot, picture in zip(plots, pictures, strict=True):
            path = folder / plot.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
            progress.advance()


def _plots(
    plans: Sequence[ChartPlan], words: Mapping[str, Mapping[str, str]], faces: Sequence[Face], *, seed: int
) -> dict[str, list[_Plot]]:
    """The plots of each language; all that is in the way is told at once."""
    found: dict[str, list[_Plot]] = {}
    obstacles = Obstacles()
    for language, keyed in words.items():
        with obstacles.met():
            lettering = _lettering(language, keyed, faces)
            found[language] = [
                _Plot(plan, _choose(keyed, len(plan.values), lettering, f"{seed}:{plan.name}"), lettering)
                for plan in plans
            ]
    obstacles.refuse()
    return found


def _choose(keyed: Mapping[str, str], count: int, lettering: Lettering, salt: str) -> tuple[str, ...]:
    chosen: list[str] = []
    for key in in_order(keyed, salt=salt):
        word = keyed[key]
        if not begins_as(word, chosen) and lettering.width(word, _SAMPLE) <= MAX_EMS * _SAMPLE:
            chosen.append(word)
            if len(chosen) == count:
                return tuple(chosen)
    about = table.get(lettering.language)
    raise DataError(
        f"{about.name} ({lettering.language}): {len(chosen)} of {len(keyed)} words can stand in one plot, which needs "
        f"{count}; give more words that are short and begin differently (--words)"
    )


class _DrawnPlots(Dataset[bytes]):
    def __init__(self, plots: Sequence[_Plot]) -> None:
        self.plots = plots

    def __getitem__(self, index: int) -> bytes:
        plot, stream = self.plots[index], io.BytesIO()
        draw_chart(plot.plan, plot.words, plot.lettering).save(stream, "PNG", compress_level=6)
        return stream.getvalue()


def _write_questions(folder: Path, language: str, plots: Sequence[_Plot], seed: int) -> None:
    asked: dict[str, list[dict[str, Any]]] = {_GROUND: [], _NAME: []}
    for plot in plots:
        for question in questions_about(plot.plan, seed):
            word = plot.words[question.part]
            reads = question.answer is None
            text = question.text.replace("{label}", word)
            asked[_NAME if reads else _GROUND].append(
                {
                    "context": [PROMPT.replace("{question}", text)],
                    "label": [""],
                    "text_label": word if reads else "yes" if question.answer else "no",
                    "image_id": plot.path,
                    "language": language,
                    "task": "ocr",
                    "concept": plot.plan.name,
                    "split": "test",
                }
            )
    for ending, records in asked.items():
        _write_json(folder / f"{language}{ending}", records)


def _write_json(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _readme(drawn: Mapping[str, Sequence[_Plot]], seed: int, words: str) -> str:
    rows = "\n".join(
        f"| {language} | {table.get(language).name} | {table.get(language).script} | {plots[0].lettering.fonts.name} |"
        for language, plots in drawn.items()
    )
    count = len(next(iter(drawn.values())))
    return f"""# Plots with words in {len(drawn)} languages

Built by vlkit (`vlkit data build smpqa`, seed {seed}): {count} plots a language, the same ones in each, after SMPQA
(Centurio, arXiv 2501.05122, appendix C.5). Plots, colours and words are vlkit's own; scores are not those on SMPQA.

- `LANG_ground.json`: {GROUNDING} questions a plot, half of them to be answered by yes, half by no
- `LANG_name.json`: {READING} questions a plot, to be answered by a label
- `plots.json`: values and colours; `images/LANG/`: the plots
- Words: {words}

| language | name | script | font |
| --- | --- | --- | --- |
{rows}
"""
