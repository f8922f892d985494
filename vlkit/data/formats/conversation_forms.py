"""The forms in which conversations about images come, read into one: turns of user and assistant, in their languages.

Understood are ``turns`` (``role``, ``text``, ``language``), LLaVA's ``conversations`` (``from``, ``value``), and
mBLIP's and Centurio's ``context`` and ``label``, which are texts or lists of them; evaluation files of theirs leave
``label`` empty and have ``text_label``. An image stands where a turn has ``<image>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vlkit.data.formats.caption_forms import CaptionError, tag
from vlkit.errors import DataError, did_you_mean
from vlkit.foreign import clean, json_kind
from vlkit.types import IMAGE_MARK, Turn

Role = Literal["user", "assistant", "system"]
_ROLES: dict[str, Role] = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"
}  # fmt: skip
_FORMS = (("turns", "role", "text"), ("conversations", "from", "value"))
_OTHER_MARKS = ("<image_placeholder>",)


def holds_conversation(record: Mapping[str, Any]) -> bool:
    """Whether a record is a conversation in one of the forms."""
    return any(record.get(name) is not None for name, *_ in _FORMS) or ("context" in record and "label" in record)


def parse_turns(record: Mapping[str, Any], *, language: str | None) -> tuple[Turn, ...]:
    """The turns of one record, in order; () for one that is no conversation.

    ``language`` is that of turns where neither they nor the record (``language``, ``lang``) name one.

    Raises:
        CaptionError: A wrong form, an unknown language or none, or no answer.
    """
    if not holds_conversation(record):
        return ()
    usual = str(record.get("language") or record.get("lang") or language or "")
    form = next((form for form in _FORMS if record.get(form[0]) is not None), None)
    turns = _asked(record, usual) if form is None else _listed(record, form, usual)
    if not any(turn.role == "assistant" for turn in turns):
        raise CaptionError("its conversation has no answer (a turn of the assistant)")
    return tuple(turns)


def check_places(turns: tuple[Turn, ...], images: int) -> None:
    """Checks that a conversation has an image for each place of one.

    Raises:
        CaptionError: It has fewer.
    """
    places = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if places > images:
        raise CaptionError(
            f"its turns have {places} place{'s' * (places > 1)} for images ({IMAGE_MARK}), and it has "
            f"{images or 'no'} image{'s' * (images != 1)}"
        )


def _listed(record: Mapping[str, Any], form: tuple[str, str, str], usual: str) -> list[Turn]:
    name, who, what = form
    given = record[name]
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise CaptionError(f"{name!r} must be a list of objects such as {{{who!r}: 'user', {what!r}: '...'}}")
    turns = []
    for number, one in enumerate(given, start=1):
        role = _ROLES.get(str(one.get(who)))
        if role is None:
            raise CaptionError(f"turn {number}: {who!r} is {one.get(who)!r}; {did_you_mean(str(one.get(who)), _ROLES)}")
        turns.append(_turn(role, one.get(what), str(one.get("language") or usual), place=f"turn {number}: {what!r}"))
    return turns


def _asked(record: Mapping[str, Any], usual: str) -> list[Turn]:
    questions, answers = (_texts(record, name) for name in ("context", "label"))
    if not any(answers) and record.get("text_label") is not None:
        answers = _texts(record, "text_label")[: len(questions)]  # of several that are right, the first
    if len(questions) != len(answers):
        raise CaptionError(f"'context' has {len(questions)} texts and 'label' {len(answers)}; each needs its answer")
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns.append(_turn("user", question, usual, place="'context'"))
        turns.append(_turn("assistant", answer, usual, place="'label'"))
    return turns


def _texts(record: Mapping[str, Any], name: str) -> list[Any]:
    given = record.get(name)
    return list(given) if isinstance(given, list) else [given]


def _turn(role: Role, text: Any, language: str, *, place: str) -> Turn:
    if not isinstance(text, str):
        raise CaptionError(f"{place} is {json_kind(type(text))}, expected text")
    for mark in _OTHER_MARKS:
        text = text.replace(mark, IMAGE_MARK)
    try:
        text = clean(text)
    except DataError as error:
        raise CaptionError(f"{place}: {error}") from None
    if not text and role == "assistant":
        raise CaptionError(f"{place} is empty; an answer needs text")
    if not language:
        raise CaptionError(
            f"{place} has no language: add a 'language' field or set the source's language (language: en)"
        )
    return Turn(role, text, tag(language))
