"""Words of captions as the COCO evaluation counts them: Penn Treebank words in lower case, without punctuation.

What is published as CIDEr, BLEU or ROUGE-L of captions was nearly always cut into words by the PTBTokenizer of Stanford
CoreNLP 3.4.1, with the punctuation of Chen et al. (arXiv 1504.00325, section 3) left out. Here are its rules, without
Java. They were found by giving it texts, and the tests hold words that it gave.

Deliberate differences, none of which plain English meets:

- Letters and marks that it does not know (Burmese vowels, say) are kept; it cuts words at them and loses them.
- A number with a fraction (``1 1/2``) and a telephone number are several words; it puts a no-break space between them.
- Each text stands alone; where one ends with a single letter (``plan B.``), it looks at the beginning of the next.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LETTER, _SIGN = "[A-Za-zÉé]", "[A-Za-zÉé0-9]"

# Words that keep their period; of the second list only with a capital, of the third only before a number.
_ALWAYS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf"
    " cie cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga gen"
    " gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn"
    " mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph ph.d plc ppte ppty pres prof"
    " profs pte ptes pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel"
    " tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo"
)
_CAPITAL = "Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"
_NUMBERED = "art ca fig figs no nos op pp prop"

# Words that begin a sentence after a single letter with a period, which is then no part of the letter.
_STARTERS = (
    "a about according additionally after an as at but earlier he her here however if in it last many more now once one"
    " other our she since so some such that the their then there these they this we what when while yet you"
)
_FIXED = "'em 'n' c'mon c'est s'mores e'er ev'ry li'l nat'l nor'easter 'cause 'till 'til dunkin' somethin' l' d' j'"
_SPLIT = "(can)not|(gon)na|(got)ta|(wan)na|(lem)me|(gim)me|('t)is|('t)was"
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&nbsp;": " "}
_FRACTIONS = {"¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 "}
_MONEY = {"€": "$", "¤": "$", "₠": "$", "£": "#", "¢": "cents"}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_DROPPED = re.compile(r"[.?!,:;'`\"‘’‛“”«»‹›…]|''|``|\.{3,}|[-–—―]+")
_BEFORE_NUMBERS, _SENTENCES = frozenset(_NUMBERED.split()), frozenset(_STARTERS.split())


def _joined(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True)).replace(".", r"\.")


_ACRONYM = r"(?:[A-Za-z]\.){2,}"
_PART = rf"(?:[DLOdlo]'(?={_LETTER}{{2}}))?{_SIGN}+"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ABBREVIATION = rf"(?:(?i:{_joined(_ALWAYS)})|(?:{_joined(_CAPITAL)}))"

_CLITIC = rf"'(?:s|m|d|ll|re|ve)(?!{_LETTER})"

# Of all that fit at a place the longest counts, and of these the first; group 1 is the word, where it is not all of it.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        r"</?[A-Za-z][^<>\s]*>",
        r"(?i:https?://|www\.|[a-z][a-z0-9-]{2,}\.(?:com|net|org|edu)/)[^\s\"<>]*[^\s\"<>.,;:!?'()]",
        r"[A-Za-z0-9._+%-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?",
        r"@[A-Za-z_][A-Za-z0-9_]*",
        r"#[A-Za-zÉé_]+",
        rf"(?i:{_SPLIT}|(more)'n(?!{_LETTER}))",
        rf"({_LETTER}+?)(?i:n['`]t)",
        rf"({_LETTER}{_SIGN}*)(?i:{_CLITIC})",
        rf"(?i:n['`]t|{_CLITIC})",
        rf"(?i:{_joined(_FIXED)}|'n(?![A-Za-z-])|(?:ol|y)'(?![A-Za-z]{2}))",
        r"'[2-9]0[sS]|'[0-9]{2}(?![A-Za-z0-9'])",
        rf"[A-HJ-XZdlno]'{_LETTER}{{2}}{_SIGN}*",
        rf"{_LETTER}+[aeiouyAEIOUY]'[aeiouA-Z]{_LETTER}*",
        rf"[0-9]+(?:[.,][0-9]+)+(?:-{_SIGN}+)*",
        r"[+-]?[0-9]*(?:[.,:][0-9]+)+",
        r"[+-]?[0-9]+",
        r"[0-9]+-[0-9]+/[0-9]+",
        r"[0-9.]*[0-9]\.x(?![A-Za-z0-9])",
        rf"{_PART}(?:[-_‐]{_PART})*(?:\.(?=[,;:]))?",
        rf"{_SLASHED}(?:/{_SLASHED}){{1,2}}",
        rf"{_LETTER}{_SIGN}*(?:[.!?]{_LETTER}{_SIGN}*)+(?:-{_SIGN}+)*",
        rf"(?:{_SIGN}+-)*{_ACRONYM}(?:-(?:{_ACRONYM}|{_SIGN}+))*",
        rf"(?:{_ABBREVIATION}|[A-Za-z])\.(?:-{_SIGN}+)*",
        rf"(?i:{_joined(_NUMBERED)})\.(?=[0-9]|$)",
        r"[A-Z]+(?:[&+][A-Z]+)+",
        r"[A-Z]{1,2}\$",
        r"[Cc]\+\+|[CFcf]#",
        r"[<>]?[:;=][-o*']?[()DPpO](?![A-Za-z0-9])|\^_\^",
        r"-{2,}|\.{3,}|[!?]{2,}|\*+|_+|#{2,}|@{2,}|<<|>>|''|``",
        r".",
    )
)
_PLAIN = re.compile("(?!(?i:cannot|gonna|gotta|wanna|lemme|gimme)$)[A-Za-zÉé]+")


class _Shapes(dict[int, str]):
    """What the rules see of each character: letters that are not ASCII as É or é, others as they are or as a blank."""

    def __missing__(self, code: int) -> str:
        self[code] = seen = _shape(chr(code))
        return seen


def _shape(sign: str) -> str:
    kind = unicodedata.category(sign)
    if ord(sign) < 128:
        return sign
    if sign in "’֊‐‑":
        return "'" if sign == "’" else "‐"
    if kind in ("Cf", "Cc", "Cn", "Co", "Cs", "Me", "Zs") or "\ufe00" <= sign <= "\ufe0f":
        return " "
    if kind[0] in "LM" or kind in ("Nd", "Nl"):
        return "É" if kind in ("Lu", "Lt") else "é"
    return " " if ord(sign) > 0xFFFF else sign  # emoji, which CoreNLP loses as well


_SHAPES = _Shapes()


def ptb_words(text: str) -> list[str]:
    """The words of a text, after NFC, in lower case and without punctuation.

    Clitics are words (``n't``, ``'s``), brackets are words with names (``-lrb-``: the published list leaves out
    ``-LRB-``, which the lower case hides from it), pounds are ``#`` and euros ``$``.
    """
    whole = unicodedata.normalize("NFC", text).replace("\u00ad", "")
    for sign, written in (*_FRACTIONS.items(), *_ENTITIES.items()):
        whole = whole.replace(sign, written)
    shape = whole.translate(_SHAPES)
    spans = [match.span() for match in re.finditer(r"\S+", shape)]
    found: list[str] = []
    for place, (start, end) in enumerate(spans):
        after = shape[slice(*spans[place + 1])] if place + 1 < len(spans) else ""
        numbers, sentence = after[:1].isdigit(), after[:1].isupper() and after.lower() in _SENTENCES
        found += _chunk_words(whole[start:end], before_number=numbers, before_sentence=sentence)
    return found


@lru_cache(maxsize=1 << 16)
def _chunk_words(chunk: str, *, before_number: bool, before_sentence: bool) -> tuple[str, ...]:
    """The words of what stands between two blanks."""
    shape = chunk.translate(_SHAPES)
    if _PLAIN.fullmatch(shape):
        return (chunk.lower(),)
    found, start = [], 0
    while start < len(shape):
        fitting = [match for rule in _RULES if (match := rule.match(shape, start))]
        best = max(fitting, key=lambda match: match.end())
        end = best.end(best.lastindex or 0)
        text, seen = chunk[start:end], shape[start:end]
        ends_sentence = before_sentence and len(seen) == 2
        lacks_number = not before_number and seen[:-1].lower() in _BEFORE_NUMBERS
        if seen[-1] == "." and end == len(shape) and (ends_sentence or lacks_number):
            text, seen = text[:-1], seen[:-1]
        if not _DROPPED.fullmatch(text):
            found.append(_written(text, seen))
        start = end
    return tuple(found)


def _written(text: str, shape: str) -> str:
    if text in _MONEY:
        return _MONEY[text]
    if re.fullmatch(rf"(?i:n't|{_CLITIC})", shape):
        return text.lower().replace("’", "'")
    if not shape[0].isalnum() and len(shape) < 5:  # brackets and faces
        text = "".join(_BRACKETS.get(sign, sign) for sign in text)
    return text.lower()
