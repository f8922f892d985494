"""Lines end between words or syllables, in scripts with blanks and without."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vlkit.line_breaks import cells, pieces, wrap

TEXT = "The river rises in the mountains, flows through three old towns and reaches the sea after ninety kilometres."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Ein Haus, (alt) 35 km!", "Ein |Haus, |(alt) |35 |km!"),
        ("この川は「山」に、35km流れて３５メートル。", "こ|の|川|は|「山」|に、|35km|流|れ|て|３５|メー|ト|ル。"),
        ("แม่น้ำเก่า 35 ตัว", "แม่|น้ำ|เก่า |35 |ตั|ว"),
        ("တောင်များ စီးဆင်းပြီး ၃၅", "တောင်|များ |စီး|ဆင်း|ပြီး |၃၅"),
        ("ភ្នំ ទន្លេ ៣៥", "ភ្នំ |ទ|ន្លេ |៣៥"),
        ("བོད་ཡིན།", "བོ|ད་|ཡི|ན།"),
        ("산에서 시작하여", "산에서 |시작하여"),
    ],
)
def test_lines_may_end_between_words_or_syllables_and_before_no_mark(text: str, wanted: str) -> None:
    assert "|".join(pieces(text)) == wanted and "".join(pieces(text)) == text


def test_wrapped_lines_are_as_long_as_fits_and_lose_nothing() -> None:
    lines = wrap(pieces(TEXT), 30, len)
    assert lines is not None and " ".join(lines) == TEXT and max(map(len, lines)) <= 30
    assert all(len(line) + 1 + len(after.split()[0]) > 30 for line, after in pairwise(lines))
    assert wrap(["abcdef"], 5, len) is None and wrap(["ab ", "abcdefg"], 5, len) is None
    assert cells("ab中\u0301") == 4
