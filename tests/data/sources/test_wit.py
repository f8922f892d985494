"""WIT as IGLUE and the hub publish it: tiny files of their form, and files on disk by any naming."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluate_fakes import CountingModel, picture
from tests.helpers.image_forms import encoded
from vlkit.data.sources.captions.wit import read_caption_parquet, read_wit
from vlkit.errors import DataError
from vlkit.evaluation.run import evaluate
from vlkit.spec.evaluation import SuiteSpec

URL = "https://upload.wikimedia.org/wikipedia/commons"
URLS = {
    "wit-test_15": f"{URL}/c/c0/Viborg_%28aviser%29.jpg",
    "wit-test_141": f"{URL}/1/13/Flag_of_the_Chechen_Republic.svg",
    "wit-test_244": f"{URL}/4/4c/Alcatraz_Island_03.jpg",
}
DA = [("wit-test_15", "Eksemplarer"), ("wit-test_244", "Bygning 64"), ("wit-test_244", "Social Hall\nkan ses")]
EL = [("wit-test_244", "Αλκατράζ"), ("wit-test_141", "Σημαία")]


def line(key: str, caption: str, language: str) -> dict[str, Any]:
    """All that IGLUE's lines hold."""
    return {
        "image_idx": 10 * int(key.partition("_")[2]),
        "image_url": URLS[key],
        "meta_url": "http://commons.wikimedia.org/wiki/File:x",
        "caption_reference_description": caption,
        "language": language,
        "page_url": f"https://{language}.wikipedia.org/wiki/x",
        "wit_ix": key,
    }


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8")
    return path


@pytest.fixture
def captions(tmp_path: Path) -> dict[str, Path]:
    el = [line(*pair, "el") for pair in EL]
    el[0]["image_url"] = el[0]["image_url"].replace("https:", "http:")  # as here and there in the published files
    return {
        "da": write(tmp_path / "test_da.jsonl", [line(*pair, "da") for pair in DA]),
        "el": write(tmp_path / "test_el.jsonl", el),
    }


def images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        picture(seed).save(folder / name)
    return folder


NAMINGS = {
    "wit_ix": ("wit-test_15.jpg", "wit-test_141.png", "wit-test_244.JPEG"),
    "image_idx": ("150.jpg", "1410.webp", "2440.jpg"),
    "url_name": ("Viborg_(aviser).jpg", "Flag_of_the_Chechen_Republic.svg.png", "Alcatraz_Island_03.jpg"),
    "url_md5": tuple(f"{hashlib.md5(url.encode()).hexdigest()}.jpg" for url in URLS.values()),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_captions_of_one_image_are_joined(tmp_path: Path, captions: dict[str, Path], naming: Any) -> None:
    folder = images(tmp_path / "images", NAMINGS[naming])
    samples = {sample.key: sample for sample in read_wit(captions, folder, naming=naming)}
    assert list(samples) == ["wit-test_15", "wit-test_244", "wit-test_141"]
    assert samples["wit-test_244"].captions == {"da": ("Bygning 64", "Social Hall\nkan ses"), "el": ("Αλκατράζ",)}
    assert samples["wit-test_15"].captions == {"da": ("Eksemplarer",)}
    for seed, key in enumerate(URLS):
        assert samples[key].image.path.name == NAMINGS[naming][seed]  # type: ignore[attr-defined]
    assert samples["wit-test_15"].image().size == picture(0).size
    (folder / NAMINGS[naming][2]).unlink()
    with pytest.raises(DataError, match=r"images: 1 \(wit-test_244\) of 3 images of .*test_da\.jsonl.* are not there"):
        read_wit(captions, folder, naming=naming)


@pytest.mark.parametrize("form", ["csv", "tsv", "json"])
def test_names_from_a_file(tmp_path: Path, captions: dict[str, Path], form: str) -> None:
    folder = images(tmp_path / "images", ["a.jpg", "b.png", "c,d.jpg"])
    files = {"wit-test_15": "a.jpg", URLS["wit-test_141"]: "b.png", "wit-test_244": "c,d.jpg"}
    path = tmp_path / f"names.{form}"
    if form == "json":
        path.write_text(json.dumps(files))
    else:
        sign = "," if form == "csv" else "\t"
        path.write_text("".join(f'{key}{sign}"{name}"\n' for key, name in files.items()))
    samples = read_wit(captions, folder, naming="file", names=path)
    assert {sample.key: str(sample.image.path.name) for sample in samples} == {  # type: ignore[attr-defined]
        "wit-test_15": "a.jpg",
        "wit-test_141": "b.png",
        "wit-test_244": "c,d.jpg",
    }
    path.write_text('{"wit-test_15": "a.jpg"}' if form == "json" else f"wit-test_15{sign}a.jpg\n")
    with pytest.raises(DataError, match=r"2 \(wit-test_244, wit-test_141\) of 3 images"):
        read_wit(captions, folder, naming="file", names=path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"caption": "x", "wit_ix": "wit-test_15"}, r"test_da\.jsonl:4: expected 'wit_ix', 'image_url' and"),
        ({**line("wit-test_15", "x", "da"), "wit_ix": 15}, r":4: wit_ix: the image must be a file name, not 15"),
        ({**line("wit-test_15", "x", "da"), "image_url": "http://other"}, r":4: wit-test_15 is http://other here"),
        (line("wit-test_141", " ", "da"), r"wit-test_141: an empty caption"),
    ],
)
def test_wrong_lines(tmp_path: Path, captions: dict[str, Path], record: Any, message: str) -> None:
    write(captions["da"], [*(line(*pair, "da") for pair in DA), record])
    with pytest.raises(DataError, match=message):
        read_wit(captions, images(tmp_path / "images", NAMINGS["wit_ix"]))


def test_two_files_for_one_image(tmp_path: Path, captions: dict[str, Path]) -> None:
    folder = images(tmp_path / "images", [*NAMINGS["wit_ix"], "wit-test_15.png"])
    with pytest.raises(DataError, match=r"wit-test_15\.jpg and wit-test_15\.png differ in their endings alone"):
        read_wit(captions, folder)


def parquet(path: Path, rows: Sequence[tuple[str, int, list[Any]]]) -> Path:
    import pyarrow as arrow
    import pyarrow.parquet

    table = arrow.Table.from_pylist(
        [
            {"image": {"bytes": encoded(seed), "path": None}, "image_id": key, "captions": texts}
            for key, seed, texts in rows
        ]
    )
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    return path


def test_the_hubs_parquet_files(tmp_path: Path) -> None:
    da = parquet(tmp_path / "da.parquet", [("1", 1, ["en"]), ("2", 2, ["to", "tre"]), ("3", 3, [" "])])
    el = [
        parquet(tmp_path / "el0.parquet", [("2", 9, ["δύο"])]),
        parquet(tmp_path / "el1.parquet", [("4", 4, ["τέσσερα"])]),
    ]
    samples = read_caption_parquet({"da": [da], "el": el})
    assert [(sample.key, dict(sample.captions)) for sample in samples] == [
        ("1", {"da": ("en",)}),
        ("2", {"da": ("to", "tre"), "el": ("δύο",)}),
        ("4", {"el": ("τέσσερα",)}),
    ]
    assert [sample.image().tobytes() for sample in samples] == [picture(seed).tobytes() for seed in (1, 2, 4)]
    with pytest.raises(DataError, match=r"el0\.parquet: row 0: captions of '2' in el for the second time"):
        read_caption_parquet({"el": [el[0], el[0]]})


def test_both_forms_in_a_suite_score_the_same(tmp_path: Path, captions: dict[str, Path]) -> None:
    folder = images(tmp_path / "images", [name.rpartition(".")[0] + ".png" for name in NAMINGS["wit_ix"]])
    rows = [("wit-test_15", 0, ["Eksemplarer"]), ("wit-test_244", 2, ["Bygning 64", "Social Hall\nkan ses"])]
    path = parquet(tmp_path / "da.parquet", rows)
    sources = [
        {"kind": "wit", "captions": {"da": str(captions["da"])}, "images": str(folder)},
        {"kind": "caption_parquet", "captions": {"da": [str(path)]}},
    ]
    tasks = [{"kind": "retrieval", "name": one["kind"], "source": one} for one in sources]
    found = evaluate(CountingModel().eval(), SuiteSpec.model_validate({"tasks": tasks}), quiet=True).rows
    assert {**found[0].flat(), "task": ""} == {**found[1].flat(), "task": ""}
    assert (found[0]["n_images"], found[0]["n_texts"]) == (2, 3)


def test_names_and_naming_belong_together(captions: dict[str, Path]) -> None:
    for more in ({"naming": "file"}, {"names": "names.csv"}):
        source = {"kind": "wit", "captions": {"da": "x.jsonl"}, "images": "images", **more}
        with pytest.raises(ValueError, match="give both or neither"):
            SuiteSpec.model_validate({"tasks": [{"kind": "retrieval", "name": "wit", "source": source}]})
