"""What the page shows of texts: nothing in them acts, and each runs in its own direction."""

from __future__ import annotations

from html.parser import HTMLParser

from vlkit.demo.cards import MOST_BARS, bars, called, card, grid, notes, problem, spoken
from vlkit.evaluation.classify.zero_shot import Prediction

NASTY = "<script>alert(1)</script> <img src=x onerror=x> ${1+1} {{ y }} \x1b[31m \u202e&amp;"


class Read(HTMLParser):
    """Names of elements, values of attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def predictions(*labels: str) -> list[Prediction]:
    return [Prediction(label, 0.1, 1 / 2 ** (number + 1)) for number, label in enumerate(labels)]


def test_nothing_in_a_text_acts() -> None:
    shown = grid(
        [card(bars(predictions(NASTY, "b"), language="en"), title=NASTY, under=NASTY), spoken(NASTY, language="ar")],
        below=notes([NASTY]) + problem(NASTY),
    )
    read = Read(shown)
    assert not {"script", "img"} & set(read.tags) and read.text.count("<script>alert(1)</script>") == 6
    assert "${" not in shown and "{{" not in shown and "\x1b" not in shown and "\u202e" not in shown
    assert read.text.count("&amp;") == 6


def test_each_text_runs_in_its_own_direction() -> None:
    for shown in (bars(predictions("قطة", "cat"), language="ar"), spoken("قطة", language="ar"), problem("قطة")):
        assert ("dir", "auto") in Read(shown).attributes
    assert ("lang", "ar") in Read(bars(predictions("قطة"), language="ar")).attributes


def test_bars_are_as_long_as_their_shares() -> None:
    widths = [
        value for name, value in Read(bars(predictions("a", "b", "c"), language="en")).attributes if name == "style"
    ]
    assert widths == ["width:50.00%", "width:25.00%", "width:12.50%"]


def test_bars_stand_best_first_or_in_the_order_given_and_the_best_stands_out() -> None:
    answers = predictions("b", "c", "a")
    assert "".join(one for one in Read(bars(answers, language="en")).text if one in "abc") == "bca"
    ordered = bars(answers, language="en", order=("a", "b", "c"))
    assert "".join(one for one in Read(ordered).text if one in "abc") == "abc"
    assert ordered.count("vlkit-best") == 1 and 'class=vlkit-best><span class="vlkit-label">b<' in ordered


def test_of_many_labels_the_best_are_shown_and_the_number_told() -> None:
    answers = predictions(*(f"n{number}" for number in range(50)))
    read = Read(bars(answers, language="en", order=[f"n{number}" for number in reversed(range(50))]))
    assert read.tags.count("li") == MOST_BARS and "n0" in read.text and "n49" not in read.text
    assert f"the best {MOST_BARS} of 50 labels" in read.text


def test_languages_have_their_own_name_first() -> None:
    assert called("de") == "Deutsch · German" and called("en") == "English"
