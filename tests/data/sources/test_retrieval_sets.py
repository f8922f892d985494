"""Published retrieval sets from the user's files: tiny copies of their forms, and what can be wrong with them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluate_fakes import CountingModel, picture
from vlkit.data.sources.captions.readers import (
    read_aligned_lines,
    read_babel_json,
    read_caption_jsonl,
    read_crossmodal3600,
)
from vlkit.data.sources.open import open_source
from vlkit.errors import DataError, SpecError, UnknownName, VlkitError
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.suite import open_suite, read_suite
from vlkit.evaluation.tasks.retrieval_task import RetrievalTask
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.sources import AlignedLines
from vlkit.types import Sample

NAMES = ("b.jpg", "a.jpg", "c.jpg")  # not sorted: the order of the file holds
DE = (("ein Hund", "Hund"), ("eine Katze", "eine Katze"), ("Tasse\u2028blau",))
JA = (("犬",), ("猫",), ("カップ",))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        picture(seed).save(folder / name)
    return folder


def babel(path: Path, captions: Mapping[str, Any], names: Sequence[Any] = NAMES) -> Path:
    path.write_text(json.dumps({"images": list(names), "captions": captions}), encoding="utf-8")
    return path


def jsonl(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


def crossmodal(captions: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image/key": name[0], "image/locale": "de"}
        | {code: {"caption": texts[n], "caption/tokenized": ["no"]} for code, texts in captions.items()}
        for n, name in enumerate(NAMES)
    ]


def lines(path: Path, texts: Sequence[str], end: str = "\n") -> Path:
    path.write_bytes("".join(text + end for text in texts).encode())
    return path


def captions(samples: Sequence[Sample]) -> dict[str, dict[str, tuple[str, ...]]]:
    return {sample.key: dict(sample.captions) for sample in samples}


WHOLE = {name: {"de": DE[n], "ja": JA[n]} for n, name in enumerate(NAMES)}


def test_all_forms_of_the_same_captions_are_the_same_samples(tmp_path: Path, images: Path) -> None:
    one = read_babel_json(babel(tmp_path / "xtd.json", {"de": DE, "jp": JA}), images)
    two = read_crossmodal3600(jsonl(tmp_path / "captions.jsonl", crossmodal({"de": DE, "ja": JA})), images)
    m2 = [{"caption": DE[n], "image": name} for n, name in enumerate(NAMES)]
    iglue = [{"sentences": JA[n], "id": name[0], "img_path": name} for n, name in enumerate(NAMES)]
    files = {"de": jsonl(tmp_path / "m2.jsonl", m2), "ja": jsonl(tmp_path / "iglue.jsonl", iglue[::-1])}
    three = read_caption_jsonl(files, images)
    assert list(captions(one).items()) == list(captions(two).items()) == list(captions(three).items())
    assert captions(one) == WHOLE and list(captions(one)) == list(NAMES)
    assert {sample.split for sample in one} == {"test"}
    for seed, sample in enumerate(one):
        assert sample.image().size == picture(seed).size


def test_all_files_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    files = {tag: (str(tmp_path / f"test.{tag}"),) for tag in ("de", "ja")}
    source = AlignedLines(names=str(tmp_path / "names"), captions=files, images=str(tmp_path / "images"))
    with pytest.raises(VlkitError) as error:
        open_source(source)
    missing = [f"cannot read {tmp_path}/{name}: no such file or directory" for name in ("names", "test.de", "test.ja")]
    assert str(error.value).splitlines() == [*missing, f"{tmp_path}/images: no such folder of images"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_belong_together(tmp_path: Path, images: Path, end: str) -> None:
    names = lines(tmp_path / "test_image_names.txt", NAMES, end)
    first = lines(tmp_path / "test.1.de", ["ein Hund", "eine Katze", "Tasse\u2028blau"], end)
    second = tmp_path / "test.2.de.gz"
    second.write_bytes(gzip.compress(b"Hund\neine Katze\nTasse"))  # the last line without an end
    found = read_aligned_lines(
        names, {"de": [first, second], "jp": [lines(tmp_path / "ja", [x for (x,) in JA])]}, images
    )
    assert captions(found) == {**WHOLE, "c.jpg": {"de": ("Tasse\u2028blau", "Tasse"), "ja": JA[2]}}
    damaged = tmp_path / "damaged.gz"
    whole = second.read_bytes()
    for broken in (whole[:-9], whole[:12] + b"\xff\xff" + whole[14:], b"no gzip"):
        damaged.write_bytes(broken)
        with pytest.raises(DataError, match=r"cannot read .*damaged\.gz"):
            read_aligned_lines(names, {"de": [damaged]}, images)


def test_codes_of_the_sets_are_known(tmp_path: Path, images: Path) -> None:
    found = read_crossmodal3600(jsonl(tmp_path / "a.jsonl", crossmodal({"fil": JA, "no": JA, "quz": JA})), images)
    assert set(found[0].captions) == {"tl", "nb", "qu"}
    assert set(read_babel_json(babel(tmp_path / "b", {"fil": JA, "mi": JA, "ZH": JA}), images)[0].captions) == {
        "tl",
        "mi",
        "zh",
    }


def test_repeated_captions_count_and_no_caption_is_no_error(tmp_path: Path, images: Path) -> None:
    path = babel(tmp_path / "xm3600.json", {"de": DE, "mi": [["hu"], [], ["ko"]]})
    task = RetrievalTask("xm3600", read_babel_json(path, images))
    assert task.texts("de") == ([text for texts in DE for text in texts], [0, 0, 1, 1, 2])
    assert task.texts("mi") == (["hu", "ko"], [0, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"de": DE[:2]}, "de: 2 lists of captions for 3 images"),
        ({"de": {"a": 1}}, "de: dict lists of captions for 3 images"),
        ({"xx-nope": DE}, "no language 'xx-nope'"),
        ({"jp": JA, "ja": JA}, "'jp' and 'ja' are both ja"),
        ({"de": [["a"], [" "], ["c"]]}, r"de, image 1 \(a.jpg\): an empty caption"),
        ({"de": [["a"], "b", ["c"]]}, r"de, image 1 \(a.jpg\): captions must be a list of texts"),
        ({"de": [["a"], [2], ["c"]]}, "captions must be a list of texts"),
        ({"de": [["a"], [], ["c"]]}, r"1 \(a.jpg\) of 3 images without a caption"),
        ({"de": [[], [], []]}, "there are no captions"),
        ({}, "there are no captions"),
    ],
)
def test_wrong_captions(tmp_path: Path, images: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_babel_json(babel(tmp_path / "xtd.json", content), images)


def test_wrong_images(tmp_path: Path, images: Path) -> None:
    path = babel(tmp_path / "xtd.json", {"de": DE})
    with pytest.raises(DataError, match="nowhere: no such folder of images"):
        read_babel_json(path, tmp_path / "nowhere")
    (images / "b.jpg").unlink()
    (images / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"images: 2 \(b.jpg, c.jpg\) of 3 images of .*xtd.json are not there"):
        read_babel_json(path, images)
    with pytest.raises(DataError, match=r"1 \(a.jpg\) images stand there more than once"):
        read_babel_json(babel(path, {"de": DE}, ["a.jpg", "b.jpg", "a.jpg"]), images)
    with pytest.raises(DataError, match="image 1: the image must be a file name, not 7"):
        read_babel_json(babel(path, {"de": DE}, ["a.jpg", 7, "c.jpg"]), images)


def test_names_that_no_file_can_have_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    long = "x" * 5000
    content = {"images": [long, "a\0b"], "captions": {"de": [["ein Hund"], ["eine Katze"]]}}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"images: 2 \(xxxx.*\) of 2 images of .*x\.json are not there"):
        read_babel_json(tmp_path / "x.json", tmp_path / "images")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"de: 2 lists.*no language 'xx-nope'.*an empty caption"):
        read_babel_json(babel(tmp_path / "a", {"de": DE[:2], "xx-nope": JA, "fr": [["a"], [""], ["c"]]}), images)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("{", r"x\.jsonl:1: bad JSON"),
        ('{"image": "a.jpg", "caption": ["x"]}\n[]\n', r"x\.jsonl:2: expected an object, found a list"),
        ('{"file": "a.jpg", "caption": ["x"]}\n', r"x\.jsonl:1: expected 'image' and 'caption'"),
        (
            '{"image": "a.jpg", "caption": ["x"]}\n\n{"image": "a.jpg", "caption": ["y"]}\n',
            r":3: .* for the second time",
        ),
    ],
)
def test_wrong_lines(tmp_path: Path, images: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_caption_jsonl({"zh": tmp_path / "x.jsonl"}, images)


def test_files_that_cannot_be_read(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_babel_json(tmp_path / "none.json", images)
    (tmp_path / "latin").write_bytes("Bär".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_aligned_lines(tmp_path / "latin", {}, images)
    (tmp_path / "list").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="expected an object"):
        read_babel_json(tmp_path / "list", images)


def test_wrong_crossmodal_lines(tmp_path: Path, images: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"image/key": "a", "de": ["x"]}, {"de": {"caption": ["x"]}}])
    with pytest.raises(DataError, match=r"a\.jsonl:1: 'de' must be .*a\.jsonl:2: image/key: the image must be"):
        read_crossmodal3600(path, images)
    with pytest.raises(DataError, match=r"1 \(a.jpg\) images stand there more than once"):
        read_crossmodal3600(jsonl(path, [{"image/key": "a", "de": {"caption": ["x"]}}, {"image/key": "a"}]), images)


def test_files_of_unequal_length(tmp_path: Path, images: Path) -> None:
    names = lines(tmp_path / "names.txt", NAMES)
    with pytest.raises(DataError, match=r"short has 2 lines for the 3 images of .*names\.txt"):
        read_aligned_lines(names, {"de": [lines(tmp_path / "short", ["x", "y"])]}, images)
    with pytest.raises(DataError, match=r"blank:2: an empty caption"):
        read_aligned_lines(names, {"de": [lines(tmp_path / "blank", ["x", "", "z"])]}, images)


def test_every_kind_is_evaluated_by_a_suite(tmp_path: Path, images: Path) -> None:
    xtd = babel(tmp_path / "xtd.json", {"de": DE, "jp": JA})
    xm = jsonl(tmp_path / "captions.jsonl", crossmodal({"de": DE, "ja": JA}))
    cn = jsonl(tmp_path / "cn.jsonl", [{"caption": JA[n], "image": name} for n, name in enumerate(NAMES)])
    names = lines(tmp_path / "names.txt", NAMES)
    words = lines(tmp_path / "test.ja", [text for (text,) in JA])
    sources: list[dict[str, Any]] = [
        {"kind": "babel_json", "path": str(xtd)},
        {"kind": "crossmodal3600", "path": str(xm)},
        {"kind": "caption_jsonl", "captions": {"ja": str(cn)}},
        {"kind": "aligned_lines", "names": str(names), "captions": {"ja": [str(words)]}},
    ]
    tasks = [
        {"kind": "retrieval", "name": one["kind"], "source": {**one, "images": str(images)}, "languages": ["ja"]}
        for one in sources
    ]
    rows = evaluate(CountingModel().eval(), SuiteSpec.model_validate({"tasks": tasks}), quiet=True).rows
    assert [row.task for row in rows] == [one["kind"] for one in sources]
    assert all({**row.flat(), "task": ""} == {**rows[0].flat(), "task": ""} for row in rows)
    assert rows[0]["n_images"] == rows[0]["n_texts"] == 3


def test_sets_from_a_suite_file(tmp_path: Path, images: Path) -> None:
    path = babel(tmp_path / "xtd.json", {"jp": JA})
    arguments = ["tasks.0.source.kind=babel_json", f"tasks.0.source.path={path}", f"tasks.0.source.images={images}"]
    assert open_suite(read_suite("retrieval", arguments)).languages == (("ja",),)
    with pytest.raises(UnknownName, match="'de'"):
        open_suite(read_suite("retrieval", [*arguments, "languages=[de]"]))
    with pytest.raises(SpecError, match="hold one split"):
        read_suite("retrieval", [*arguments, "tasks.0.split=test"])
