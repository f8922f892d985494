"""Captions that change their language half way: what speakers of two languages write, and a model should understand.

The two forms are those of NeoBabel's code-switching similarity (arXiv 2507.06137): English first, and English second.
How the prompts were cut is not published; here it is at the boundary of a clause nearest the middle, or where none is
near it, of a word, or of a syllable sign where the script has no blanks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlkit.line_breaks import cells, pieces

# What ends a clause in Latin, Greek, Arabic, Indic, Chinese, Japanese, Ethiopic, Burmese, Khmer, Armenian, Tibetan.
_CLAUSE_ENDS = frozenset(".,;:!?…—–·،؛؟۔।॥、。，；：！？．፣፤፥።၊။។։།")
_MIDDLE = (0.25, 0.75)  # where a clause has to end for a text to be cut there
_STREAM = 1  # of a row's seed; its image is varied by the seed itself


def halves(text: str) -> tuple[str, str] | None:
    """A text in two, cut nearest its middle; together they are the text. None for one of a single word.

    Widths count: wide characters twice, marks not at all.
    """
    parts = pieces(text.strip())
    widths = np.array([cells(part) for part in parts], dtype=np.float64)
    if len(parts) < 2 or not widths.sum():
        return None
    shares = widths.cumsum()[:-1] / widths.sum()  # of the text before each place where it can be cut
    clauses = [
        place
        for place, part in enumerate(parts[:-1])
        if part.rstrip()[-1:] in _CLAUSE_ENDS and _MIDDLE[0] <= shares[place] <= _MIDDLE[1]
    ]
    cut = min(clauses or range(len(shares)), key=lambda place: abs(shares[place] - 0.5)) + 1
    return "".join(parts[:cut]), "".join(parts[cut:])


def switched(text: str, english: str, *, english_first: bool) -> str:
    """The first half of one text and the second half of the other; ``text`` itself where either cannot be cut.

    ``english`` says the same as ``text`` does.
    """
    cut, cut_english = halves(text), halves(english)
    if cut is None or cut_english is None:
        return text
    first, second = (cut_english[0], cut[1]) if english_first else (cut[0], cut_english[1])
    return f"{first.rstrip()} {second.lstrip()}"


@dataclass(frozen=True)
class CodeSwitch:
    """``code_switch(text, english, seed=...)``: a share of captions, in 0..1, is mixed with English ones.

    As many begin in English as end in it. Which captions they are is a function of the seed alone.
    """

    share: float

    def __call__(self, text: str, english: str, *, seed: int) -> str:
        """The caption, or a mixture of it and its English translation, where there is one."""
        mixes, begins = np.random.default_rng([seed, _STREAM]).random(2).tolist()
        if mixes >= self.share or not english or english == text:
            return text
        return switched(text, english, english_first=begins < 0.5)
