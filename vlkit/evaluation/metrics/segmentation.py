"""Words of languages that are written without blanks, cut by a library where it is installed, else by characters.

What CIDEr, BLEU and ROUGE-L of Chinese, Japanese, Thai, Khmer, Lao, Burmese and Tibetan are depends on this more than
on anything else, so each row of results says which one it was, and its version.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

from vlkit import languages as language_table
from vlkit.errors import MissingPackage, VlkitError
from vlkit.evaluation.metrics.ptb_words import ptb_words
from vlkit.evaluation.metrics.text_match import characters, is_unspaced
from vlkit.registry import Registry

BLANKS, CHARACTERS = "blanks", "characters"
_DICTIONARIES = {"sudachipy": ("sudachidict_core",)}  # in packages of their own
_EXTRA, _PURPOSE = "segmentation", "cutting texts without blanks into words"


class Segmenter(Protocol):
    """Cuts a text into words."""

    def __call__(self, text: str) -> list[str]:
        """The words of a text in NFC, in order; blanks may stand among them."""


SEGMENTERS = Registry(
    "segmenter",
    {
        BLANKS: "vlkit.evaluation.metrics.segmentation:Blanks",
        CHARACTERS: "vlkit.evaluation.metrics.segmentation:Characters",
        "rjieba": "vlkit.evaluation.metrics.segmentation:Rjieba",
        "sudachipy": "vlkit.evaluation.metrics.segmentation:Sudachi",
        "pythainlp": "vlkit.evaluation.metrics.segmentation:PyThai",
        "icu4py": "vlkit.evaluation.metrics.segmentation:Icu",
    },
    hint="See the section Text metrics of docs/vlm_evaluation.md.",
)
"""Name, which is that of the package, to a class without arguments that is a ``Segmenter``."""

USUAL: Mapping[str, str] = {
    "Hans": "rjieba",
    "Hant": "rjieba",
    "Jpan": "sudachipy",
    "Thai": "pythainlp",
    "Khmr": "icu4py",
    "Laoo": "icu4py",
    "Mymr": "icu4py",
    "Tibt": "icu4py",
}
"""By script the segmenter that is taken where it is installed and no other is asked for."""


class Blanks:
    """Words stand between blanks already."""

    def __call__(self, text: str) -> list[str]:
        """The text as it is."""
        return text.split()


class Characters:
    """Each character, with the marks on it, is a word: as mBLIP and Centurio cut Chinese."""

    def __call__(self, text: str) -> list[str]:
        """The characters but for blanks."""
        return characters(text)


class Rjieba:
    """Chinese words by jieba's dictionary and model, in Rust.

    Raises:
        MissingPackage: rjieba is not installed.
    """

    def __init__(self) -> None:
        try:
            import rjieba
        except ImportError:
            raise MissingPackage("rjieba", purpose=_PURPOSE, extra=_EXTRA) from None
        self._cut: Callable[[str], list[str]] = rjieba.cut

    def __call__(self, text: str) -> list[str]:
        """Its words."""
        return list(self._cut(text))


class Sudachi:
    """Japanese words by SudachiPy and its core dictionary, the shortest units (A): what mBLIP and Centurio took.

    Raises:
        MissingPackage: sudachipy or sudachidict_core is not installed.
    """

    def __init__(self) -> None:
        try:
            import sudachidict_core  # noqa: F401
            from sudachipy import Dictionary, SplitMode
        except ImportError:
            raise MissingPackage("sudachipy", purpose=_PURPOSE, extra=_EXTRA) from None
        self._tokenizer: Any = Dictionary(dict="core").tokenizer(mode=SplitMode.A)

    def __call__(self, text: str) -> list[str]:
        """Its words, as they are written."""
        return [one.surface() for one in self._tokenizer.tokenize(text)]


class PyThai:
    """Thai words by PyThaiNLP (newmm, the longest match in its dictionary): what mBLIP and Centurio took.

    Raises:
        MissingPackage: pythainlp is not installed.
    """

    def __init__(self) -> None:
        try:
            from pythainlp.tokenize import word_tokenize
        except ImportError:
            raise MissingPackage("pythainlp", purpose=_PURPOSE, extra=_EXTRA) from None
        self._cut: Callable[..., list[str]] = word_tokenize

    def __call__(self, text: str) -> list[str]:
        """Its words."""
        return list(self._cut(text, engine="newmm"))


class Icu:
    """Words by the dictionaries and rules of ICU: Khmer, Lao, Burmese, Thai, Chinese, Japanese; Tibetan syllables.

    Raises:
        MissingPackage: icu4py is not installed.
    """

    def __init__(self) -> None:
        try:
            from icu4py.breakers import WordBreaker
        except ImportError:
            raise MissingPackage("icu4py", purpose=_PURPOSE, extra=_EXTRA) from None
        self._breaker: Callable[..., Any] = WordBreaker

    def __call__(self, text: str) -> list[str]:
        """Its words; which locale it is told makes no difference to these scripts."""
        return list(self._breaker(text, "en"))


@dataclass(frozen=True)
class CaptionWords:
    """How captions in a language are cut into the words that CIDEr, ROUGE-L and COCO's BLEU count.

    A text is made NFC, cut by the segmenter, and its pieces, with blanks between them, into PTB words.

    Attributes:
        segmenter: Cuts it.
        said: What results say of it: ``PTB``, ``pythainlp 5.4.0 + PTB``.
        lacking: The package that words of the language are usually cut by, where it is not installed.
    """

    segmenter: Segmenter
    said: str
    lacking: str = ""
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, text: str) -> tuple[str, ...]:
        """The words of a text; a text that comes again is not cut again."""
        found = self._known.get(text)
        if found is None:
            pieces = self.segmenter(unicodedata.normalize("NFC", text))
            found = self._known[text] = tuple(ptb_words(" ".join(pieces)))
        return found


def caption_words(language: str, segmenter: str | None = None) -> CaptionWords:
    """How texts in a language (BCP 47) are cut, by the segmenter that is asked for or by the usual one of its script.

    Without the package of the usual one characters are taken, and ``said`` tells what is missing.

    Raises:
        UnknownName: No such segmenter.
        MissingPackage: The one that is asked for is not installed.
        VlkitError: ``blanks`` for a language that is written without them.
    """
    if segmenter == BLANKS and is_unspaced(language):
        raise VlkitError(
            f"segmenter {BLANKS!r} for {language}, which is written without blanks: its sentences would be one word; "
            f"take {CHARACTERS!r} or one of {', '.join(sorted(set(SEGMENTERS) - {BLANKS, CHARACTERS}))}"
        )
    usual = USUAL.get(language_table.get(language).script, BLANKS)
    name = segmenter or usual
    try:
        made: Segmenter = SEGMENTERS.get_object(name)()
    except MissingPackage:
        if segmenter:
            raise
        return CaptionWords(Characters(), f"{CHARACTERS} ({usual} is not installed) + PTB", lacking=usual)
    return CaptionWords(made, "PTB" if name == BLANKS else f"{_with_version(name)} + PTB")


def _with_version(name: str) -> str:
    found = []
    for package in (name, *_DICTIONARIES.get(name, ())):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # characters, or one of the user's own
            found.append(package)
    return " with ".join(found)
