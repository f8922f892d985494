"""Every form that is evaluated can be learned from: opened, planned, put into batches, trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import image_forms as forms
from tests.helpers.data_factory import tokenize, transform
from tests.helpers.evaluate_fakes import picture
from tests.helpers.train_factory import losses, recipe
from vlkit.data.batches.loader import batches
from vlkit.data.plan.pairs import open_pairs
from vlkit.data.sources.combine import problems, source_numbers, summarize
from vlkit.data.sources.open import open_path, open_source, open_sources, source_names
from vlkit.errors import DataError
from vlkit.models.dual_encoder.batch import PairPreparer
from vlkit.spec.dataset import DataSpec
from vlkit.training.loop import train

NAMES = tuple(f"{number}.png" for number in range(8))
DE = [[f"Bild {number}", f"Foto {number}"] for number in range(8)]
JA = [[f"写真 {number}"] for number in range(8)]
WHOLE = {name: {"de": tuple(DE[n]), "ja": tuple(JA[n])} for n, name in enumerate(NAMES)}
CLASSES = ("arctic_fox", "bee", "cup", "dog")
CODES = ("n02120079", "n02206856", "n07930864", "n02099601")  # the order of the numbers is another one


def pictures(folder: Path) -> str:
    folder.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        picture(seed).save(folder / name)
    return str(folder)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def babel_json(folder: Path) -> dict[str, Any]:
    path = folder / "xtd.json"
    path.write_text(json.dumps({"images": NAMES, "captions": {"de": DE, "jp": JA}}))
    return {"kind": "babel_json", "path": str(path), "images": pictures(folder / "i")}


def crossmodal3600(folder: Path) -> dict[str, Any]:
    for path in list(Path(pictures(folder / "i")).iterdir()):
        path.rename(path.with_suffix(".jpg"))
    rows = [
        {"image/key": name.partition(".")[0], "de": {"caption": DE[n]}, "ja": {"caption": JA[n]}}
        for n, name in enumerate(NAMES)
    ]
    return {"kind": "crossmodal3600", "path": jsonl(folder / "captions.jsonl", rows), "images": str(folder / "i")}


def aligned_lines(folder: Path) -> dict[str, Any]:
    def lines(name: str, texts: list[str]) -> str:
        (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8")
        return str(folder / name)

    captions = {
        "de": [lines("1.de", [one for one, _ in DE]), lines("2.de", [two for _, two in DE])],
        "ja": [lines("ja", [one for (one,) in JA])],
    }
    names = lines("names.txt", list(NAMES))
    return {"kind": "aligned_lines", "names": names, "captions": captions, "images": pictures(folder / "i")}


def caption_jsonl(folder: Path) -> dict[str, Any]:
    captions = {
        code: jsonl(folder / code, [{"image": name, "caption": texts[n]} for n, name in enumerate(NAMES)])
        for code, texts in (("de", DE), ("ja", JA))
    }
    return {"kind": "caption_jsonl", "captions": captions, "images": pictures(folder / "i")}


def wit(folder: Path) -> dict[str, Any]:
    captions = {
        code: jsonl(
            folder / code,
            [
                {"wit_ix": name[0], "image_url": f"https://x/{name}", "caption_reference_description": text}
                for n, name in enumerate(NAMES)
                for text in texts[n]
            ],
        )
        for code, texts in (("de", DE), ("ja", JA))
    }
    return {"kind": "wit", "captions": captions, "images": pictures(folder / "i")}


def caption_parquet(folder: Path) -> dict[str, Any]:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    captions = {}
    for code, texts in (("de", DE), ("ja", JA)):
        rows = [
            {"image": {"bytes": forms.encoded(n), "path": name}, "image_id": name, "captions": texts[n]}
            for n, name in enumerate(NAMES)
        ]
        pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), folder / f"{code}.parquet")
        captions[code] = [str(folder / f"{code}.parquet")]
    return {"kind": "caption_parquet", "captions": captions}


SETS = (babel_json, crossmodal3600, aligned_lines, caption_jsonl, wit, caption_parquet)


def stem(key: str) -> str:
    return key.partition(".")[0]


@pytest.mark.parametrize("made", SETS)
def test_published_sets_give_batches(tmp_path: Path, made: Callable[[Path], Mapping[str, Any]]) -> None:
    data = DataSpec.model_validate({"sources": [made(tmp_path)]})
    source, sampler = open_pairs(data, batch_size=4, seed=0)
    assert {stem(source[n].key): dict(source[n].captions) for n in range(8)} == {
        stem(name): captions for name, captions in WHOLE.items()
    }
    assert {source.meta(n).split for n in range(8)} == {source[n].split for n in range(8)} == {"train"}
    found = list(batches(source, sampler, preparer=PairPreparer(transform, tokenize), steps=2))
    assert sorted(int(text.rpartition(" ")[2]) for batch in found for text in batch.captions) == list(range(8))
    assert {name for batch in found for name in batch.sources} == set(source_names(data.sources))
    for batch in found:
        for row, text in enumerate(batch.captions):
            wanted = transform(picture(int(text.rpartition(" ")[2])))
            assert batch.pixels_BCHW is not None
            assert (batch.pixels_BCHW[row] == wanted).all()


def folders(root: Path) -> dict[str, Any]:
    return {"kind": "folder", "path": str(forms.write_folder(root / "f", forms.make_files(CLASSES, each=2)))}


def zipped(root: Path) -> dict[str, Any]:
    return {"kind": "folder", "path": str(forms.write_zip(root / "f.zip", forms.make_files(CLASSES, each=2)))}


def tars(root: Path) -> dict[str, Any]:
    return {"kind": "folder", "path": str(forms.write_tar_of_tars(root / "f.tar", forms.make_files(CLASSES, each=2)))}


def labelled_shards(root: Path) -> dict[str, Any]:
    files = forms.make_files(CLASSES, each=2)
    return {"kind": "folder", "path": str(forms.write_benchmark_shards(root / "s", files, CLASSES.index, CLASSES))}


def parquet(root: Path) -> dict[str, Any]:
    pytest.importorskip("pyarrow")
    files = forms.make_files(CLASSES, each=2)
    path = forms.write_parquet(root / "f.parquet", files, CLASSES.index, names=CLASSES)
    return {"kind": "folder", "path": str(path)}


@pytest.mark.parametrize("made", [folders, zipped, tars, labelled_shards, parquet])
def test_classes_give_their_names_as_captions(tmp_path: Path, made: Callable[[Path], Mapping[str, Any]]) -> None:
    (tmp_path / "names.csv").write_text("language,class,name\nde,0,Eisfuchs\nde,0,Fuchs\nde,2,Tasse\nde,3,Hund\n")
    labels = {"kind": "files", "paths": [str(tmp_path / "names.csv")]}
    for own in (False, True):
        given = {"kind": "classes", "images": made(tmp_path / str(own))} | ({} if own else {"labels": labels})
        data = DataSpec.model_validate({"sources": [given]})
        source, sampler = open_pairs(data, batch_size=3, seed=0)
        concepts = [source.meta(n).concept for n in range(len(source))]
        assert len(source) == 8 and len(set(concepts)) == 4
        captions = [dict(source[n].captions) for n in range(8)]
        if own:
            assert captions[:3] == [{"en": ("arctic fox",)}] * 2 + [{"en": ("bee",)}]
        else:
            assert captions[:4] == [{"de": ("Eisfuchs", "Fuchs")}] * 2 + [{}] * 2
            assert source.meta(2).languages == () and source.meta(0).counts == (2,)
        (batch,) = batches(source, sampler, preparer=PairPreparer(transform, tokenize), steps=1)
        assert len(set(batch.concepts)) == 3 and batch.pixels_BCHW is not None  # one of a class


def test_imagenet_classes(tmp_path: Path) -> None:
    path = forms.write_folder(tmp_path / "f", forms.make_files(CODES, each=1))
    images = {"kind": "imagenet", "path": str(path), "classes": "present"}
    source = open_sources(DataSpec.model_validate({"sources": [{"kind": "classes", "images": images}]}))
    assert {source.meta(n).concept: source[n].captions["en"] for n in range(4)} == {
        "n02099601": ("Golden Retriever",),
        "n02120079": ("Arctic fox",),
        "n02206856": ("bee",),
        "n07930864": ("tea cup",),
    }


@pytest.mark.parametrize("write", [forms.write_folder, forms.write_tar, forms.write_zip])
def test_trees_with_captions_beside(tmp_path: Path, write: Callable[[Path, Mapping[str, bytes]], Path]) -> None:
    files = {
        "train/a b/1.png": forms.encoded(1),
        "train/a b/1.json": b'{"captions": {"de": "eins"}, "concept": "one"}',
        "val/2.png": forms.encoded(2),
        "val/2.txt": b"two",
        "test/3.png": forms.encoded(3),
    }
    path = write(tmp_path / ("t" if write is forms.write_folder else f"t.{write.__name__[6:]}"), files)
    data = DataSpec.model_validate({"sources": [{"kind": "tree", "path": str(path), "language": "en"}]})
    train_source, validation = (open_sources(data, split=split) for split in ("train", "validation"))
    assert [dict(one[0].captions) for one in (train_source, validation)] == [{"de": ("eins",)}, {"en": ("two",)}]
    assert train_source[0].image().tobytes() == picture(1).tobytes() and train_source[0].concept == "one"
    found = open_source(data.sources[0])
    assert problems(found) == {"test/3.png": "no .json or .txt beside it"}


def test_splits_of_sets(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    sources = [babel_json(tmp_path / "a"), caption_jsonl(tmp_path / "b") | {"split": "validation"}]
    data = DataSpec.model_validate({"sources": sources})
    assert source_names(data.sources) == ["xtd.json", "caption_jsonl"]
    assert len(open_sources(data)) == len(open_sources(data, split="validation")) == 8
    assert open_sources(data, split="validation")[0].source == "caption_jsonl"
    assert source_numbers(open_sources(data, split="all")) == [0] * 8 + [1] * 8


def test_objectnet_is_told_not_to_be_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = {"kind": "objectnet", "path": str(tmp_path)}
    with pytest.raises(DataError, match="mappings names the folder"):
        open_sources(DataSpec.model_validate({"sources": [{"kind": "classes", "images": images}]}))
    assert "ObjectNet's license forbids to train on its images" in caplog.text


def test_a_recipe_of_any_sources_is_summarised(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "model: {image: {kind: tiny}, text: {kind: tiny}, embed_dim: 8}\n"
        f"data: {{sources: [{json.dumps(babel_json(tmp_path))}]}}\n"
        "stages: [{name: heads, trainable: [image_head], steps: 1}]\n"
    )
    summary = summarize(open_path(str(tmp_path / "r.yaml")))
    assert summary.images == 8 and summary.languages == {"de": 16, "ja": 8} and summary.splits == {"train": 8}


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    from vlkit.data.stream.stream import open_stream

    sources = [{"kind": "webdataset", "path": "s3://b/{0..9}.tar"}, babel_json(tmp_path)]
    with pytest.raises(DataError, match=r"data\.sources\.1 is of kind babel_json, which cannot be streamed .* shard"):
        open_stream(DataSpec.model_validate({"sources": sources}), batch_size=2, seed=0, num_workers=0)


@pytest.mark.parametrize("made", [caption_jsonl, zipped])
def test_a_run_learns_from_it(tmp_path: Path, made: Callable[[Path], dict[str, Any]]) -> None:
    given = made(tmp_path)
    source = given if made is caption_jsonl else {"kind": "classes", "images": given}
    batch = {"batch_size": 4}
    run = train(recipe(tmp_path / "none", tmp_path / "run", loop=batch, data={"sources": [source]}))
    assert len(losses(run)) == 6 and losses(run)[0] != losses(run)[-1]
