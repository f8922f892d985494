"""Paths and texts to arrays in one call: unit rows in their order, whatever images are, and files that are broken."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vlkit
from tests.helpers.evaluate_fakes import CountingModel, picture
from vlkit.evaluation.embed.encode import embed_images as image_tensor
from vlkit.evaluation.embed.texts import embed_texts as text_tensor

COUNT = 5


def saved(folder: Path) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    return paths


def test_rows_are_units_in_the_order_given_and_those_of_evaluation(tmp_path: Path) -> None:
    model, paths = CountingModel(), saved(tmp_path)
    found = vlkit.embed_images(model, paths, batch_size=2, quiet=True)
    assert found.dtype == np.float32 and found.shape == (COUNT, 16)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    wanted = image_tensor(model, [picture(number) for number in range(COUNT)]).numpy()
    assert np.allclose(found, wanted, atol=1e-6)
    assert np.allclose(vlkit.embed_images(model, paths[::-1], quiet=True), found[::-1], atol=1e-6)
    texts = ["a cat", "قارچ", "a cat"]
    text = vlkit.embed_texts(model, texts, language="en", quiet=True)
    assert text.dtype == np.float32 and np.array_equal(text, text_tensor(model, texts).numpy())
    assert np.array_equal(text[0], text[2]) and np.allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)


def test_images_are_paths_bytes_pictures_arrays_or_tensors_one_or_several(tmp_path: Path) -> None:
    model, path = CountingModel(), saved(tmp_path)[0]
    array = np.asarray(picture(0))
    forms = [path, str(path), path.read_bytes(), picture(0), array, torch.tensor(array).permute(2, 0, 1)]
    every = vlkit.embed_images(model, forms, quiet=True)
    for form, row in zip(forms, every, strict=True):
        assert np.allclose(vlkit.embed_images(model, form, quiet=True), row[None], atol=1e-6)
        assert np.allclose(row, every[0], atol=1e-6)
    assert vlkit.embed_texts(model, "a cat", quiet=True).shape == (1, 16)


def test_broken_files_are_named_all_at_once_or_have_rows_of_nan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, paths = CountingModel(), saved(tmp_path)
    (tmp_path / "cut.png").write_bytes(paths[1].read_bytes()[:40])
    (tmp_path / "copy.png").write_bytes(paths[1].read_bytes()[:40])
    given = [paths[0], tmp_path / "cut.png", paths[2], tmp_path / "gone.png", tmp_path / "copy.png"]
    for cache in (None, tmp_path / "kept"):
        with pytest.raises(
            vlkit.VlkitError, match=r"3 of 5 images cannot be read: cannot read image .*cut\.png: .*"
        ) as e:
            vlkit.embed_images(model, given, cache=cache, quiet=True)
        assert "gone.png" in str(e.value) and "skip_broken=True" in str(e.value)
        with caplog.at_level(logging.WARNING):
            found = vlkit.embed_images(model, given, cache=cache, skip_broken=True, quiet=True)
        assert "3 of 5 images cannot be read" in caplog.text
        assert np.isnan(found).all(1).tolist() == [False, True, False, True, True]
        assert np.allclose(found[[0, 2]], vlkit.embed_images(model, [paths[0], paths[2]], quiet=True), atol=1e-6)
    with pytest.raises(vlkit.VlkitError, match=r"none of 2 images can be read; the first: .*cut\.png"):
        vlkit.embed_images(model, [given[1], given[3]], skip_broken=True, quiet=True)


def test_a_cache_spares_what_it_knows_by_contents(tmp_path: Path) -> None:
    model, paths, cache = CountingModel(), saved(tmp_path), tmp_path / "kept"
    first = vlkit.embed_images(model, paths, cache=cache, quiet=True)
    text = vlkit.embed_texts(model, ["a", "b"], cache=cache, quiet=True)
    seen, moved = model.images_seen, tmp_path / "moved.png"
    paths[3].rename(moved)
    picture(9).save(paths[0])
    again = vlkit.embed_images(model, [*paths[:3], moved, paths[4]], cache=cache, quiet=True)
    assert model.images_seen == seen + 1  # the one that was replaced
    assert np.array_equal(again[1:], first[1:]) and not np.allclose(again[0], first[0])
    assert np.array_equal(vlkit.embed_texts(model, ["a", "b"], cache=cache, quiet=True), text)


def test_what_cannot_be_embedded_is_told() -> None:
    model = CountingModel()
    with pytest.raises(vlkit.VlkitError, match=r"^no images to encode; give at least one$"):
        vlkit.embed_images(model, [], quiet=True)
    with pytest.raises(vlkit.VlkitError, match=r"^text number 2 is ' '; give strings that are not blank$"):
        vlkit.embed_texts(model, ["a", " "], quiet=True)
    with pytest.raises(vlkit.VlkitError, match="no language 'xx-nonsense'"):
        vlkit.embed_texts(model, ["a"], language="xx-nonsense", quiet=True)
    with pytest.raises(vlkit.VlkitError, match=r"^a Linear does not embed images and texts, as embed_images needs"):
        vlkit.embed_images(nn.Linear(1, 1), picture(0), quiet=True)  # type: ignore[arg-type]
