from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from tests.helpers.data_factory import encoded, record, shards, source
from vlkit.data.formats import shard_index as index_module
from vlkit.data.formats.caption_forms import CaptionError
from vlkit.data.sources.combine import summarize
from vlkit.data.sources.open import open_sources
from vlkit.data.sources.shards import ShardSource, _count, braces, expand
from vlkit.errors import DataError
from vlkit.files import home
from vlkit.spec import sources as spec
from vlkit.spec.dataset import DataSpec


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


PNG = encoded()
JSON = json.dumps(record(1)).encode()


def test_samples_come_in_shard_order_with_captions_and_meta(tmp_path: Path) -> None:
    found = source(shards(tmp_path / "s"))
    assert len(found) == 6 and len(found.paths) == 2
    assert [found[i].key for i in range(6)] == [f"s{n:03d}" for n in range(6)]
    sample, meta = found[5], found.meta(5)
    assert sample.captions == {"en": ("thing 5",), "de": ("Ding 5", "Sache 5")}
    assert (meta.key, meta.concept, meta.split) == (sample.key, sample.concept, sample.split) == ("s005", "c5", "train")
    assert dict(zip(meta.languages, meta.counts, strict=True)) == {"en": 1, "de": 2}
    assert sample.image().getpixel((0, 0)) == (5, 0, 250)
    with pytest.raises(IndexError):
        found[6]


def test_a_pickled_source_gives_the_same_samples(tmp_path: Path) -> None:
    found = source(shards(tmp_path / "s"))
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301 - what worker processes do
    assert [copy[i] for i in range(len(copy))] == [found[i] for i in range(len(found))]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        shards(tmp_path / name)
    assert [p.read_bytes() for p in expand(str(tmp_path / "a"))] == [
        p.read_bytes() for p in expand(str(tmp_path / "b"))
    ]


def test_brace_patterns_and_globs(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s")
    names = ["shard-0000.tar", "shard-0001.tar"]
    for pattern in ("shard-{0000..0001}.tar", "shard-{0000,0001}.tar", "*.tar", "shard-000{0..1}.tar"):
        assert [path.name for path in expand(str(folder / pattern))] == names
    with pytest.raises(DataError) as caught:
        expand(str(folder / "shard-{0000..0003}.tar"))
    assert str(caught.value) == f"{folder}/shard-0002.tar: no such shard (and 1 more of 4 shards)"
    with pytest.raises(DataError, match="no shard matches this pattern"):
        expand(str(folder / "x*.tar"))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no \.tar shards in this folder"):
        expand(str(tmp_path / "none"))


def test_the_index_is_kept_and_made_anew_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tar(tmp_path / "a.tar", [("x.png", PNG), ("x.json", JSON)])
    scans: list[Path] = []
    scan = index_module.scan
    monkeypatch.setattr(index_module, "scan", lambda p, *, language: scans.append(p) or scan(p, language=language))
    first = ShardSource([path])
    again = ShardSource([path])
    assert len(scans) == 1 and again[0] == first[0]
    tar(path, [("y.png", PNG), ("y.json", JSON), ("z.png", PNG), ("z.json", JSON)])
    assert [ShardSource([path]).meta(i).key for i in range(2)] == ["y", "z"] and len(scans) == 2
    os.utime(path, ns=(1, 1))
    ShardSource([path])
    assert len(scans) == 3
    for cached in (home() / "index").iterdir():
        cached.write_text("{half an ind")
    assert ShardSource([path]).meta(0).key == "y"


@pytest.mark.parametrize("cut", [700, 1100, 3000])
def test_a_truncated_shard_gives_its_whole_samples_and_names_the_cut_one(tmp_path: Path, cut: int) -> None:
    members = [
        (f"{n}.{suffix}", c) for n in range(8) for suffix, c in (("png", encoded(size=(90, 90))), ("json", JSON))
    ]
    path = tar(tmp_path / "a.tar", members)
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    path.write_bytes(whole[: end - cut])
    found = ShardSource([path])
    assert 4 <= len(found) < 8
    assert [found[i].image().size for i in range(len(found))] == [(90, 90)] * len(found)
    assert any("a.tar" in name for name in found.problems)


def test_a_shard_cut_within_an_image(tmp_path: Path) -> None:
    noise = os.urandom(5000)
    path = tar(tmp_path / "a.tar", [("x.png", PNG), ("x.json", JSON), ("y.png", noise), ("y.json", JSON)])
    path.write_bytes(path.read_bytes()[: 512 * 5 + 3000])
    found = ShardSource([path])
    assert len(found) == 1
    assert list(found.problems) == ["a.tar:y.png"] and "breaks off at byte" in found.problems["a.tar:y.png"]


def test_garbage_between_samples_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [(f"{n}.{s}", c) for n in range(3) for s, c in (("png", PNG), ("json", JSON))])
    raw = bytearray(path.read_bytes())
    raw[512 * 8 : 512 * 9] = b"\xaa" * 512
    path.write_bytes(raw)
    found = ShardSource([path])
    assert 1 <= len(found) < 3 and found.problems


def test_incomplete_samples_are_named(tmp_path: Path) -> None:
    bad = [("b.png", PNG), ("c.json", JSON), ("d.png", PNG), ("d.json", b"{no"), ("e.png", PNG), ("e.json", b'["a"]')]
    bad += [
        ("f.png", PNG),
        ("f.json", b'{"captions": {"xx-none": "a"}}'),
        ("g.png", PNG),
        ("g.json", b'{"caption": "a"}'),
    ]
    bad += [("h.png", PNG), ("h.json", b'{"captions": {"en": "  "}}'), ("i.png", PNG), ("i.json", b"\xff\xfe")]
    path = tar(tmp_path / "a.tar", [("a.png", PNG), ("a.json", JSON), *bad])
    found = ShardSource([path])
    assert len(found) == 1
    reasons = {name.removeprefix("a.tar:"): reason for name, reason in found.problems.items()}
    assert list(reasons) == list("bcdefghi")
    assert reasons["b"] == "no caption member (json, txt); it has: png"
    assert reasons["c"] == "no image member (jpg, png, webp, gif, tif, avif and what else Pillow reads); it has: json"
    assert reasons["d"].startswith("its captions: bad JSON: ")
    assert reasons["e"] == "its captions: expected an object, found a list"
    assert reasons["f"].startswith("no language 'xx-none'")
    assert (
        reasons["g"] == "'caption' has no language: add a 'language' field or set the source's language (language: en)"
    )
    assert reasons["h"] == "it has no caption text"
    assert reasons["i"] == "its captions: not UTF-8 text (byte 0); save it as UTF-8"


def test_a_key_that_comes_twice_is_two_samples(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("x.png", PNG), ("x.json", JSON), ("x.png", encoded((1, 2, 3))), ("x.json", JSON)])
    found = ShardSource([path])
    assert [found.meta(i).key for i in range(2)] == ["x", "x"]
    assert found[0].image().getpixel((0, 0)) != found[1].image().getpixel((0, 0))


def test_plain_text_captions_and_metadata_json(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar", [("x.jpg", encoded(kind="JPEG")), ("x.json", b'{"width": 3}'), ("x.txt", b" ein  Hund\n")]
    )
    assert ShardSource([path], language="deu")[0].captions == {"de": ("ein Hund",)}


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").write_bytes(b"")
    tar(tmp_path / "void.tar", [])
    (tmp_path / "text.tar").write_text("hello " * 300)
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.png"))
    for name, message in [
        ("empty.tar", "no whole sample; the first problem: empty.tar: the shard is empty (0 bytes)"),
        ("void.tar", "no whole sample"),
        ("text.tar", "not a tar file"),
        ("zipped.tar", "a compressed tar cannot be read at random places; unpack it to a plain .tar first"),
        ("absent.tar", "no such shard"),
    ]:
        with pytest.raises(DataError) as caught:
            ShardSource([tmp_path / name])
        assert str(caught.value) == f"{tmp_path / name}: {message}"


def test_an_empty_shard_among_full_ones_does_no_harm(tmp_path: Path) -> None:
    folder = shards(tmp_path / "s")
    tar(folder / "shard-0000a.tar", [])
    assert [source(folder)[i].key for i in range(6)] == [f"s{n:03d}" for n in range(6)]


def test_a_corrupt_image_is_named_with_its_shard(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("x.png", PNG[:45]), ("x.json", JSON)])
    with pytest.raises(DataError, match=f"^cannot read image x in {path}: "):
        ShardSource([path])[0].image()


def test_an_unwritable_cache_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "file" / "home"))
    assert len(source(shards(tmp_path / "s"))) == 6


def test_captions_of_a_wrong_type() -> None:
    with pytest.raises(CaptionError, match="the caption in 'de' is a int, expected text"):
        index_module.read_record(b'{"captions": {"de": 3}}', plain=False, language=None)
    with pytest.raises(CaptionError, match="'captions' is a list"):
        index_module.read_record(b'{"captions": ["a"]}', plain=False, language=None)


@pytest.mark.parametrize(
    "pattern", ["s-{0..999999999}.tar", "s-{00000..99999}-{00000..99999}.tar", "{9..-9999999}.tar"]
)
def test_patterns_for_more_shards_than_anybody_has_are_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        expand(str(tmp_path / pattern))
    assert str(caught.value) == (
        f"{pattern}: stands for more than 1,000,000 shards; name a folder of them, or larger ones"
    )


ORDERS = [
    ["0.png", "1.png", "2.png", "0.txt", "1.txt", "2.txt"],  # tar -cf x.tar *.png *.txt
    ["0.txt", "1.txt", "2.txt", "2.png", "1.png", "0.png"],
    ["2.txt", "0.png", "1.png", "1.txt", "2.png", "0.txt"],  # as a folder gave them
]


@pytest.mark.parametrize("order", ORDERS)
def test_members_of_a_sample_may_lie_apart(tmp_path: Path, order: list[str]) -> None:
    content = {f"{n}.png": encoded((n, 0, 0)) for n in range(3)} | {f"{n}.txt": f"thing {n}".encode() for n in range(3)}
    found = ShardSource([tar(tmp_path / "a.tar", [(name, content[name]) for name in order])], language="en")
    assert found.problems == {} and sorted(found[n].key for n in range(3)) == ["0", "1", "2"]
    for sample in (found[n] for n in range(3)):
        assert sample.captions == {"en": (f"thing {sample.key}",)}
        assert sample.image().getpixel((0, 0)) == (int(sample.key), 0, 0)


def test_what_lies_apart_is_joined_only_where_it_is_plain_what_belongs_together(tmp_path: Path) -> None:
    other = encoded((9, 9, 9))
    members = [
        ("0.png", PNG),
        ("0.txt", b"one"),
        ("x.txt", b"-"),
        ("0.png", other),
        ("0.txt", b"two"),
    ]  # cat a.tar b.tar
    members += [("7.png", PNG), ("8.png", PNG), ("7.png", other), ("9.png", PNG), ("7.txt", b"whose?")]
    found = ShardSource([tar(tmp_path / "a.tar", members)], language="en")
    assert [found[n].captions["en"] for n in range(2)] == [("one",), ("two",)] and len(found) == 2
    assert found[1].image().getpixel((0, 0)) == (9, 9, 9)
    assert [name for name in found.problems if ":7" in name] == ["a.tar:7", "a.tar:7 (2)", "a.tar:7 (3)"]


def test_names_that_are_not_utf8_are_shown_and_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.tar")
    members = [(os.fsdecode(name), content) for name, content in (
        (b"\xe9.png", PNG), (b"\xe9.txt", b"one"), (b"\xe8.png", PNG), (b"\xe8.txt", b"two"), (b"\xe7.png", PNG),
    )]  # fmt: skip
    tar(path, members)
    for _ in range(2):  # from the shard, then from the cache
        found = ShardSource([path], language="en")
        assert [found.meta(n).key for n in range(2)] == [r"\xe9", r"\xe8"]
        assert [found[n].captions["en"] for n in range(2)] == [("one",), ("two",)]
        assert len(found.problems) == 1 and next(iter(found.problems)).endswith(r":\xe7")
        assert list(summarize(found).languages.items()) == [("en", 2)]


def test_repeated_keys_are_samples_of_their_own(tmp_path: Path) -> None:
    paths = [
        tar(tmp_path / name / "0.tar", [(f"{n}.{s}", c) for n in range(4) for s, c in (("png", PNG), ("txt", b"x"))])
        for name in ("a", "b")
    ]
    bad = [tar(tmp_path / name / "1.tar", [("0.png", PNG)]) for name in ("a", "b")]
    found = ShardSource([*paths, *bad], language="en")
    assert summarize(found).concepts == 8
    assert list(found.problems) == ["1.tar:0", f"{tmp_path}/b/1.tar:0"]
    once = [spec.WebDatasetSource(path=str(path), language="en") for path in paths]
    kept = DataSpec(sources=tuple(once), holdout_concepts=3)
    assert len(open_sources(kept, split="validation")) == 3 and len(open_sources(kept)) == 5
    twice = DataSpec(sources=(once[0], once[0]), holdout_concepts=3)  # one shard two times: the same samples
    assert len(open_sources(twice, split="validation")) == 6 and len(open_sources(twice)) == 2


def test_a_number_as_concept_is_one(tmp_path: Path) -> None:
    text = json.dumps({"captions": {"en": "x"}, "concept": 0, "split": "train"}).encode()
    found = ShardSource([tar(tmp_path / "a.tar", [("a.png", PNG), ("a.json", text)])])
    assert found.meta(0).concept == found[0].concept == "0"


MANY = "stands for more than 1,000,000 shards; name a folder of them, or larger ones"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("{{0..999999},{0..999999}}.tar", MANY),
        ("{a,b}" * 40, MANY),
        ("{0..9999}-{0..9999}.tar", MANY),
        ("{" * 60 + "a,b" + "}" * 60, "braces in more than 16 others"),
        ("{0..3.tar", "Unbalanced braces: '{0..3.tar'"),
        ("{{0..3}.tar", "Unbalanced braces: '{{0..3}.tar'"),
        ("0..3}.tar", "Unbalanced braces: '0..3}.tar'"),
    ],
)
def test_patterns_that_no_memory_holds_are_told_before_they_are_listed(pattern: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        braces(pattern)
    assert str(caught.value) == f"{pattern}: {says}"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{a,{b,c}}{0..1}", ["a0", "a1", "b0", "b1", "c0", "c1"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{0..6..3}", ["0", "3", "6"]),
        ("{a..c}x", ["ax", "bx", "cx"]),
        ("a,b", ["a,b"]),
        ("{a,}", ["a", ""]),
    ],
)
def test_what_patterns_stand_for_is_counted_as_it_is_listed(pattern: str, names: list[str]) -> None:
    assert braces(pattern) == names
    assert _count(pattern) == len(names)
