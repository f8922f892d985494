"""Images from anywhere to plain RGB, safely: bombs, truncation, palettes, transparency, rotation flags."""

from __future__ import annotations

import errno
import hashlib
import io
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image, UnidentifiedImageError

from vlkit.errors import DataError
from vlkit.files import file_state
from vlkit.foreign import check_size

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 178_956_970
"""More pixels than this are refused before decoding: half a GiB of RGB, the size at which Pillow suspects a bomb."""
MAX_RATIO = 200
"""Images with one side more than so many times the other are refused: scaled by the short side they fill the memory."""
SHARD_IMAGES = (
    "jpg", "jpeg", "png", "webp", "jpe", "jfif", "avif", "avifs", "gif", "bmp", "dib", "tif", "tiff",
    "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "pfm", "tga", "qoi", "apng", "mpo", "ico",
    "icns", "pcx", "psd", "sgi", "rgb", "rgba", "bw", "ras", "dds", "im", "msp", "xbm", "xpm",
)  # fmt: skip
"""Suffixes of the image of a shard's sample, all that Pillow reads; the first one there is taken."""
IMAGE_FILES = frozenset(f".{suffix}" for suffix in SHARD_IMAGES)
"""Endings of image files in folders and archives."""
USUAL = "jpg, png, webp, gif, tif, avif and what else Pillow reads"
"""Those endings in messages."""
UNREAD_IMAGES = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".svg", ".svgz", ".eps", ".ai", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw",
     ".orf", ".rw2", ".raf", ".exr", ".hdr", ".xcf")
)  # fmt: skip
"""Endings of images that are counted as left out."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG = b"\x89PNG\r\n\x1a\n"
READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF and what else Pillow reads"


def open_image(
    source: str | Path | bytes | Image.Image | np.ndarray[Any, Any],
    *,
    draft_size: int | None = None,
    name: str | None = None,
) -> Image.Image:
    """An RGB image, upright (EXIF orientation applied), transparency laid on white.

    ``source`` is a path, an encoded file's bytes, a PIL image, or an array HW, HW1, HW3 or HW4 (uint8 0..255, uint16
    0..65535, or float 0..1). JPEGs are decoded at the smallest of 1/1, 1/2, 1/4, 1/8 that leaves the shorter side
    ``draft_size`` pixels; other formats in full. ``name`` is what it is called in errors; a path names itself.

    Raises:
        DataError: Not an image, truncated, empty, or more than MAX_PIXELS pixels.
    """
    label = name or (str(source) if isinstance(source, str | Path) else "the image")
    try:
        if isinstance(source, Image.Image):
            return _rgb(source)
        if isinstance(source, str | Path | bytes):
            return _decode(source, draft_size)
        return _rgb(_from_array(source))
    except UnidentifiedImageError:
        raise DataError(f"cannot read image {label}: not an image file that can be read ({READABLE})") from None
    except MemoryError:
        raise DataError(f"cannot read image {label}: not enough memory for its pixels") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        raise DataError(f"cannot read image {label}: {_reason(error)}") from error


class _Encoded:
    """An image that is decoded when called for (``types.Sample.image``)."""

    read: Callable[[], bytes]
    name: str

    def __call__(self) -> Image.Image:
        """The RGB image; see open_image."""
        return self.draft(None)

    def draft(self, size: int | None) -> Image.Image:
        """See ``types.ReducedDecoding``."""
        try:
            raw = self.read()
        except OSError as error:
            raise DataError(f"cannot read image {self.name}: {_reason(error)}") from error
        return open_image(raw, draft_size=size, name=self.name)


@dataclass(frozen=True)
class LazyImage(_Encoded):
    """An image in a file, or where ``span`` is given (offset and size in bytes) in a piece of one.

    ``name`` is what it is called in errors.
    """

    path: Path
    name: str
    span: tuple[int, int] | None = None

    def read(self) -> bytes:
        """The encoded image."""
        check_size(_file_size(self.path) if self.span is None else self.span[1], what=self.name)
        return self.path.read_bytes() if self.span is None else read_span(self.path, self.span)

    def draft(self, size: int | None) -> Image.Image:
        """See ``types.ReducedDecoding``."""
        if self.span is None:
            return open_image(self.path, draft_size=size, name=self.name)
        return super().draft(size)


@dataclass(frozen=True)
class StoredImage(_Encoded):
    """An image whose encoded bytes take more than a look into a file.

    ``name`` is what it is called in errors, and tells it from the others in the file ``path``.
    """

    read: Callable[[], bytes]
    name: str
    path: Path


def image_place(image: Callable[[], Image.Image]) -> tuple[Path, object] | None:
    """The file that an image lies in, and where in it; None for what lies in none."""
    if isinstance(image, LazyImage):
        return image.path, image.span
    return (image.path, image.name) if isinstance(image, StoredImage) else None


def image_mark(image: Callable[[], Image.Image], files: dict[Path, str]) -> str:
    """What tells versions of an image apart: its file with size and times and its place there, or its pixels.

    ``files`` remembers what was found out about each file: thousands of images may lie in one.
    """
    place = image_place(image)
    if place is not None:
        path = place[0]
        if path not in files:
            files[path] = f"{path.absolute()} {file_state(path)}"
        return f"{files[path]} {place[1]}"
    try:
        picture = image()
    except DataError:
        return "unreadable"
    return f"{picture.size} {hashlib.sha256(picture.tobytes()).hexdigest()}"


def _file_size(path: Path) -> int:
    """Bytes in a file; one that never ends, a device or a pipe, is none.

    Raises:
        OSError: No such file.
    """
    try:
        found = path.stat()
    except ValueError as error:  # a zero byte in its name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise OSError(errno.EINVAL, "no file but a device or a pipe", str(path))
    return found.st_size


def read_span(path: Path, span: tuple[int, int]) -> bytes:
    """A piece of a file, by offset and size in bytes."""
    # Opened anew each time: 15 microseconds, and no file position shared between forked workers.
    with path.open("rb", buffering=0) as stream:
        stream.seek(span[0])
        return stream.read(span[1])


def unread_images(names: Iterable[str]) -> str:
    """How many of these files are images of kinds that Pillow does not read: ``.heic 12, .svg 3``; "" for none."""
    found = Counter(ending for name in names if (ending := PurePosixPath(name).suffix.lower()) in UNREAD_IMAGES)
    return ", ".join(f"{ending} {count:,}" for ending, count in sorted(found.items()))


def _too_many(pixels: int) -> str:
    return f"{pixels:,} pixels, more than the {MAX_PIXELS:,} allowed; make it smaller first"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        found = re.search(r"\d+", str(error))  # Pillow's own check may come first; it tells the size in words only
        return _too_many(int(found[0])) if found else str(error)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _decode(source: str | Path | bytes, draft_size: int | None) -> Image.Image:
    if isinstance(source, bytes) and not source:
        raise ValueError("it is empty")
    if not isinstance(source, bytes) and _file_size(Path(source)) == 0:
        raise ValueError("the file is empty")
    try:
        return _opened(source, draft_size)
    except ValueError:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not raw.startswith(_PNG):
            raise
        return _opened(_without_texts(raw), draft_size)


def _opened(source: str | Path | bytes, draft_size: int | None) -> Image.Image:
    Image.init()
    kinds = [kind for kind in Image.ID if kind != "EPS"]  # which would be drawn by another program, ghostscript
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=kinds) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(_too_many(width * height))
        _check_ratio(image)
        if draft_size is not None and image.format == "JPEG":
            image.draft("RGB", _draft_box(width, height, draft_size))
        image.load()
        return _rgb(image)


def _without_texts(raw: bytes) -> bytes:
    """A PNG with nothing but its pixels and how they are turned: Pillow reads none with long texts or profiles."""
    kept, place = [_PNG], len(_PNG)
    while place < len(raw):
        kind, end = raw[place + 4 : place + 8], place + 12 + int.from_bytes(raw[place : place + 4], "big")
        if kind[:1].isupper() or kind in (b"tRNS", b"eXIf"):
            kept.append(raw[place:end])
        place = end
    return b"".join(kept)


def _check_ratio(image: Image.Image) -> None:
    if max(image.size) > MAX_RATIO * min(image.size):
        raise ValueError(
            f"{image.width:,} x {image.height:,} pixels: one side is more than {MAX_RATIO} times the other; "
            f"cut it into pieces first"
        )


def _draft_box(width: int, height: int, shorter: int) -> tuple[int, int]:
    # Pillow takes the largest reduction that keeps both sides of this box; ours has the image's own shape.
    scale = shorter / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _rgb(image: Image.Image) -> Image.Image:
    if image.width == 0 or image.height == 0:
        raise ValueError(f"it has no pixels ({image.width} x {image.height})")
    _check_ratio(image)
    kind = image.format
    image = _upright(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide(image, png=kind == "PNG")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(layered, mask=layered.getchannel("A"))
        return white
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    # Not by ImageOps.exif_transpose: it writes the EXIF anew as well, and fails on what some cameras put there.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an EXIF that cannot be parsed says nothing
        turn = None
    return image if turn is None else image.transpose(turn)


def _from_wide(image: Image.Image, *, png: bool) -> Image.Image:
    """Gray of more than 8 bits, which Pillow would clip at 255; of 16 bits the high byte is what is meant.

    32-bit numbers do not say what white is: 255 where none is larger, else 65535; of floats also 1.
    """
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    over = 0.05 if image.mode == "F" else 0.0  # filters leave a little more than there was
    tops: tuple[int, ...] = (1, 255, 65535) if image.mode == "F" else (255, 65535)
    if png or image.mode.startswith("I;16"):  # older Pillows open PNGs of 16 bits in mode I
        tops = (65535,)
    top = next((one for one in tops if high <= one * (1 + over)), None)
    if top is None or not low >= -over * top:
        raise ValueError(
            f"it has values from {low:g} to {high:g}; expected {' or '.join(f'0 to {one}' for one in tops)}"
        )
    values = values * 255.0 if top == 1 else values / (top / 255)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    import numpy as np

    if not isinstance(array, np.ndarray):
        raise TypeError(f"a {type(array).__name__} is no path, bytes, PIL image or numpy array")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"an array of shape {array.shape}; expected (height, width), (height, width, 1), (.., 3) or (.., 4)"
        )
    if array.size == 0:
        raise ValueError(f"it has no pixels (shape {array.shape})")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError(f"a float array with values {array.min():g} to {array.max():g}; expected 0 to 1")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype}; expected uint8, uint16, or float in 0..1")
    return Image.fromarray(np.ascontiguousarray(array))
