from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.helpers.data_factory import encoded
from vlkit.data.formats.images import IMAGE_FILES, MAX_PIXELS, LazyImage, open_image, unread_images
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


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(100_000, 1), (1, 100_000), (2, 401)])
def test_images_far_longer_than_wide_are_refused_before_they_are_scaled(shape: tuple[int, int]) -> None:
    for source in (saved(Image.new("L", shape), "PNG"), Image.new("L", shape)):
        with pytest.raises(DataError) as caught:
            open_image(source, name="strip.png")
        assert str(caught.value) == (
            f"cannot read image strip.png: {shape[0]:,} x {shape[1]:,} pixels: one side is more than 200 times the "
            f"other; cut it into pieces first"
        )
    assert open_image(Image.new("L", (2, 400))).size == (2, 400)


def wide(values: list[float], dtype: type) -> bytes:
    return saved(Image.fromarray(np.array([values, values], dtype=dtype)), "TIFF")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([0, 1, 3], np.int32, [0, 1, 3]),
        ([0, 32896, 65535], np.int32, [0, 128, 255]),
        ([0, 128, 32896], np.uint16, [0, 0, 128]),  # a file of 16 bits says what white is
        ([0.0, 0.5, 1.0], np.float32, [0, 128, 255]),
        ([0.0, 128.0, 255.0], np.float32, [0, 128, 255]),
        ([-2.0, 128.0, 260.0], np.float32, [0, 128, 255]),  # as a filter leaves them
        ([0.0, 32896.0, 65535.0], np.float32, [0, 128, 255]),
    ],
)
def test_gray_of_more_bits_keeps_its_brightness(values: list[float], dtype: type, expected: list[int]) -> None:
    image = open_image(wide(values, dtype))
    assert [image.getpixel((column, 1)) for column in range(3)] == [(value,) * 3 for value in expected]


def test_sixteen_bits_that_pillow_opens_in_32_are_still_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    older = Image.fromarray(np.full((2, 2), 200, dtype=np.int32))  # Pillow 10 opens a dark PNG of 16 bits like this
    older.format = "PNG"
    assert open_image(older).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ([0, 1, 70_000], np.int32, "it has values from 0 to 70000; expected 0 to 255 or 0 to 65535"),
        ([-5, 0, 9], np.int32, "it has values from -5 to 9; expected 0 to 255 or 0 to 65535"),
        ([-1.0, 0.0, 1.0], np.float32, "it has values from -1 to 1; expected 0 to 1 or 0 to 255 or 0 to 65535"),
        ([0.0, float("nan"), 1.0], np.float32, "it has values from nan to nan; expected 0 to 1 or 0 to 255"),
    ],
)
def test_values_of_no_known_range_are_refused(values: list[float], dtype: type, said: str) -> None:
    with pytest.raises(DataError, match=f"^cannot read image a: {said}"):
        open_image(wide(values, dtype), name="a")


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_orientations_are_those_of_pillow(turn: int) -> None:
    picture = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
    exif = Image.Exif()
    exif[0x0112] = turn
    raw = saved(picture, "PNG", exif=exif)
    assert open_image(raw).tobytes() == ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).tobytes()


def test_an_exif_that_cannot_be_written_anew_or_read_does_not_lose_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = saved(Image.new("RGB", (10, 4)), "JPEG", exif=exif)

    def refuses(self: object, *given: object) -> bytes:
        raise ValueError("'str' object cannot be interpreted as an integer")

    monkeypatch.setattr(Image.Exif, "tobytes", refuses)  # what cameras' odd tags end in
    assert open_image(raw).size == (4, 10)
    broken = raw.replace(b"Exif\0\0MM\0*\0\0\0\x08\0\x01", b"Exif\0\0MM\0*\0\0\0\x08\xff\x01")
    broken = broken.replace(b"Exif\0\0II*\0\x08\0\0\0\x01\0", b"Exif\0\0II*\0\x08\0\0\0\x01\xff")
    assert broken != raw and open_image(broken).size == (4, 10)  # its first entry is whole
    cut = raw.replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*").replace(b"Exif\0\0II*\0", b"Exif\0\0XX*\0")
    assert cut != raw and open_image(cut).size == (10, 4)


@pytest.mark.parametrize("kind", [b"zTXt", b"tEXt", b"iCCP"])
def test_pngs_with_long_texts_are_read_like_those_without(kind: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    plain = saved(Image.new("P", (6, 3), 1), "PNG", transparency=0, exif=exif)
    content = b"k\0" + (b"x" * 2**26 if kind == b"tEXt" else b"\0" + zlib.compress(b"x" * 2**21))
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    raw = plain[:33] + chunk + plain[33:]
    image = open_image(raw)
    assert image.size == (3, 6) and image.tobytes() == open_image(plain).tobytes()


def test_postscript_is_no_image_whatever_it_is_called() -> None:
    drawn = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(DataError, match="cannot read image a: not an image file that can be read"):
        open_image(drawn, name="a")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", "TIFF", "GIF", "BMP", "TGA", "ICO", "MPO", "QOI"])
def test_what_pillow_reads_has_an_ending_that_is_looked_for(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    assert open_image(saved(Image.new("RGB", (16, 16), (255, 0, 0)), kind)).size == (16, 16)
    endings = {ending for ending, name in Image.registered_extensions().items() if name == kind}
    assert not endings - IMAGE_FILES - {".vda", ".vst", ".icb"}


def test_images_of_kinds_that_are_not_read_are_counted() -> None:
    assert unread_images(["a.HEIC", "b/c.heic", "d.svg", "e.jpg", "f.txt"]) == ".heic 2, .svg 1"
    assert unread_images(["e.jpg"]) == ""


def test_a_member_larger_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLKIT_LIMIT_MB", "0")
    (tmp_path / "a.png").write_bytes(encoded())
    with pytest.raises(DataError, match=r"^a in it: 0 MB, more than the limit of 0 MB"):
        LazyImage(tmp_path / "a.png", "a in it", (0, 10)).draft(None)


@pytest.mark.parametrize(
    ("name", "why"),
    [("/dev/zero", "no file but a device or a pipe"), ("pipe", "no file but"), ("a\0.png", "null byte")],
)
def test_what_is_no_file_is_never_read(name: str, why: str, tmp_path: Path) -> None:
    """A table from elsewhere may name anything: reading a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    for read in (
        lambda: open_image(tmp_path / name),
        LazyImage(tmp_path / name, name),
        LazyImage(tmp_path / name, name).read,
    ):
        with pytest.raises((DataError, OSError), match=why):
            read()
