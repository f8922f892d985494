from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from tests.helpers.data_factory import encoded, record, shards, source, tokenize
from vlkit.data.batches.loader import batches
from vlkit.data.plan.sampling import PairSampler
from vlkit.data.sources.combine import ConcatSource, Subset, problems, read_metas
from vlkit.data.sources.open import open_source, open_sources
from vlkit.data.sources.table import TableSource
from vlkit.errors import DataError, UnknownName
from vlkit.models.dual_encoder.batch import PairPreparer
from vlkit.spec import sources as spec
from vlkit.spec.dataset import DataSpec


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def table(folder: Path, count: int = 6) -> Path:
    for n in range(count):
        (folder / f"s{n:03d}").write_bytes(encoded((n, 0, 255 - n)))
    return write(folder / "t.jsonl", "\n".join(json.dumps({"image": f"s{n:03d}", **record(n)}) for n in range(count)))


def test_folder_and_shards_give_the_same_samples(tmp_path: Path) -> None:
    ours, theirs = TableSource(table(tmp_path)), source(shards(tmp_path / "s"))
    assert len(ours) == len(theirs)
    for n in range(len(ours)):
        assert ours.meta(n) == theirs.meta(n)
        assert ours[n].captions == theirs[n].captions
        assert ours[n].image().tobytes() == theirs[n].image().tobytes()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "image,caption,language\na.png,a dog,en\na.png,ein Hund,de\na.png,Köter,deu\n"),
        ("a.csv", "\ufeffimage,caption_en,caption_de\na.png,a dog,ein Hund\na.png,,Köter\n"),
        ("a.tsv", "filepath\ttext\tlanguage\na.png\ta dog\ten\na.png\tein Hund\tde\na.png\tKöter\tde\n"),
        ("a.jsonl", '{"image": "a.png", "captions": {"en": "a dog", "de": ["ein Hund", "Köter"]}}\n\n'),
    ],
)
def test_all_table_forms_mean_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    found = TableSource(write(tmp_path / name, text))
    assert len(found) == 1
    assert found[0].captions == {"en": ("a dog",), "de": ("ein Hund", "Köter")}
    assert found[0].image().size == (12, 8)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", ": the table is empty"),
        ("t.csv", "image,caption,language\n", ": the table has no rows"),
        ("t.csv", "img,caption\na,b\n", ":1: no 'image' column; there are: img, caption; is 'img' meant?"),
        ("t.csv", "image,caption,language\na,b,en\nc,d\n", ":3: 2 columns, the header has 3"),
        (
            "t.csv",
            "image,caption\na,b\n",
            ":2: 'caption' has no language: add a 'language' field or set the source's language (language: en)",
        ),
        (
            "t.csv",
            "image,note\na,b\n",
            ":2: no caption; expected 'caption' or 'text', 'caption_LANGUAGE' columns, or a 'captions' object",
        ),
        ("t.jsonl", '{"image": "a", "captions": {"en": "x"}}\n[1]\n', ":2: expected an object, found a list"),
        ("t.jsonl", '{"captions": {"en": "x"}}\n', ":1: no 'image' column; there are: captions"),
        (
            "t.jsonl",
            '{"image": {"a": 1}, "caption_en": "x"}\n',
            ":1: 'image' must be the path of an image, found an object",
        ),
        ("t.csv", "image,caption_en,image\na,b,c\n", ":1: the column 'image' is there twice; name each otherwise"),
        ("t.jsonl", "", ": the table has no rows"),
        ("t.parquet", "x", ": a table must be one of .jsonl, .csv, .tsv"),
    ],
)
def test_wrong_tables_name_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(DataError) as caught:
        TableSource(path)
    assert str(caught.value) == f"{path}{message}"


def test_zero_is_a_value(tmp_path: Path) -> None:
    source = TableSource(write(tmp_path / "t.csv", "image,caption_en,concept,license\n0,x,0,0\na,y,,\n"))
    assert [(one.key, one.concept, one.license) for one in (source[0], source[1])] == [("0", "0", "0"), ("a", "", "")]
    lines = ['{"image": "a", "caption_en": "x", "concept": 0}', '{"image": "a", "caption_en": "y", "concept": 1}']
    with pytest.raises(DataError, match=r"t\.jsonl:2: concept of 'a' is '1' here and '0' in line 1"):
        TableSource(write(tmp_path / "t.jsonl", "\n".join(lines)))


def test_more_wrong_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: no such table"):
        TableSource(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"t\.jsonl:2: bad JSON: "):
        TableSource(write(tmp_path / "t.jsonl", '{"image": "a", "captions": {"en": "x"}}\n{"image": \n'))
    with pytest.raises(DataError, match=r"t\.jsonl:1: no language 'xq-none'"):
        TableSource(write(tmp_path / "t.jsonl", '{"image": "a", "captions": {"xq-none": "x"}}\n'))
    with pytest.raises(DataError, match=r"t\.jsonl:2: concept of 'a' is 'd' here and 'c' in line 1"):
        lines = [
            '{"image": "a", "caption_en": "x", "concept": "c"}',
            '{"image": "a", "caption_en": "y", "concept": "d"}',
        ]
        TableSource(write(tmp_path / "t.jsonl", "\n".join(lines)))
    (tmp_path / "l.csv").write_bytes("image,caption_de\na,Köter\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        TableSource(tmp_path / "l.csv")
    with pytest.raises(DataError, match="no such folder of images"):
        TableSource(table(tmp_path), images=tmp_path / "nowhere")


def test_a_missing_image_is_named_with_its_line(tmp_path: Path) -> None:
    found = TableSource(write(tmp_path / "t.csv", "image,caption_en\nb.png,x\n"))
    with pytest.raises(DataError) as caught:
        found[0].image()
    assert str(caught.value) == f"cannot read image {tmp_path}/b.png (t.csv:2): no such file"


def test_concat_and_subset(tmp_path: Path) -> None:
    one, two = source(shards(tmp_path / "a", count=3)), TableSource(table(tmp_path, 4))
    both = ConcatSource((one, two))
    assert [both.meta(i).key for i in range(7)] == [x.meta(i).key for x in (one, two) for i in range(len(x))]
    assert [both[i].key for i in range(7)] == [both.meta(i).key for i in range(7)]
    part = Subset(both, (6, 0))
    assert [part[i].key for i in range(2)] == ["s003", "s000"] and part.meta(0).key == "s003"
    with pytest.raises(IndexError):
        both[7]


def test_open_sources_splits(tmp_path: Path) -> None:
    samples = [
        (
            f"s{n}",
            {"png": encoded(), "json": json.dumps(record(n % 20, split="test" if n % 20 == 7 else "train")).encode()},
        )
        for n in range(60)
    ]
    folder = str(shards(tmp_path / "s", samples, per_shard=50))
    data = DataSpec(sources=(spec.WebDatasetSource(path=folder),), holdout_concepts=5)
    found = {split: open_sources(data, split=split) for split in ("train", "validation", "test", "all")}
    concepts = {split: {part.meta(i).concept for i in range(len(part))} for split, part in found.items()}
    assert {split: len(part) for split, part in found.items()} == {"train": 42, "validation": 15, "test": 3, "all": 60}
    assert not concepts["train"] & concepts["validation"] and concepts["test"] == {"c7"}
    with pytest.raises(UnknownName) as caught:
        open_sources(data, split="valid")
    assert str(caught.value) == "no split 'valid'; did you mean 'validation'?"
    with pytest.raises(DataError, match=r"data\.holdout_concepts = 19 keeps everything back: .* has 19 concepts"):
        open_sources(data.model_copy(update={"holdout_concepts": 19}))


def test_open_source_by_spec(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "image,caption\na.png,chien\n")
    images = tmp_path / "i"
    images.mkdir()
    (images / "a.png").write_bytes(encoded())
    found = open_source(spec.FolderSource(path=str(path), images=str(images), language="fra"))
    assert found[0].captions == {"fr": ("chien",)} and found[0].image().size == (12, 8)


def test_problems_are_found_through_views(tmp_path: Path) -> None:
    samples = [("a", {"png": encoded(), "json": json.dumps(record(1)).encode()}), ("b", {"png": encoded()})]
    bad = source(shards(tmp_path / "s", samples))
    assert list(problems(Subset(bad, (0,)))) == ["shard-0000.tar:b"]
    twice = problems(Subset(ConcatSource((bad, bad)), (0,)))  # whose samples count twice as well
    assert list(twice) == ["shard-0000.tar:b", "shard-0000.tar:b (2)"]


def test_a_table_of_texts(tmp_path: Path) -> None:
    rows = ['{"captions": {"en": "a dog", "de": "ein Hund"}}', '{"captions": {"en": "a cat", "de": "eine Katze"}}']
    found = TableSource(write(tmp_path / "t.jsonl", "\n".join(rows)), texts_only=True)
    assert [dict(found[n].captions) for n in range(2)] == [
        {"en": ("a dog",), "de": ("ein Hund",)}, {"en": ("a cat",), "de": ("eine Katze",)}
    ]  # fmt: skip
    columns = TableSource(write(tmp_path / "t.csv", "caption_en,caption_de\na dog,ein Hund\n"), texts_only=True)
    assert dict(columns[0].captions) == {"en": ("a dog",), "de": ("ein Hund",)}
    with pytest.raises(DataError, match="texts_only has no images"):
        found[0].image()
    sampler = PairSampler(read_metas(found), 2, seed=0)
    (batch,) = batches(found, sampler, preparer=PairPreparer(None, tokenize), steps=1, num_workers=1)
    assert batch.pixels_BCHW is None and sorted(batch.pivots) == ["a cat", "a dog"]
    with pytest.raises(DataError, match="no 'image' column"):
        TableSource(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("excel.csv", "\ufeffimage;caption_en;caption_de\r\na.png;a dog, red;ein Hund\r\n"),
        ("open_clip.csv", "filepath\tcaption_en\tcaption_de\na.png\ta dog, red\tein Hund\n"),
        ("pandas.csv", ',image,caption_en,caption_de\n0,a.png,"a dog, red",ein Hund\n'),
        ("r.csv", '"","image","caption_en","caption_de"\n"1","a.png","a dog, red","ein Hund"\n'),
        ("blanks.csv", 'image, caption_en, caption_de, caption_no\n a.png,"a dog, red", ein Hund ,7\n'),
        ("dot.csv", 'image,caption_en,caption_de\n./a.png,"a dog, red",\na.png,,ein Hund\n'),
    ],
)
def test_tables_as_other_programs_write_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    found = TableSource(write(tmp_path / name, text))
    assert [found[n].captions for n in range(len(found))] == [{"en": ("a dog, red",), "de": ("ein Hund",)}]
    assert found.meta(0).key == "a.png" and found[0].image().size == (12, 8)


@pytest.mark.parametrize(("table", "file"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_in_a_table_and_in_names_of_files_may_be_written_in_two_ways(
    tmp_path: Path, table: Literal["NFC", "NFD"], file: Literal["NFC", "NFD"]
) -> None:
    (tmp_path / unicodedata.normalize(file, "고양이é.png")).write_bytes(encoded())
    rows = unicodedata.normalize(table, "고양이é.png,a\n") + unicodedata.normalize("NFC", "고양이é.png,b\n")
    found = TableSource(write(tmp_path / "t.csv", "image,caption_en\n" + rows))
    assert len(found) == 1 and found.meta(0).key == unicodedata.normalize("NFC", "고양이é.png")
    assert found[0].captions == {"en": ("a", "b")} and found[0].image().size == (12, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,language,caption\na.png,pt-BR,a\nb.png,pt-PT,b\n", ":3: 'pt-BR' and 'pt-PT' are both pt here"),
        ("image,caption_en,Caption_EN\na.png,a,b\n", ":1: the column 'Caption_EN' is there twice"),
        ("image,caption_en\n ,a\n", ":2: column 'image' is empty; expected the path of an image"),
        (",image,caption_en,\n0,a.png,a,b\n", ":2: 'b' stands in column 4, which has no name"),
    ],
)
def test_rows_that_would_be_merged_or_lost_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"t.csv{message}"):
        TableSource(write(tmp_path / "t.csv", text))
