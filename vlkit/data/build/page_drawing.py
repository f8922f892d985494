"""Pages with text on paper, lying on something, as a camera or scanner sees them.

After SynthDoG (Donut, arXiv 2111.15664, appendix A.2): background, paper, a layout of text blocks, then perspective,
shadow, blur and noise. Ranges of sizes are those of its configuration where it has them, distortions are milder, so
that small models, which see a page at 224 to 384 pixels, can read it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vlkit import languages
from vlkit.data.build.lettering import Lettering
from vlkit.data.formats.images import open_image
from vlkit.errors import DataError
from vlkit.line_breaks import cells, pieces, wrap

Color = tuple[int, int, int]
_ENDS = re.compile(r"[.!?:;\u0964\u06d4\u061f\u3002\uff01\uff1f\u0589\u1362\u104b\u17d4]\s*$")  # of sentences
_NARROWEST = 10  # widths of the letter size in a column
_SMALLEST = 11  # pixels per em
_SCALES = (0.0334, 0.1)  # of the shorter side, pixels per em
_FILL, _LARGEST = (
    0.1,
    0.14,
)  # share of a page that letters take at least, and of the shorter side, pixels per em at most
_RATIO = 1.6  # most, of the longer side to the shorter


@dataclass(frozen=True)
class PageLook:
    """How pages look.

    ``image_size``: pixels of the shorter side; ``distortion``: 0 (a flat scan) to 1, of perspective, shadow, blur and
    noise; ``backgrounds``: images to lie on, none for a texture made by chance; ``plain``: paper alone.
    """

    image_size: int = 512
    distortion: float = 1.0
    plain: bool = False
    backgrounds: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PageLine:
    """One line: where it begins on its base line, and its size in pixels per em."""

    text: str
    at: tuple[float, float]
    size: int


@dataclass(frozen=True)
class PageLayout:
    """The lines of a page of so many pixels."""

    size: tuple[int, int]
    lines: tuple[PageLine, ...]


def lay_out(text: str, lettering: Lettering, size: tuple[int, int], random: Random) -> PageLayout:
    """Places all of a text, in one to three columns, as large as was drawn by chance or as fits.

    Raises:
        DataError: It does not fit into a page of that size at the smallest letters.
    """
    short = min(size)
    # Few words are written large, so that no page is all but empty.
    filled = math.sqrt(_FILL * size[0] * size[1] / (0.7 * max(1, cells(text))))
    drawn = round(max(short * random.uniform(*_SCALES), min(filled, _LARGEST * short)))
    spacing, columns = random.uniform(1.0, 1.3), random.choice((1, 1, 1, 2, 3) if len(text) > 60 else (1,))
    margin = random.uniform(0.03, 0.1) * short
    align = random.choices((0.0, 0.5, 1.0), (8, 1, 1))[0]
    blocks = _blocks(text, random)
    down = random.random()
    for letters in range(max(drawn, _SMALLEST), _SMALLEST - 1, -1):
        count = max(1, min(columns, int((size[0] - 2 * margin) / (_NARROWEST * letters))))
        flow = _Flow(lettering, size, margin=margin, columns=count, letters=letters, spacing=spacing, align=align)
        if (lines := flow.place(blocks, down)) is not None:
            return PageLayout(size, tuple(lines))
    raise DataError(
        f"a text of {len(text)} characters in {lettering.language} does not fit into a page of {size[0]} x {size[1]} "
        f"pixels; take larger pages (--image-size) or shorter texts (--characters)"
    )


def page_size(look: PageLook, random: Random) -> tuple[int, int]:
    """Width and height of a page, lying or standing."""
    longer = round(look.image_size * random.uniform(1.0, _RATIO))
    return (longer, look.image_size) if random.random() < 0.5 else (look.image_size, longer)


def _blocks(text: str, random: Random) -> list[list[str]]:
    parts = pieces(text)
    ends = [number for number, part in enumerate(parts, start=1) if number < len(parts) and _ENDS.search(part)]
    cuts = sorted(random.sample(ends, min(len(ends), random.randint(0, 2))))
    return [parts[start:end] for start, end in zip([0, *cuts], [*cuts, len(parts)], strict=True)]


@dataclass
class _Flow:
    """Text that runs down columns, which follow each other as the script is read."""

    lettering: Lettering
    size: tuple[int, int]
    margin: float
    columns: int
    letters: int
    spacing: float
    align: float

    def place(self, blocks: Sequence[Sequence[str]], down: float) -> list[PageLine] | None:
        """The lines, or None where they do not fit; ``down`` is the share of spare room above them."""
        gap = 1.2 * self.letters
        width = (self.size[0] - 2 * self.margin - (self.columns - 1) * gap) / self.columns
        above, below = self.lettering.line(self.letters)
        step = (above + below) * self.spacing
        room = self.size[1] - 2 * self.margin
        wrapped = [wrap(parts, width, lambda line: self.lettering.width(line, self.letters)) for parts in blocks]
        rows: list[tuple[int, float, str]] = []
        column, y = 0, 0.0
        for lines in wrapped:
            if lines is None:
                return None
            for line in lines:
                if y + above + below > room:
                    column, y = column + 1, 0.0
                    if column == self.columns or y + above + below > room:
                        return None
                rows.append((column, y, line))
                y += step
            y += 0.5 * step
        used = max(y for _, y, _ in rows) + above + below
        top = self.margin + down * (room - used)
        return [self._line(line, column, top + y + above, width=width, gap=gap) for column, y, line in rows]

    def _line(self, text: str, column: int, y: float, *, width: float, gap: float) -> PageLine:
        rtl = languages.get(self.lettering.language).rtl
        place = self.columns - 1 - column if rtl else column
        spare = width - self.lettering.width(text, self.letters)
        x = self.margin + place * (width + gap) + spare * (1 - self.align if rtl else self.align)
        return PageLine(text, (x, y), self.letters)


def draw_page(layout: PageLayout, lettering: Lettering, look: PageLook, random: Random) -> bytes:
    """The page as a JPEG; a seed gives the same bytes."""
    noise = np.random.default_rng(random.getrandbits(64))
    strength = look.distortion
    paper, ink = _colors(random)
    sheet = _paper(layout.size, paper, noise, strength)
    canvas = ImageDraw.Draw(sheet)
    for line in layout.lines:
        lettering.draw(canvas, line.at, line.text, size=line.size, fill=ink)
    page = (
        sheet
        if look.plain or not strength
        else _laid(sheet, _ground(layout.size, look, random, noise), random, strength)
    )
    if strength:
        page = _seen(page, random, noise, strength)
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=random.randint(60, 95) if strength else 95)
    return stream.getvalue()


def _colors(random: Random) -> tuple[Color, Color]:
    """Paper and ink, far enough apart to be read: nine in ten dark on light."""
    light = random.randint(225, 255)
    paper = (light, light - random.randint(0, 8), light - random.randint(0, 22))
    dark = random.randint(0, 64)
    ink = tuple(min(90, dark + random.randint(0, 45)) for _ in range(3)) if random.random() < 0.2 else (dark,) * 3
    return (paper, ink) if random.random() < 0.9 else (ink, paper)  # type: ignore[return-value]


def _paper(size: tuple[int, int], color: Color, noise: np.random.Generator, strength: float) -> Image.Image:
    sheet = Image.new("RGB", size, color)
    if not strength:
        return sheet
    grain = _clouds(size, noise, hills=6) * 7 + noise.normal(0.0, 2.0, (size[1], size[0])).astype(np.float32)
    return _from_array(np.asarray(sheet, np.float32) + strength * grain[..., None])


def _ground(size: tuple[int, int], look: PageLook, random: Random, noise: np.random.Generator) -> Image.Image:
    """What a page lies on: a piece of an image, or clouds of two colours with stripes."""
    if look.backgrounds:
        path = random.choice(look.backgrounds)
        image = open_image(path, draft_size=max(size))
        scale = max(size[0] / image.width, size[1] / image.height)
        image = image.resize((max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale))))
        left, top = (random.randint(0, image.size[axis] - size[axis]) for axis in (0, 1))
        return image.crop((left, top, left + size[0], top + size[1])).filter(
            ImageFilter.GaussianBlur(random.uniform(0, 4))
        )
    colors = [np.array([random.randint(20, 235) for _ in range(3)], np.float32) for _ in range(2)]
    dull = random.random()
    colors = [color * (1 - dull) + color.mean() * dull for color in colors]
    blend = _clouds(size, noise, hills=random.randint(2, 9))
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32) / min(size)
    angle, waves = random.uniform(0, np.pi), random.uniform(4, 40)
    stripes = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle))) * random.uniform(0.0, 0.4)
    share = np.clip(0.5 + 0.5 * (blend + stripes), 0, 1)[..., None]
    return _from_array(colors[0] * share + colors[1] * (1 - share) + noise.normal(0, 4, (size[1], size[0], 1)))


def _clouds(size: tuple[int, int], noise: np.random.Generator, *, hills: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Smooth noise of about -1 to 1, with so many hills along each side."""
    small = noise.uniform(-1.0, 1.0, (hills + 1, hills + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), np.float32)


def _laid(sheet: Image.Image, ground: Image.Image, random: Random, strength: float) -> Image.Image:
    """The sheet on the ground, a little smaller and seen from a little aside."""
    width, height = sheet.size
    inset = 0.0 if random.random() < 0.5 else 0.08 * strength
    corners = []
    for right, bottom in ((0, 0), (1, 0), (1, 1), (0, 1)):
        dx, dy = ((inset * random.random() + 0.06 * strength * random.random()) * side for side in (width, height))
        corners.append((width - dx if right else dx, height - dy if bottom else dy))
    way = _perspective(corners, [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)])
    bicubic = Image.Resampling.BICUBIC
    seen = sheet.transform(sheet.size, Image.Transform.PERSPECTIVE, way, bicubic)
    mask = Image.new("L", sheet.size, 255).transform(sheet.size, Image.Transform.PERSPECTIVE, way, bicubic)
    ground.paste(seen, (0, 0), mask)
    return ground


def _perspective(seen: Sequence[tuple[float, float]], real: Sequence[tuple[float, float]]) -> list[float]:
    """The eight numbers by which Pillow finds the place on a sheet of each point that is seen."""
    rows, values = [], []
    for (x, y), (u, v) in zip(seen, real, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(one) for one in np.linalg.solve(np.array(rows), np.array(values))]


def _seen(page: Image.Image, random: Random, noise: np.random.Generator, strength: float) -> Image.Image:
    """With a shadow from one side, a little blur, contrast and noise."""
    page = page.filter(ImageFilter.GaussianBlur(random.uniform(0.0, 0.7) * strength))
    y, x = np.mgrid[0 : page.height, 0 : page.width].astype(np.float32)
    angle = random.uniform(0, 2 * np.pi)
    slope = (x / page.width - 0.5) * np.cos(angle) + (y / page.height - 0.5) * np.sin(angle)
    light = 1 + strength * random.uniform(0.0, 0.35) * (np.clip(slope, -0.5, 0.5) - 0.3)
    pixels = np.asarray(page, np.float32) * light[..., None]
    pixels = 128 + (pixels - 128) * (1 + strength * random.uniform(-0.15, 0.15)) + strength * random.uniform(-16, 8)
    return _from_array(pixels + noise.normal(0.0, strength * random.uniform(0.0, 7.0), (page.height, page.width, 1)))


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
