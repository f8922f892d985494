"""Prompts of vision-language models: what one says about an image so that the answer comes in a language.

Some name the language in English ("Describe the image in German."), some are in the language itself ("Beschreibe das
Bild."); mBLIP (arXiv 2307.06930, section 3) trains on both in turn, so that a model understands either.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from vlkit import languages
from vlkit.errors import DataError, UnknownName, did_you_mean
from vlkit.files import packaged
from vlkit.foreign import check_size, parse_yaml

Wording = Literal["english", "native", "both"]
QUESTION = "{question}"
_LANGUAGE, _AUTONYM = "{language}", "{autonym}"
_SLOTS = (_LANGUAGE, _AUTONYM, QUESTION)
_SLOT = re.compile(r"\{\w*\}")
_SHOWN = 5


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of one task: ``english`` ones with the slots still in them, ``native`` ones by BCP 47 tag.

    ``asks``: they have a slot for a question.
    """

    english: tuple[str, ...]
    native: Mapping[str, tuple[str, ...]]
    asks: bool

    def of(self, language: str, wording: Wording) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """English and native prompts of a language; where those that were asked for are missing, the others."""
        known = languages.get(language)
        names = {_LANGUAGE: known.name, _AUTONYM: known.autonym}
        english = tuple(_SLOT.sub(lambda slot: names.get(slot[0], slot[0]), one) for one in self.english)
        native = self.native.get(known.tag, ())
        if wording == "english":
            return (english, ()) if english else ((), native)
        if wording == "native":
            return ((), native) if native else (english, ())
        return english, native


def tasks() -> tuple[str, ...]:
    """What vlkit has prompts for."""
    return tuple(_tables(None))


def question_prompts(
    task: str, language: str, *, wording: Wording = "both", file: str | Path | None = None
) -> tuple[str, ...]:
    """The prompts of a task for answers in a language: first those in English that name it, then native ones.

    The first is the plainest. ``{question}`` still stands in those of tasks that ask one. A language that has none of
    its own is asked for in English, whatever ``wording`` says.

    Args:
        task: ``caption``, ``name``, ``vqa``, ``yes_no``, ``translate``, or a task of ``file``.
        language: A BCP 47 tag, or any code or name of the language.
        wording: Which prompts.
        file: A YAML or JSON file of one's own; None takes the prompts of vlkit.

    Raises:
        UnknownName: No such task or language.
        DataError: A file that cannot be used, or nothing for this language in it.
    """
    english, native = _found(_tables(file), task, language, wording=wording)
    return english + native


class ImagePrompts:
    """Chooses a prompt for each sample, by its task and language; see ``question_prompts``.

    ``task`` is that of captioned samples which name none that has prompts; ``file`` is as there, and read once.

    Raises:
        UnknownName: No such task.
        DataError: A file that cannot be used; a task that asks a question, which captions have none for.
    """

    def __init__(self, task: str, wording: Wording, file: str | None) -> None:
        self.task, self.wording = task, wording
        self._tasks = _tables(file)
        if _task(self._tasks, task).asks:
            raise DataError(
                f"data.prompts.task: the prompts of {task!r} ask a question, and captions answer none; "
                "give the task of samples with questions in their source (task: vqa)"
            )

    def asks(self, task: str) -> bool:
        """Whether questions of samples of this task are put into a prompt."""
        return task in self._tasks and self._tasks[task].asks

    def choose(self, language: str, *, task: str, number: int, question: str = "") -> str:
        """One of the prompts; ``number`` 0, 1, 2, ... goes round all of them, English and native ones in turn.

        Where there are both, each kind is every second one, and equally often each of its prompts.

        Raises:
            DataError: A file of one's own has none for this task and language.
        """
        if task not in self._tasks or (self.asks(task) and not question):
            task = self.task
        english, native = _found(self._tasks, task, language, wording=self.wording)
        return _in_turn(english, native, number).replace(QUESTION, question)


def _in_turn(english: Sequence[str], native: Sequence[str], number: int) -> str:
    if not (english and native):
        return (english or native)[number % len(english or native)]
    step, kind = divmod(number % (2 * math.lcm(len(english), len(native))), 2)
    chosen = native if kind else english
    return chosen[step % len(chosen)]


def _found(
    tasks: Mapping[str, TaskPrompts], task: str, language: str, *, wording: Wording
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    english, native = _task(tasks, task).of(language, wording)
    if not (english or native):
        tag = languages.normalize(language)
        raise DataError(f"the prompt file has none of {task} in {tag}, and no english ones that name the language")
    return english, native


def _task(tasks: Mapping[str, TaskPrompts], task: str) -> TaskPrompts:
    if task not in tasks:
        raise UnknownName("task with prompts", task, allowed=tasks)
    return tasks[task]


def _tables(file: str | Path | None) -> dict[str, TaskPrompts]:
    if file is None:
        return _read(str(packaged("data") / "image_prompts.yaml"), 0)
    try:
        return _read(str(file), Path(file).stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"cannot read prompt file {file}: {(error.strerror or str(error)).lower()}") from None


@lru_cache(maxsize=8)
def _read(path: str, changed: int) -> dict[str, TaskPrompts]:
    """Tasks and prompts of a file; ``changed`` is when, so that a file is read anew where it has."""
    del changed
    where = f"prompt file {path}"
    check_size(Path(path).stat().st_size, what=where)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    content = parse_yaml(text, where=where)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{where}: must map tasks to prompts: {{caption: {{english: [...], native: {{de: [...]}}}}}}")
    problems: list[str] = []
    tables = {str(task): _read_task(str(task), entry, problems) for task, entry in content.items()}
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(f"{where}: {'; '.join(problems[:_SHOWN])}{more}")
    return tables


def _read_task(task: str, entry: Any, problems: list[str]) -> TaskPrompts:
    if not isinstance(entry, dict) or not entry or set(entry) - {"english", "native"}:
        problems.append(f"{task}: must have english, a list of prompts, or native, a list for each language, or both")
        return TaskPrompts((), {}, asks=False)
    english = _read_list(f"{task}.english", entry.get("english", []), problems)
    native: dict[str, tuple[str, ...]] = {}
    given = entry.get("native", {})
    if not isinstance(given, dict):
        problems.append(f"{task}.native: must map language codes to lists of prompts")
        given = {}
    for code, prompts in given.items():
        try:
            tag = languages.normalize(str(code))
        except UnknownName as error:
            problems.append(f"{task}.native: {error}")
            continue
        if tag in native:
            problems.append(f"{task}.native.{code}: the file has {tag} twice")
        native[tag] = _read_list(f"{task}.native.{code}", prompts, problems)
    all_of_them = [one for prompts in (english, *native.values()) for one in prompts]
    if not all_of_them:
        problems.append(f"{task}: no prompts")
    with_question = [QUESTION in one for one in all_of_them]
    if any(with_question) and not all(with_question):
        without = all_of_them[with_question.index(False)]
        problems.append(f"{task}: {without!r} has no {QUESTION}, others of the task have; all need it, or none")
    return TaskPrompts(english, native, asks=any(with_question))


def _read_list(place: str, prompts: Any, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(prompts, list) or not all(isinstance(one, str) and one.strip() for one in prompts):
        problems.append(f"{place}: must be a list of texts, none of them blank")
        return ()
    for one in prompts:
        problems += [f"{place}: {one!r} {fault}" for fault in _faults(one)]
    return tuple(prompts)


def _faults(prompt: str) -> list[str]:
    found = [] if prompt.count(QUESTION) < 2 else [f"has {prompt.count(QUESTION)} places for a question; keep one"]
    for name in _SLOT.findall(prompt):
        if name not in _SLOTS:
            found.append(f"has the slot {name!r}; {did_you_mean(name, _SLOTS)}")
    return found
