from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.data_factory import encoded
from vlkit.data.formats.images import MAX_PIXELS, LazyImage, open_image
from vlkit.errors import DataError


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that promises a size, and next to no data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_path_bytes_pil_and_array_give_the_same_image(tmp_path: Path) -> None:
    raw = encoded()
    (tmp_path / "a.png").write_bytes(raw)
    images = [open_image(tmp_path / "a.png"), open_image(str(tmp_path / "a.png")), open_image(raw)]
    images += [open_image(Image.open(io.BytesIO(raw))), open_image(np.asarray(images[0]))]
    assert all(image.mode == "RGB" and image.size == (12, 8) for image in images)
    assert len({image.tobytes() for image in images}) == 1


def test_a_bomb_is_refused_with_its_numbers_before_it_is_decoded() -> None:
    with pytest.raises(DataError) as caught:
        open_image(png_of_size(15000, 14000), name="bomb.png")
    assert str(caught.value) == (
        "cannot read image bomb.png: 210,000,000 pixels, more than the 178,956,970 allowed; make it smaller first"
    )
    with pytest.raises(
        DataError, match=r"cannot read image huge\.png: 3,600,000,000 pixels, more than the 178,956,970 allowed"
    ):
        open_image(png_of_size(60000, 60000), name="huge.png")


def test_the_limit_holds_whatever_pillow_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match="more than the"):
        open_image(png_of_size(60000, 60000))
    assert MAX_PIXELS < 60000**2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6])
def test_truncated_and_empty_files(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    path = tmp_path / "cut"
    path.write_bytes(stream.getvalue()[: int(share * len(stream.getvalue()))])
    with pytest.raises(DataError, match=f"^cannot read image {path}: "):
        open_image(path)


def test_reasons(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "none.png").write_bytes(b"")
    for source, reason in [
        (tmp_path / "absent.png", "no such file"),
        (tmp_path / "none.png", "the file is empty"),
        (tmp_path, "is a directory"),
        (
            tmp_path / "text.png",
            "not an image file that can be read (PNG, JPEG, WebP, GIF, BMP, TIFF and what else Pillow reads)",
        ),
    ]:
        with pytest.raises(DataError) as caught:
            open_image(source)
        assert str(caught.value) == f"cannot read image {source}: {reason}"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_data_error(tail: bytes) -> None:
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBPVP8 ", b"GIF89a", b"II*\0", b"BM"):
        with contextlib.suppress(DataError):
            open_image(head + tail)


def test_transparency_lies_on_white() -> None:
    image = open_image(encoded((255, 0, 0, 0)))
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=0)
    assert open_image(stream.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_turns_the_image() -> None:
    image = Image.new("RGB", (10, 4), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    assert open_image(stream.getvalue()).size == (4, 10)


def test_sixteen_bits_keep_their_brightness() -> None:
    gray = np.full((4, 4), 32896, dtype=np.uint16)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, "PNG")
    assert open_image(stream.getvalue()).getpixel((0, 0)) == (128, 128, 128)
    assert open_image(gray).getpixel((0, 0)) == (128, 128, 128)


def test_gray_cmyk_and_palette_become_rgb() -> None:
    for mode in ("L", "1", "CMYK", "P", "LA", "YCbCr"):
        assert open_image(Image.new(mode, (3, 3))).mode == "RGB"


def test_arrays_of_other_forms_are_refused() -> None:
    for array, reason in [
        (np.zeros((3, 8, 8), np.uint8), r"an array of shape \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), "it has no pixels"),
        (np.full((4, 4), 7.0), "a float array with values 7 to 7; expected 0 to 1"),
        (np.zeros((4, 4), np.int64), "an array of int64"),
    ]:
        with pytest.raises(DataError, match=reason):
            open_image(array)
    with pytest.raises(DataError, match="a list is no path, bytes, PIL image or numpy array"):
        open_image([[1]])  # type: ignore[arg-type]


def test_a_draft_covers_the_size_asked_for_and_no_more_than_needed(tmp_path: Path) -> None:
    raw = encoded(size=(640, 480), kind="JPEG")
    assert open_image(raw, draft_size=224).size == (320, 240)
    assert open_image(raw, draft_size=241).size == (640, 480)
    assert open_image(raw, draft_size=60).size == (80, 60)
    assert open_image(encoded(size=(640, 480)), draft_size=60).size == (640, 480)
    (tmp_path / "a.jpg").write_bytes(raw)
    assert LazyImage(tmp_path / "a.jpg", "a").draft(224).size == (320, 240)
