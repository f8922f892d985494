"""Tux Paint's stamps: pictures of things with captions that people translated into 70 languages.

The files are those of the Debian package tuxpaint-stamps-default, or of another distribution's; vlkit ships none.
Beside ``NAME.png`` or ``NAME.svg`` stands ``NAME.txt``: a line in English, then ``LOCALE.utf8=TEXT`` lines.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from vlkit import languages as language_table
from vlkit.data.batches.workers import in_workers
from vlkit.data.build.concepts import emoji_concept, held_out
from vlkit.data.build.openmoji import choose, emoji_names
from vlkit.data.formats.images import open_image
from vlkit.errors import DataError, MissingPackage, UnknownName
from vlkit.foreign import check_size, clean, printable

LICENSE = "GPL-2.0-or-later"
ATTRIBUTION = (
    "Tux Paint stamps by Bill Kendrick and contributors (https://tuxpaint.org). License: GPL-2.0-or-later; some "
    "pictures otherwise, see the package's copyright file"
)
PLACES = ("/usr/share/tuxpaint/stamps", "/usr/local/share/tuxpaint/stamps")
"""Where packages install the stamps."""
_NOT_THINGS = "symbols"  # letters, signs and coins
_LINE = re.compile(r"(?P<locale>[A-Za-z]{2,3}(?:[_@][\w@]+)?)\.(?P<coding>[\w-]+)=(?P<text>.*)")
_STOPS = ".。．।|።։"
_SENTENCES = re.compile(r"[.!?]\s+\S")
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", re.IGNORECASE)
_MOST_WORDS = 8
_MODIFIERS = {"latin": "Latn", "cyrillic": "Cyrl"}


@dataclass(frozen=True)
class Stamp:
    """One picture of a thing; ``captions`` maps BCP 47 tags to texts."""

    key: str
    path: Path
    captions: Mapping[str, tuple[str, ...]]
    concept: str
    split: str


def find_stamps(source: Path | None) -> Path:
    """The folder of stamps: one of the user's, also an unpacked package, or that of an installed package.

    Raises:
        DataError: There is none.
    """
    if source is not None:
        tried = [source, source / "stamps", source / PLACES[0].lstrip("/"), source / PLACES[1].lstrip("/")]
    else:
        tried = [Path(place) for place in PLACES]
    for folder in reversed(tried):
        if folder.is_dir() and next(folder.rglob("*.txt"), None) is not None:
            return folder
    where = str(source) if source is not None else " or ".join(PLACES)
    raise DataError(
        f"no Tux Paint stamps in {where}: install the package tuxpaint-stamps-default, or unpack it (apt-get download "
        "tuxpaint-stamps-default; dpkg -x FILE.deb DIR) and name its folder with --source DIR (source: in a recipe)"
    )


def read_stamps(
    folder: Path, *, holdout: int, openmoji_holdout: int, languages: Sequence[str] | None = None
) -> tuple[list[Stamp], dict[str, str]]:
    """The stamps of a folder, sorted by path, and name -> reason of those that were left out.

    Stamps of one English caption (left and right, male and female) are one concept. One whose English name is that of
    an emoji is OpenMoji's concept, and stands on the side of the split where that does with ``openmoji_holdout``; of
    the others, so many are kept back by a stable hash that there are ``holdout`` in all. The first picture of each has
    the split "test", further ones "test-variant". Left out are signs and letters, and sentences about a thing in place
    of its name.

    Raises:
        MissingPackage: emoji is not installed.
        DataError: No stamp is left, or there are fewer concepts than are to be kept back.
    """
    found: list[tuple[Path, dict[str, tuple[str, ...]], str]] = []
    problems: dict[str, str] = {}
    names = emoji_names()
    emoji = _emoji_concepts(names)
    for text in sorted(folder.rglob("*.txt")):
        name = text.relative_to(folder)
        if _NOT_THINGS in name.parts:
            continue
        picture = next((path for end in (".svg", ".png") if (path := text.with_suffix(end)).is_file()), None)
        try:
            if picture is None:
                raise DataError("no picture beside it (.svg, .png)")
            captions = read_captions(text)
        except DataError as error:
            problems[str(name)] = printable(str(error))
            continue
        thing = _thing(captions["en"][0])
        found.append((picture, captions, emoji.get(thing, f"tuxpaint:{thing}")))
    concepts = {concept for *_, concept in found}
    kept_back = _kept_back(concepts, {emoji_concept(one) for one in names}, holdout, openmoji_holdout)
    stamps, seen = [], Counter[str]()
    for picture, captions, concept in found:
        seen[concept] += 1
        split = "train" if concept not in kept_back else "test" if seen[concept] == 1 else "test-variant"
        if chosen := choose(captions, languages):
            key = str(picture.relative_to(folder).with_suffix("")).replace("/", "_").replace(".", "_")
            stamps.append(Stamp(key, picture, chosen, concept, split))
    if not stamps:
        first = next((f"; the first problem: {name}: {why}" for name, why in problems.items()), "")
        raise DataError(f"{folder}: no stamp with a caption in the languages{first}")
    return stamps, problems


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of a stamp by BCP 47 tag, English first; regional ones of a language are its further captions.

    Raises:
        DataError: Not UTF-8, no English, or a sentence or more in place of a name.
    """
    check_size(path.stat().st_size, what=str(path))
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 (byte {error.start})") from None
    english = tidy(lines[0]) if lines else ""
    if not english:
        raise DataError("its first line, the English caption, is empty")
    if _SENTENCES.search(english) or len(english.split()) > _MOST_WORDS:
        raise DataError(f"tells about the thing in place of naming it: {english[:60]!r}")
    found: dict[str, dict[str, None]] = defaultdict(dict)
    found["en"][english] = None
    # Plain locales come before regional ones: pt before pt_BR, whose captions are further ones of Portuguese.
    for line in sorted(lines[1:], key=lambda line: line.partition(".")[0]):
        read = _LINE.fullmatch(line.strip())
        tag = _language_of(read["locale"]) if read and read["coding"].casefold().replace("-", "") == "utf8" else None
        if read and tag and (text := tidy(read["text"])) and not _is_left_english(text, tag):
            found[tag][text] = None
    return {tag: tuple(texts) for tag, texts in found.items()}


def tidy(text: str) -> str:
    r"""A caption without stops at its end, or at its start where they were typed first in a right-to-left language.

    Marks of direction and doubled blanks go too, and ``\\`` before quotation marks.
    """
    text = " ".join(clean(text.replace('\\"', '"')).split()).strip("\u200b\u200c\u200d \u00a0")
    while text != (text := text.rstrip(_STOPS).lstrip(".。").strip("\u200b ")):
        pass
    return text


def _language_of(locale: str) -> str | None:
    """``sr@latin`` -> sr-Latn, ``ca@valencia`` -> ca, ``zh_TW`` -> zh-Hant; None where the table lacks the language."""
    plain, _, modifier = locale.partition("@")
    if script := _MODIFIERS.get(modifier):
        plain = f"{plain}-{script}"
    try:
        return language_table.normalize(plain)
    except UnknownName:
        return None


def _is_left_english(text: str, tag: str) -> bool:
    """Whether a text was never translated: Latin letters alone, in a language that is not written in them."""
    return tag != "en" and text.isascii() and language_table.get(tag).script != "Latn"


def _thing(caption: str) -> str:
    """What is named, without its article: "An apple" and "Apple!" are one thing."""
    return _ARTICLE.sub("", caption.rstrip("!? ").casefold(), count=1) or caption.casefold()


def _emoji_concepts(names: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, str]:
    """English name -> concept of OpenMoji; a name that is several concepts' is none."""
    found: dict[str, set[str]] = defaultdict(set)
    for emoji, by_language in names.items():
        for name in by_language.get("en", ()):
            found[name.casefold()].add(emoji_concept(emoji))
    return {name: next(iter(concepts)) for name, concepts in found.items() if len(concepts) == 1}


def _kept_back(concepts: set[str], drawn: set[str], holdout: int, openmoji_holdout: int) -> frozenset[str]:
    if holdout >= max(1, len(concepts)):
        raise DataError(f"{holdout} concepts cannot be held out of {len(concepts)}")
    if not holdout:
        return frozenset()
    shared = concepts & drawn
    with_openmoji = shared & held_out(drawn, openmoji_holdout, salt="openmoji:")
    return held_out(concepts - shared, max(0, holdout - len(with_openmoji)), salt="tuxpaint:") | with_openmoji


def render_stamps(stamps: Sequence[Stamp], *, size: int, processes: int = 1) -> Generator[bytes | str, None, None]:
    """PNG bytes, RGB on white, ``size`` x ``size`` pixels, the whole stamp in it; to be closed when left.

    A drawing that cannot be rendered gives way to the PNG beside it; where there is none, or that is no picture, it is
    the reason as text.

    Raises:
        MissingPackage: resvg_py is not installed, and there are SVG files.
    """
    if any(stamp.path.suffix == ".svg" for stamp in stamps):
        try:
            import resvg_py  # noqa: F401
        except ImportError:
            raise MissingPackage("resvg_py", purpose="rendering stamps", extra="data") from None
    workers = processes if processes > 1 and len(stamps) >= 64 else 0
    paths = [stamp.path for stamp in stamps]
    with closing(in_workers(_Rendered(paths, size), workers, order=range(len(paths)), ahead=16)) as pictures:
        yield from pictures


@dataclass
class _Rendered(Dataset[bytes | str]):
    paths: Sequence[Path]
    size: int

    def __getitem__(self, index: int) -> bytes | str:
        path = self.paths[index]
        try:
            return _square(_drawn(path, self.size) if path.suffix == ".svg" else open_image(path), self.size)
        except DataError as error:
            return printable(str(error))


def _drawn(path: Path, size: int) -> Image.Image:
    import resvg_py

    try:
        check_size(path.stat().st_size, what=str(path))
        drawn = resvg_py.svg_to_bytes(
            svg_string=path.read_text(encoding="utf-8"),
            width=size,
            height=size,
            background="white",
            skip_system_fonts=True,  # the pixels must not depend on what is installed
        )
        return open_image(bytes(drawn), name=str(path))
    except (ValueError, OSError) as error:
        if (beside := path.with_suffix(".png")).is_file():
            return open_image(beside)
        raise DataError(f"cannot read drawing {path}: {error}") from None


def _square(picture: Image.Image, size: int) -> bytes:
    scale = size / max(picture.size)
    wide, high = (max(1, round(side * scale)) for side in picture.size)
    if (wide, high) != picture.size:
        picture = picture.resize((wide, high), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (size, size), "white")
    whole.paste(picture, ((size - wide) // 2, (size - high) // 2))
    plain = io.BytesIO()
    whole.save(plain, "PNG", compress_level=6)
    return plain.getvalue()


def state_of(folder: Path) -> str:
    """A digest of the stamps: names and sizes of all files, and what the captions say."""
    known = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".txt", ".svg", ".png") and _NOT_THINGS not in path.relative_to(folder).parts:
            known.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            if path.suffix == ".txt":
                known.update(path.read_bytes())
    return known.hexdigest()
