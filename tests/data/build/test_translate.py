"""Translation of data sets: what is translated, marked and left out; stopped and gone on with; models and functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.helpers import encoder_factory as factory
from tests.helpers.evaluate_fakes import picture
from vlkit.cli.app import app
from vlkit.data.build.translate import TranslationOptions, open_translator, translate
from vlkit.data.sources.combine import SampleList
from vlkit.data.sources.open import open_path
from vlkit.errors import DataError, VlkitError
from vlkit.parts.translation import HfTranslator
from vlkit.types import Sample, Source, Turn


def shouted(texts: Sequence[str], source: str, target: str) -> list[str | None]:
    """A user's translator: each text with its languages."""
    return [f"{text} ({source}-{target})" for text in texts]


def none_of_cats(texts: Sequence[str], source: str, target: str) -> list[str | None]:
    return [None if "cat" in text else text.upper() for text in texts]


def too_few(texts: Sequence[str], source: str, target: str) -> list[str]:
    return []


def broken(texts: Sequence[str], source: str, target: str) -> list[str]:
    raise RuntimeError("no route")


def table(folder: Path, rows: Sequence[dict[str, Any]]) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        picture(number).save(folder / f"{number}.png")
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_path(str(path))


def captions(folder: Path) -> Source:
    rows = [
        {"image": f"{n}.png", "captions": {"en": [f"dog {n}", f"cat {n}"], "ja": "犬"}, "concept": "c"}
        for n in range(3)
    ]
    return table(folder, [*rows, {"image": "3.png", "captions": {"ja": "猫"}}])


def dialogues(folder: Path) -> Source:
    turns = [
        {"from": "human", "value": "<image>\nIs this\n\na cat?"},
        {"from": "gpt", "value": "No."},
        {"from": "human", "value": "犬？", "language": "ja"},
        {"from": "gpt", "value": "Yes. <image>"},
    ]
    rows = [
        {"image": ["0.png", "1.png"], "conversations": turns, "lang": "en", "keywords": ["no"], "task": "chat"},
        {"context": "Hello", "label": "Hi", "lang": "en"},
        {"image": "2.png", "context": "What does it say?", "label": "STOP", "lang": "en", "task": "ocr"},
    ]
    for row in rows:
        for turn in row.get("conversations", []):
            turn["language"] = turn.get("language", "en")
    return table(folder, rows)


def run(data: Source, folder: Path, *to: str, translator: Any = shouted, **more: Any) -> list[Sample]:
    options = TranslationOptions(to=to, **more)
    translate(data, folder, options, translator=translator, identity="test", quiet=True)
    found = open_path(str(folder))
    return [found[number] for number in range(len(found))]


def test_captions_are_translated_into_all_languages_and_marked(tmp_path: Path) -> None:
    found = run(captions(tmp_path), tmp_path / "out", "deu", "sw")
    assert len(found) == 3  # the Japanese one has nothing to translate
    assert found[1].captions == {
        "de": ("dog 1 (en-de)", "cat 1 (en-de)"), "sw": ("dog 1 (en-sw)", "cat 1 (en-sw)")
    }  # fmt: skip
    assert {(one.translated, one.concept, one.split) for one in found} == {(True, "c", "train")}
    assert found[2].image().tobytes() == picture(2).tobytes()


def test_conversations_are_translated_around_their_images_and_lines(tmp_path: Path) -> None:
    found = run(dialogues(tmp_path), tmp_path / "out", "de", "fr")
    assert len(found) == 4  # two conversations in two languages; text in images is left out
    assert found[0].turns == (
        Turn("user", "<image>\nIs this (en-de)\n\na cat? (en-de)", "de"),
        Turn("assistant", "No. (en-de)", "de"),
        Turn("user", "犬？", "ja"),
        Turn("assistant", "Yes. (en-de)<image>", "de"),
    )
    assert [one.turns[0].language for one in found] == ["de", "fr", "de", "fr"]
    assert {(one.translated, one.keywords) for one in found} == {(True, ())}
    assert [len(one.images) for one in found] == [2, 2, 0, 0]
    assert len(run(dialogues(tmp_path), tmp_path / "ocr", "de", text_in_images=True)) == 3


def test_text_in_images_alone_is_refused(tmp_path: Path) -> None:
    source = dialogues(tmp_path)
    assert isinstance(source, SampleList)
    with pytest.raises(DataError) as caught:
        run(SampleList(source.samples[2:]), tmp_path / "out", "de")
    assert str(caught.value) == (
        "all 1 samples are about text in images, which a translation does not change; give --text-in-images to "
        "translate them all the same"
    )


def test_each_sample_is_in_one_language_in_the_shares_of_a_table(tmp_path: Path) -> None:
    rows = [{"context": f"q{n}", "label": f"a{n}", "lang": "en"} for n in range(100)]
    source = table(tmp_path, rows)
    found = run(source, tmp_path / "mc4", "en", "de", "ru", "es", spread="mc4")
    counts = Counter(one.turns[1].language for one in found)
    total = 43.84 + 11.31 + 6.594 + 6.089
    for language, share in (("en", 43.84), ("ru", 11.31), ("es", 6.594), ("de", 6.089)):
        assert abs(counts[language] - 100 * share / total) < 1
    assert {one.translated for one in found if one.turns[1].language == "en"} == {False}
    assert {one.turns[1].text.split(" ")[0] for one in found} == {f"a{n}" for n in range(100)}
    again = run(source, tmp_path / "again", "en", "de", "ru", "es", spread="mc4")
    assert [one.turns for one in again] == [one.turns for one in found]
    even = run(source, tmp_path / "even", "de", "sw", spread="uniform", seed=3)
    assert Counter(one.turns[1].language for one in even) == {"de": 50, "sw": 50}


def test_what_cannot_be_translated_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "caption_en": text} for n, text in enumerate(("a dog", "a cat", "a bee"))]
    source = table(tmp_path, rows)
    done = translate(
        source, tmp_path / "out", TranslationOptions(("de",)), translator=none_of_cats, identity="x", quiet=True
    )
    assert (done.shards.samples, done.texts) == (2, 3)
    assert done.shards.bad == {"1.png (de)": "no translation into de of 'a cat'"}


def test_a_stopped_call_goes_on_and_translates_nothing_twice(tmp_path: Path) -> None:
    source, asked = captions(tmp_path), list[str]()

    def until_third(texts: Sequence[str], source: str, target: str) -> list[str | None]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.extend(texts)
        return shouted(texts, source, target)

    with pytest.raises(KeyboardInterrupt, match=r"stopped; 3 of 12 texts are translated: run the same command again"):
        run(source, tmp_path / "out", "de", "sw", translator=until_third, batch_size=1)
    (memo,) = (tmp_path / ".out.translations").glob("*.jsonl")
    with memo.open("a", encoding="utf-8") as stream:
        stream.write('["de", "half')  # a kill in the middle of a line
    assert not (tmp_path / "out").exists()

    def rest(texts: Sequence[str], source: str, target: str) -> list[str | None]:
        asked.extend(texts)
        return shouted(texts, source, target)

    found = run(source, tmp_path / "out", "de", "sw", translator=rest, batch_size=1)
    assert len(asked) == 12 and Counter(asked) == dict.fromkeys(
        {f"{what} {n}" for what in ("dog", "cat") for n in range(3)}, 2
    )
    assert [one.captions for one in found] == [one.captions for one in run(source, tmp_path / "whole", "de", "sw")]
    assert not (tmp_path / ".out.translations").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"to": ("en", "de")}, "--to names en, the language that is translated from; leave it out, or use --spread"),
        ({"to": ("en",), "spread": "uniform"}, "--to names no language to translate into"),
        ({"to": ("de",), "source": "fr"}, "no text in fr to translate; there are: en, ja"),
        ({"to": ("de",), "batch_size": 0}, "--batch-size 0: must be 1 or more"),
        ({"to": ("dee",)}, "no language 'dee'"),
        ({"to": ("ast",), "spread": "mc4"}, "--spread mc4: data.mixing.kind = proportional has no share for ast"),
    ],
)
def test_wrong_options_are_told(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(VlkitError) as caught:
        run(captions(tmp_path), tmp_path / "out", *more.pop("to"), **more)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("translator", "said"),
    [
        (too_few, "the translator gave 0 results for 6 texts; it must give a text, or None, for each"),
        (broken, "the translator fails: RuntimeError: no route"),
    ],
)
def test_a_translator_that_fails_is_told(tmp_path: Path, translator: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        run(captions(tmp_path), tmp_path / "out", "de", translator=translator)
    assert str(caught.value) == said


def test_a_folder_that_holds_something_is_not_replaced_unasked(tmp_path: Path) -> None:
    source = captions(tmp_path)
    run(source, tmp_path / "out", "de")
    with pytest.raises(DataError, match="out: is there already; choose another --out, or replace it with --overwrite"):
        run(source, tmp_path / "out", "fr")


def tiny_nllb(folder: Path) -> Path:
    """A random NLLB-type translator in hub layout."""
    from transformers import M2M100ForConditionalGeneration

    factory.nllb(folder)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_model_in_hub_layout_translates_as_the_library_does(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = tiny_nllb(tmp_path / "nllb")
    translator = HfTranslator(str(folder))
    texts = ["a dog", "cats and dogs", "a " * 200]
    found = translator(texts, "en", "de")
    assert found[2] is None  # longer than the model reads
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang="eng_Latn")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    code = tokenizer.convert_tokens_to_ids("deu_Latn")
    for text, given in zip(texts[:2], found, strict=False):
        read = tokenizer(text, return_tensors="pt")
        ids_BL = model.generate(**read, forced_bos_token_id=code, max_new_tokens=78, num_beams=1, do_sample=False)
        assert ids_BL[0, 1] == code
        wanted = tokenizer.batch_decode(ids_BL, skip_special_tokens=True)[0].strip()
        assert given is not None and (given == wanted or given.startswith(wanted) or wanted.startswith(given))
    with pytest.raises(VlkitError, match="has no language token for 'ga'"):
        translator.check(["de", "ga"])
    assert HfTranslator(str(folder), beams=2).identity != translator.identity == HfTranslator(str(folder)).identity


def test_a_model_that_names_no_languages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="does not translate between languages that are named; take NLLB-200"):
        HfTranslator(str(factory.bert(tmp_path / "bert")))


def test_the_command_line_translates_with_a_model_or_a_function(tmp_path: Path) -> None:
    captions(tmp_path)
    path, here = str(tmp_path / "t.jsonl"), "tests.data.build.test_translate:shouted"
    for model, out in ((here, "a"), (f"hf:{tiny_nllb(tmp_path / 'nllb')}", "b")):
        options = ["--to", "de", "--model", model, "--device", "cpu", "--workers", "0", "--quiet"]
        done = CliRunner().invoke(app, ["data", "translate", path, "--out", str(tmp_path / out), *options])
        assert done.exit_code == 0, done.output
    found = open_path(str(tmp_path / "a"))
    assert found[0].captions == {"de": ("dog 0 (en-de)", "cat 0 (en-de)")} and found[0].translated
    _, known = open_translator(here)
    assert known == open_translator(here)[1] and replace(found[0], images=()).task == ""
    wrong = CliRunner().invoke(
        app, ["data", "translate", path, "--out", str(tmp_path / "c"), "--to", "de", "--model", "absent.module:f"]
    )
    assert wrong.exit_code == 2 and "absent.module:f: No module named 'absent'" in wrong.stderr
