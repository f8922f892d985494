"""What images hold, known by their contents for as long as their files stay the same."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.image_forms import write_folder, write_parquet, write_tar, write_zip
from vlkit.data.sources.classes.collection import any_classes
from vlkit.data.sources.classes.find import find_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.image_contents import image_contents

FORMS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": lambda root, files: write_folder(root / "x", files),
    "tar": lambda root, files: write_tar(root / "x.tar", files),
    "zip": lambda root, files: write_zip(root / "x.zip", files),
    "parquet": lambda root, files: write_parquet(root / "x.parquet", files, str),
}


def bitmap(gray: int) -> bytes:
    """Of the same size whatever it shows."""
    stream = io.BytesIO()
    Image.new("L", (8, 8), gray).save(stream, "BMP")
    return stream.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_images_that_change_places_are_other_images_though_their_files_look_the_same(tmp_path: Path, form: str) -> None:
    def contents(first: int, second: int) -> list[int]:
        for old in tmp_path.glob("x.*"):
            old.unlink()
        path = FORMS[form](tmp_path, {"a/1.bmp": bitmap(first), "b/1.bmp": bitmap(second)})
        for file in (path, *path.glob("*/*")):
            os.utime(file, ns=(1, 1))  # as rsync and cp -p set it
        samples = any_classes(find_images(str(path))).samples
        return [int(content) for content in image_contents(samples, encoding=encoding)]

    encoding = Encoding()
    before = contents(1, 101)
    assert before[0] != before[1] and contents(101, 1) == before[::-1]
