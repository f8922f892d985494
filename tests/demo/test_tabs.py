"""What the tabs answer is what the package answers, for any model that can; errors are plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vlkit
from tests.demo.test_cards import Read
from tests.helpers.painters import painter
from tests.helpers.vision_language import picture, tiny
from vlkit.demo import ask_tab, classify_tab, compare_tab, generate_tab, search_tab
from vlkit.demo.demo_page import TABS, build_page, tabs_for
from vlkit.demo.photos import Photos, list_images
from vlkit.demo.room import Room, ShownModel
from vlkit.demo.visitor_input import Upload
from vlkit.demo.widgets import UNFORESEEN, answers
from vlkit.errors import DataError, VlkitError
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.texts import embed_texts

reports: list[Exception] = []


@pytest.fixture(scope="module")
def encoder() -> ShownModel:
    return ShownModel("encoder", vlkit.load("tiny"))


@pytest.fixture(scope="module")
def writer() -> ShownModel:
    return ShownModel("writer", tiny("linear"))


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    picture(1, 40).save(tmp_path / "0a1b.png")
    return Upload(tmp_path / "0a1b.png", "mine.png")


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[Photos]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        picture(number, 30).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with ExitStack() as stack:
        yield Photos(list_images(folder), stack=stack)


def room_of(*models: ShownModel, photos: Photos | None = None) -> Room:
    reports.clear()
    return Room(models, report=reports.append, photos=photos)


def percents(shown: str) -> list[str]:
    """Labels and shares, in the order shown."""
    return [word for word in Read(shown).text.replace(" %", "\n").split("\n") if word]


def test_classify_says_what_the_classifier_says(encoder: ShownModel, upload: Upload) -> None:
    steps = classify_tab.classified(classify_tab.classifiers())
    typed = "قطة\nكلب\n猫|猫咪"
    for templates in ("", "صورة {}.\n{}"):
        *_, shown = steps(room_of(encoder), upload, typed, "ar", templates)
        names = [("قطة",), ("كلب",), ("猫", "猫咪")]
        frames = templates.split("\n") if templates else None
        classifier = vlkit.ZeroShotClassifier(encoder.model, names, language="ar", templates=frames)
        best = classifier.classify(upload.path)[0]
        said = "".join(f"{one.label}{100 * one.probability:.1f} %" for one in best)
        assert Read(shown).text == f"العربية · Arabic{said}"


def test_labels_that_did_not_change_are_not_encoded_again(
    encoder: ShownModel, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, room = classify_tab.classified(classify_tab.classifiers()), room_of(encoder)
    asked: list[Any] = []
    tokenize = encoder.model.tokenize

    def counted(_: object, texts: Any, **more: Any) -> Any:
        asked.append(texts)
        return tokenize(texts, **more)

    monkeypatch.setattr(type(encoder.model), "tokenize", counted)
    first = list(steps(room, upload, "a\nb", "en", ""))
    count = len(asked)
    assert count and list(steps(room, upload, "a\nb", "en", "")) == first and len(asked) == count
    list(steps(room, upload, "a\nc", "en", ""))
    assert len(asked) > count


def test_several_models_answer_side_by_side(encoder: ShownModel, upload: Upload) -> None:
    other = ShownModel("other", encoder.model)
    *_, shown = classify_tab.classified(classify_tab.classifiers())(room_of(encoder, other), upload, "a\nb", "en", "")
    read = Read(shown)
    assert read.tags.count("section") == 2 and "encoder" in read.text and "other" in read.text


def test_languages_stand_side_by_side_and_are_counted(encoder: ShownModel, upload: Upload) -> None:
    steps = compare_tab.compared(compare_tab.classifiers())
    lines = {"en": ("cat", "dog"), "ar": ("قطة", "كلب"), "zh": ("猫", "狗")}
    *_, shown = steps(room_of(encoder), upload, "\n".join(f"{tag}: {', '.join(names)}" for tag, names in lines.items()))
    text = Read(shown).text
    assert all(text.index(one) < text.index(other) for one, other in lines.values())  # in the order given, not by share
    best = []
    for tag, names in lines.items():
        answer = vlkit.ZeroShotClassifier(encoder.model, names, language=tag).classify(upload.path)[0]
        best.append(names.index(answer.label))
    common = max(best, key=best.count)
    assert f"{best.count(common)} of 3 languages say \u201c{lines['en'][common]}\u201d" in text


def test_who_agrees() -> None:
    sets = compare_tab.read_language_lines("en: cat, dog\nde: Katze, Hund\nsw: paka, mbwa")
    assert compare_tab.agreement([1, 1, 1], sets) == "3 of 3 languages say \u201cdog\u201d"
    assert compare_tab.agreement([1, 0, 0], sets) == "2 of 3 languages say \u201ccat\u201d; English do not"


def test_search_finds_what_is_nearest_and_leaves_out_what_cannot_be_read(encoder: ShownModel, photos: Photos) -> None:
    photos.embed(encoder)
    assert list(photos.unread) == ["broken.png"] and "Truncated" in photos.unread["broken.png"]
    ((shown, found),) = search_tab.found_in(photos)(room_of(encoder, photos=photos), "قارچ", "fa", 3)
    image_NE = embed_images(encoder.model, [sample.image() for sample in photos.samples])
    text_E = embed_texts(encoder.model, ["قارچ"], language="fa")[0]
    best = (image_NE @ text_E).sort(descending=True)
    assert [caption for _, caption in found] == [
        f"{score:.3f}  {row}.png"
        for score, row in zip(best.values[:3].tolist(), best.indices[:3].tolist(), strict=True)
    ]
    assert "4 images; cannot be read: broken.png" in Read(shown).text


def test_embeddings_of_photos_are_kept(encoder: ShownModel, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.embed(encoder)
    with ExitStack() as stack:
        again = Photos(photos.samples, stack=stack)
        monkeypatch.setattr(
            "vlkit.evaluation.embed.image_features.encode_prepared", lambda *_, **__: pytest.fail("encoded again")
        )
        again.embed(encoder)
        assert len(again.search(encoder, "a", language="en", most=9)) == 4


def test_a_folder_without_images_that_can_be_read(encoder: ShownModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images; give a folder of images, or a tar or zip of them"):
        list_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with ExitStack() as stack, pytest.raises(DataError, match="none of 1 images can be read; the first: cannot read"):
        Photos(list_images(tmp_path), stack=stack).embed(encoder)


def test_descriptions_are_those_of_the_model(writer: ShownModel, upload: Upload) -> None:
    *_, shown = ask_tab.captions(room_of(writer), upload, ["sw", "ar"], 4)
    texts = [writer.model.caption(upload.path, language=tag, max_tokens=4) for tag in ("sw", "ar")]
    cards = [
        ask_tab.card(ask_tab.spoken(text), title=title)
        for text, title in zip(texts, ("Kiswahili · Swahili", "العربية · Arabic"), strict=True)
    ]
    expected = "".join(Read(one).text for one in cards)
    assert Read(shown).text == expected


@pytest.mark.parametrize("with_image", [True, False])
def test_answers_grow_to_those_of_the_model(writer: ShownModel, upload: Upload, with_image: bool) -> None:
    images = [upload.open()] if with_image else []
    *before, last = ask_tab.replies(room_of(writer), upload if with_image else None, "这是什么？", "zh", 12)
    told = writer.model.ask(images, "这是什么？", language="zh", max_tokens=12)
    assert Read(last).text == Read(ask_tab.spoken(told)).text and "vlkit-more" not in last
    assert all("vlkit-more" in shown for shown in before)  # none, where all is written at once


def test_tabs_are_those_of_what_models_can_do(encoder: ShownModel, writer: ShownModel, photos: Photos) -> None:
    def titles(*models: ShownModel, **more: Any) -> list[str]:
        return [tab.title for tab in tabs_for(room_of(*models, **more))]

    assert titles(encoder) == ["Classify", "Compare languages"]
    assert titles(encoder, photos=photos) == ["Classify", "Compare languages", "Search"]
    assert titles(writer) == ["Describe", "Ask"]
    able = ShownModel("painter", painter())
    assert titles(writer, able, encoder, photos=photos) == [tab.title for tab in TABS]
    with pytest.raises(VlkitError, match=r"^nothing can do nothing that the demo shows; it shows models that embed"):
        tabs_for(room_of(encoder, ShownModel("nothing", nn.Linear(1, 1))))


def test_a_page_is_built_for_what_models_can_do(encoder: ShownModel, writer: ShownModel, photos: Photos) -> None:
    page = build_page(room_of(encoder, writer, photos=photos))
    assert page.analytics_enabled is False
    assert all(one["api_visibility"] != "public" for one in page.get_config_file()["dependencies"])


def test_errors_are_one_plain_sentence(upload: Upload, encoder: ShownModel) -> None:
    steps = classify_tab.classified(classify_tab.classifiers())
    handler = partial(answers(steps, room_of(encoder)), upload)
    cases = {
        ("", "en"): "no labels; ",
        ("a\na", "en"): "label &#x27;a&#x27; is given twice",
        ("a", "Frensh"): "no language",
    }
    for given, message in cases.items():
        (shown,) = handler(*given, "")
        assert message in shown and 'role="alert"' in shown and not reports
    (shown,) = answers(steps, room_of(encoder))(None, "a", "en", "")
    assert "no image; drop one into the field" in shown


def test_what_nobody_foresaw_is_reported_and_not_shown(encoder: ShownModel) -> None:
    def steps(room: Room) -> Iterator[str]:
        yield "before"
        raise RuntimeError("secret /home/me")

    room = room_of(encoder)
    shown = list(answers(steps, room, others=[[]])())
    assert shown[0] == "before" and UNFORESEEN in shown[1][0] and "secret" not in str(shown) and shown[1][1] == []
    assert [str(error) for error in reports] == ["secret /home/me"]
    assert torch.is_grad_enabled() and not room.turn.locked()


def test_images_are_those_of_the_model_a_row_a_prompt() -> None:
    shown = ShownModel("painter", painter(sampling={"steps": 3}))
    (given,) = answers(generate_tab.images, room_of(shown), others=[[]])(" قارچ \nred\n\n", "fa", 2, 7)
    told, gallery = given
    made = shown.model.generate(["قارچ", "red"], language="fa", seed=7, num_images=2)
    assert "seeds 7 to 8" in told and [name for _, name in gallery] == ["قارچ  7", "قارچ  8", "red  7", "red  8"]
    assert [image.tobytes() for image, _ in gallery] == [image.tobytes() for image in made]
    assert [tab.title for tab in tabs_for(room_of(shown))] == ["Generate"]
    build_page(room_of(shown))


@pytest.mark.parametrize(
    ("typed", "message"),
    [(" \n ", "no prompt"), ("a\n" * 9, "9 prompts; the demo takes at most 8"), ("x" * 20_001, "20,001")],
)
def test_prompts_that_are_none_are_told(typed: str, message: str) -> None:
    room = room_of(ShownModel("painter", painter()))
    ((told, gallery),) = answers(generate_tab.images, room, others=[[]])(typed, "", 1, 0)
    assert message in told and gallery == [] and not reports
