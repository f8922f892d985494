"""What the page shows of answers, as HTML: every text of a visitor or model escaped, and in its own direction."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from vlkit import languages
from vlkit.foreign import printable

if TYPE_CHECKING:
    from vlkit.evaluation.classify.zero_shot import Prediction

MOST_BARS = 20
"""Answers that a card shows."""


def safe(text: str) -> str:
    """A text in which nothing is taken for an element, a placeholder of a template, or a control character."""
    return escape(printable(text)).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def problem(message: str) -> str:
    """What went wrong, as a visitor reads it."""
    return f'<div class="vlkit-problem" role="alert" dir="auto">{safe(message)}</div>'


def notes(texts: Sequence[str]) -> str:
    """What a visitor should know of an answer."""
    return "".join(f'<p class="vlkit-note" dir="auto">{safe(text)}</p>' for text in dict.fromkeys(texts))


def called(tag: str) -> str:
    """A language as people call it: its own name, and its English one where that is another."""
    row = languages.get(tag)
    return row.name if row.autonym.casefold() == row.name.casefold() else f"{row.autonym} · {row.name}"


def card(body: str, *, title: str = "", under: str = "") -> str:
    """A frame with a title, such as a language, and what stands under it, such as a model."""
    head = f'<h3 dir="auto">{safe(title)}</h3>' if title else ""
    head += f'<p class="vlkit-under" dir="auto">{safe(under)}</p>' if under else ""
    return f'<section class="vlkit-card">{head}{body}</section>'


def grid(cards: Sequence[str], *, below: str = "") -> str:
    """Cards side by side where there is room, else one below the other."""
    return f'<div class="vlkit-grid">{"".join(cards)}</div>{below}'


def bars(answers: Sequence[Prediction], *, language: str, order: Sequence[str] = ()) -> str:
    """Answers with their shares as bars, each running as its label does; the best one stands out.

    They stand best first, or in the ``order`` of their labels if that is given and all of them are shown.
    """
    best, shown = answers[0].label, list(answers[:MOST_BARS])
    if order and len(answers) <= MOST_BARS:
        place = {label: number for number, label in enumerate(order)}
        shown.sort(key=lambda one: place[one.label])
    rows = "".join(
        f'<li dir="auto"{" class=vlkit-best" if one.label == best else ""}>'
        f'<span class="vlkit-label">{safe(one.label)}</span>'
        f'<span class="vlkit-share" dir="ltr">{100 * one.probability:.1f} %</span>'
        f'<span class="vlkit-track"><span style="width:{100 * one.probability:.2f}%"></span></span></li>'
        for one in shown
    )
    more = f'<p class="vlkit-note">the best {MOST_BARS} of {len(answers):,} labels</p>'
    return f'<ol lang="{escape(language)}">{rows}</ol>' + (more if len(answers) > MOST_BARS else "")


def spoken(text: str, *, language: str = "", writing: bool = False) -> str:
    """What a model wrote, in the direction of its language; ``writing`` while more is to come."""
    mark = f'lang="{escape(language)}" dir="auto"' if language else 'dir="auto"'
    more = ' <span class="vlkit-more" aria-hidden="true">▍</span>' if writing else ""
    return f'<p class="vlkit-answer" {mark}>{safe(text.strip())}{more}</p>'
