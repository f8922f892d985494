"""An index of images on disk: the nearest are found, and nothing is embedded twice, whatever happens to the files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import vlkit
from tests.helpers.evaluate_fakes import CountingModel, picture
from tests.helpers.image_forms import write_tar, write_zip
from vlkit.evaluation.search import image_index
from vlkit.evaluation.search.image_index import ImageIndex, index_images
from vlkit.evaluation.search.search_page import write_search_page
from vlkit.models import feature_store

COUNT = 7


def photos(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    for number in range(COUNT):
        picture(number).save(folder / ("sub" if number % 2 else "") / f"{number}.png")
    return folder


def made(model: CountingModel, source: Path, out: Path) -> ImageIndex:
    return index_images(model, source, out, quiet=True)[0]


def test_the_nearest_images_are_found_as_by_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = CountingModel(), photos(tmp_path / "photos")
    index = made(model, source, tmp_path / "index")
    assert len(index) == COUNT and index.names == tuple(sorted(index.names))
    image_NE = vlkit.embed_images(model, [source / name for name in index.names], quiet=True)
    texts = ["قارچ", "a cat"]
    cosine_QN = vlkit.embed_texts(model, texts, quiet=True) @ image_NE.T
    for chunk in (1 << 16, 3, 1):
        monkeypatch.setattr(image_index, "_CHUNK", chunk)
        for matches, cosine_N in zip(index.search(model, texts, k=4), cosine_QN, strict=True):
            best = np.argsort(-cosine_N, kind="stable")[:4]
            assert [one.image for one in matches] == [index.names[row] for row in best]
            assert np.allclose([one.score for one in matches], cosine_N[best], atol=1e-6)
    assert len(index.search(model, "a cat", k=100)[0]) == COUNT
    found = index.search_images(model, [source / "2.png", picture(3)], k=1)
    assert [one[0].image for one in found] == ["2.png", "sub/3.png"]
    assert found[0].query == str(source / "2.png") and found[0].records()[0]["rank"] == 1


def test_only_what_is_new_or_changed_is_embedded(tmp_path: Path) -> None:
    model, source, out = CountingModel(), photos(tmp_path / "photos"), tmp_path / "index"
    made(model, source, out)
    assert model.images_seen == COUNT
    made(model, source, out)
    assert model.images_seen == COUNT  # nothing is new
    (source / "sub" / "1.png").rename(source / "renamed.png")
    (source / "0.png").unlink()
    shutil.copy(source / "2.png", source / "copy.png")
    picture(50).save(source / "sub" / "3.png")
    os.utime(source / "4.png")
    (source / "bad.png").write_bytes(b"nonsense")
    index, news = index_images(model, source, out, quiet=True)
    assert model.images_seen == COUNT + 1  # the one that was replaced
    assert (news.embedded, news.gone, [*news.unreadable]) == (1, 2, ["bad.png"])
    assert set(index.names) == {"2.png", "4.png", "6.png", "copy.png", "renamed.png", "sub/3.png", "sub/5.png"}
    assert index.search_images(model, picture(50), k=1)[0][0].image == "sub/3.png"
    assert [one.image for one in index.search_images(model, picture(2), k=2)[0]] == ["2.png", "copy.png"]
    assert index.search_images(model, picture(1), k=1)[0][0].image == "renamed.png"


def test_files_that_did_not_change_are_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source, out = CountingModel(), photos(tmp_path / "photos"), tmp_path / "index"
    made(model, source, out)
    read: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or whole(self))
    picture(50).save(source / "new.png")
    made(model, source, out)
    assert {path.name for path in read if path.suffix == ".png"} == {"new.png"}


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_archives_are_searched_like_folders(tmp_path: Path, form: str) -> None:
    model, source = CountingModel(), photos(tmp_path / "photos")
    folder = made(model, source, tmp_path / "of-folder")
    files = {name: (source / name).read_bytes() for name in folder.names}
    write = {"tar": write_tar, "zip": write_zip}[form]
    index = made(model, write(tmp_path / f"photos.{form}", files), tmp_path / "of-archive")
    assert index.names == folder.names
    assert index.search(model, "a cat", k=3)[0].matches == folder.search(model, "a cat", k=3)[0].matches
    assert index.image("sub/1.png").image().size == picture(1).size


@pytest.mark.parametrize("moved", ["photos", "index", "both"])
def test_folders_that_are_moved_go_on_working(tmp_path: Path, moved: str) -> None:
    model, home = CountingModel(), tmp_path / "home"
    source, out = photos(home / "photos"), home / "index"
    before = made(model, source, out).search(model, "a cat", k=3)[0].matches
    if moved == "both":
        home.rename(tmp_path / "new")
        source, out = tmp_path / "new" / "photos", tmp_path / "new" / "index"
    elif moved == "index":
        out = out.rename(tmp_path / "moved")
    else:
        source = source.rename(tmp_path / "moved")
        assert ImageIndex(out).search(model, "a cat", k=3)[0].matches == before
        with pytest.raises(vlkit.VlkitError, match="no such file or folder"):
            ImageIndex(out).image("0.png")
        made(model, source, out)
    index = ImageIndex(out)
    assert index.search(model, "a cat", k=3)[0].matches == before and index.source == source
    assert index.image("0.png").image().size == picture(0).size
    assert model.images_seen == COUNT


class _Killed(BaseException):
    """Ends a run where nothing can be cleaned up."""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, model = photos(tmp_path / "photos"), tmp_path / "index", CountingModel()
    whole = model.encode_image

    def dies(pixels_BCHW: torch.Tensor) -> torch.Tensor:
        if model.images_seen >= 4:
            monkeypatch.setattr(feature_store.FeatureStore, "flush", lambda self: None)  # not even that
            raise _Killed
        return whole(pixels_BCHW)

    with monkeypatch.context() as patch:
        patch.setattr(model, "encode_image", dies)
        patch.setattr(feature_store, "_FLUSH_EVERY", 0.0)
        with pytest.raises(_Killed):
            index_images(model, source, out, batch_size=2, quiet=True)
    monkeypatch.undo()
    with pytest.raises(vlkit.VlkitError, match=r"index in .* is not finished; run again: vlkit index .* --out"):
        ImageIndex(out)
    index, news = index_images(model, source, out, batch_size=2, quiet=True)
    assert (len(index), news.embedded, model.images_seen) == (COUNT, COUNT - 4, COUNT)


def test_another_model_is_refused(tmp_path: Path) -> None:
    model, source, out = CountingModel(), photos(tmp_path / "photos"), tmp_path / "index"
    index_images(model, source, out, model_name="runs/mine", quiet=True)
    other = CountingModel(seed=1)
    said = r"the index in .*index was made with another model \(runs/mine\), digest \w{16}; the one given has \w{16}: "
    with pytest.raises(vlkit.VlkitError, match=said):
        ImageIndex(out).search(other, "a cat")
    with pytest.raises(vlkit.VlkitError, match=said):
        made(other, source, out)
    assert other.images_seen == 0 and len(ImageIndex(out).search(model, "a cat", k=2)[0]) == 2


def test_damaged_embeddings_are_told_and_mended(tmp_path: Path) -> None:
    model, source, out = CountingModel(), photos(tmp_path / "photos"), tmp_path / "index"
    made(model, source, out)
    (file,) = out.glob("images-*/*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 255
    file.write_bytes(raw)
    with pytest.raises(vlkit.VlkitError, match=rf"lacks the embeddings of {COUNT} images; run again: vlkit index"):
        ImageIndex(out)
    assert len(made(model, source, out)) == COUNT


def test_what_cannot_be_an_index_is_told(tmp_path: Path) -> None:
    model, source = CountingModel(), photos(tmp_path / "photos")
    with pytest.raises(vlkit.VlkitError, match=r"is no index of images \(it has no index\.json\)"):
        ImageIndex(tmp_path)
    with pytest.raises(
        vlkit.VlkitError, match=r"holds something else than an index of images \(0\.png, 2\.png, 4\.png"
    ):
        made(model, source, source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(vlkit.VlkitError, match=r"empty holds no images"):
        made(model, tmp_path / "empty", tmp_path / "out")
    index = made(model, source, tmp_path / "index")
    with pytest.raises(vlkit.VlkitError, match=r"^k = 0: must be at least 1$"):
        index.search(model, "a cat", k=0)
    record = tmp_path / "index" / "index.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**content, "format": 99}), encoding="utf-8")
    with pytest.raises(vlkit.VlkitError, match=r"has format 99, and this version of vlkit reads 1"):
        ImageIndex(tmp_path / "index")
    record.write_text(json.dumps({**content, "images": {"0.png": 3}}), encoding="utf-8")
    with pytest.raises(vlkit.VlkitError, match=r"index\.json is damaged"):
        ImageIndex(tmp_path / "index")


def test_a_page_shows_what_was_found_and_escapes_it(tmp_path: Path) -> None:
    model, source = CountingModel(), photos(tmp_path / "photos")
    picture(9).save(source / "<b>&.png")
    index = made(model, source, tmp_path / "index")
    found = index.search(model, ["<script>", "قارچ"], k=COUNT + 1)
    (source / "0.png").unlink()
    page = write_search_page(tmp_path / "page.html", index, found).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 * COUNT and page.count("not there any more") == 2
    assert "&lt;b&gt;&amp;.png" in page and "&lt;script&gt;" in page and "<script" not in page and "قارچ" in page


@contextmanager
def rows_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    counts: list[int] = []
    whole = feature_store.FeatureStore.read

    def read(self: feature_store.FeatureStore, place_N: feature_store.Numbers) -> torch.Tensor:
        counts.append(len(place_N))
        return whole(self, place_N)

    with monkeypatch.context() as patch:
        patch.setattr(feature_store.FeatureStore, "read", read)
        yield counts


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = CountingModel(), photos(tmp_path / "photos")
    index = made(model, source, tmp_path / "index")
    monkeypatch.setattr(image_index, "_CHUNK", 2)
    with rows_read(monkeypatch) as counts:
        index.search(model, "a cat")
    assert max(counts) == 2 and sum(counts) == COUNT
