"""Whole models of transformers: answers are those of the library one by one, likelihoods those of one forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.evaluation.tasks.test_captioning import table
from tests.helpers import whole_models
from tests.helpers.image_text_models import FAMILIES
from tests.helpers.vision_language import picture
from vlkit.errors import AssetError, VlkitError
from vlkit.evaluation.run import evaluate
from vlkit.models.image_text_to_text.build import load_whole
from vlkit.models.image_text_to_text.model import ImageTextToText
from vlkit.parts.hf_common import quiet
from vlkit.parts.hf_image_text import answers_about_images
from vlkit.spec.dataset import DataSpec
from vlkit.spec.evaluation import SuiteSpec
from vlkit.spec.language import GenerationSpec
from vlkit.types import AnsweringModel, AnswersQuestions, Question

PICTURES = [picture(number, 20 + 8 * number) for number in range(3)]
QUESTIONS = [
    Question("What is this?", (PICTURES[0],)),
    Question("Was zeigt das Bild hier, und wo ist es?", (PICTURES[1],)),
    Question("?", (PICTURES[2],)),
    Question("There is no image"),
    Question("这是什么？", (PICTURES[1],)),
]


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ImageTextToText, Path]:
    """A model of transformers, the same as vlkit loads it, and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    model = FAMILIES[request.param](folder)
    return model, vlkit.load(f"hf:{folder}", expect=ImageTextToText), folder


def alone(processor: Any, question: Question) -> Any:
    """A single question as the library's own users give it to the model."""
    if processor.chat_template:
        content = [{"type": "image", "image": one} for one in question.images] + [
            {"type": "text", "text": question.text}
        ]
        turns = [{"role": "user", "content": content}]
        return processor.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
    if not question.images:
        return processor.tokenizer(question.text, return_tensors="pt")
    return processor(text="<image>" * len(question.images) + question.text, images=list(question.images),
                     return_tensors="pt")  # fmt: skip


def generated(model: Any, processor: Any, question: Question, **settings: Any) -> str:
    with quiet():
        inputs = alone(processor, question)
        ids = model.generate(**inputs, do_sample=False, **settings)[0, inputs["input_ids"].shape[1] :]
    text: str = processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_the_library_one_by_one(pair: tuple[Any, ImageTextToText, Path], beams: int) -> None:
    model, ours, _ = pair
    assert isinstance(ours, AnswersQuestions) and isinstance(ours, AnsweringModel)
    wanted = [generated(model, ours.whole.processor, one, max_new_tokens=8, num_beams=beams) for one in QUESTIONS]
    assert len(set(wanted)) > 3
    for size in (1, 16) if beams == 1 else (16,):
        found = ours.answer(
            QUESTIONS, generation=GenerationSpec(max_tokens=8, beams=beams, min_tokens=0), batch_size=size
        )
        assert found == wanted
    kept = dict(enumerate(ours.image_features(PICTURES)))
    again = [Question(one.text, tuple(kept[PICTURES.index(image)] for image in one.images)) for one in QUESTIONS]
    assert ours.answer(again, generation=GenerationSpec(max_tokens=8, beams=beams, min_tokens=0)) == wanted


def test_likelihoods_are_those_of_one_forward_pass(pair: tuple[Any, ImageTextToText, Path]) -> None:
    model, ours, _ = pair
    texts = ["ja", "nein, gar nicht", "", "x", "yes"]
    found_N2 = ours.log_likelihoods(QUESTIONS, texts)
    torch.testing.assert_close(ours.log_likelihoods(QUESTIONS, texts, batch_size=1), found_N2)
    if model.config.model_type == "paligemma":  # tokens to come are not seen while it reads; see the test above
        return
    for question, text, (value, count) in zip(QUESTIONS, texts, found_N2.tolist(), strict=True):
        inputs = dict(alone(ours.whole.processor, question))
        ids = [*ours.whole.tokenizer(f" {text}", add_special_tokens=False)["input_ids"], *ours.whole.end_ids]
        read = inputs["input_ids"].shape[1]
        for name, value_BL in inputs.items():
            if value_BL.shape == (1, read) and name != "input_ids":
                fill = 1 if name == "attention_mask" else 0
                inputs[name] = torch.nn.functional.pad(value_BL, (0, len(ids)), value=fill)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        with torch.no_grad():
            told_LV = model(**inputs).logits[0].float().log_softmax(-1)
        wanted = sum(told_LV[read - 1 + place, token].item() for place, token in enumerate(ids))
        assert value == pytest.approx(wanted, abs=2e-3) and count == len(ids)


def test_an_answer_that_is_written_freely_is_as_likely_as_the_library_says(
    pair: tuple[Any, ImageTextToText, Path],
) -> None:
    model, ours, _ = pair
    question, whole = QUESTIONS[1], ours.whole
    (laid,) = ours._laid([question])
    inputs = alone(whole.processor, question)
    with quiet():
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=4, output_scores=True, return_dict_in_generate=True
        )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    told = sum(scores[0].log_softmax(-1)[token].item() for scores, token in zip(out.scores, ids, strict=True))
    assert whole.end_ids == (whole.tokenizer.eos_token_id,) and whole.end_ids[0] not in ids
    whole._answer_ids = lambda row, answer: ids  # type: ignore[method-assign]
    try:
        weighed = whole.weigh([laid], [""])
    finally:
        del whole._answer_ids
    with quiet():
        longer = model.generate(**inputs, do_sample=False, max_new_tokens=5, output_scores=True,
                                return_dict_in_generate=True)  # fmt: skip
    end = longer.scores[4][0].log_softmax(-1)[whole.end_ids[0]].item()
    assert weighed[0].tolist() == pytest.approx([told + end, 5.0], abs=1e-4)


def test_prefixes_stops_images_in_place_and_what_is_drawn(pair: tuple[Any, ImageTextToText, Path]) -> None:
    _, ours, _ = pair
    (plain,) = ours.answer(QUESTIONS[:1], generation=GenerationSpec(max_tokens=8))
    begun = ours.ask(PICTURES[0], "What is this?", prefix="Es ist", max_tokens=8)
    assert begun.startswith("Es ist") and begun != "Es ist"
    assert ours.ask(PICTURES[0], "What is this?", max_tokens=8) == plain
    heard: list[str] = []
    assert ours.ask(PICTURES[0], "What is this?", stream=heard.append, max_tokens=8) == plain and heard == [plain]
    stop = plain[2]
    assert ours.ask(PICTURES[0], "What is this?", max_tokens=8, stop=(stop,)) == plain[: plain.index(stop)].strip()
    one, other = (ours.ask(PICTURES[0], "What?", max_tokens=8, temperature=5.0, seed=seed) for seed in (1, 2))
    assert one != other and one == ours.ask(PICTURES[0], "What?", max_tokens=8, temperature=5.0, seed=1)
    first, last, plainest = (ours._laid([Question(text, (PICTURES[0],))])[0].text
                             for text in ("<image>What?", "What?<image>", "What?"))  # fmt: skip
    assert first == plainest != last and first.count("What?") == last.count("What?") == 1
    assert len(ours.caption([PICTURES[0], PICTURES[1]], language="de", max_tokens=4)) == 2


def test_it_is_saved_loaded_and_evaluated(pair: tuple[Any, ImageTextToText, Path], tmp_path: Path) -> None:
    _, ours, _ = pair
    vlkit.save(ours, tmp_path / "saved")
    again: Any = vlkit.load(tmp_path / "saved")
    settings = GenerationSpec(max_tokens=6)
    assert again.answer(QUESTIONS, generation=settings) == ours.answer(QUESTIONS, generation=settings)
    source = table(tmp_path)
    tasks = [
        {"kind": "captioning", "name": "say", "source": source, "generation": {"max_tokens": 4}, "limit": 2},
        {"kind": "presence", "name": "there", "source": source, "generation": {"max_tokens": 2}, "limit": 2},
        {"kind": "choices", "name": "pick", "source": source, "options": 2, "limit": 5},
    ]
    results = evaluate(ours, SuiteSpec.model_validate({"tasks": tasks, "languages": ["de"]}), quiet=True)
    assert [row.task for row in results.rows] == ["say", "there", "pick"]
    assert all(0 <= row[row.measures.headline] <= 1 for row in results.rows)


@pytest.mark.parametrize("architecture", ["mt5", "opt"])
def test_processors_that_place_images_themselves_and_encoder_decoders(architecture: str, tmp_path: Path) -> None:
    model = whole_models.blip2(tmp_path, architecture)
    images = vlkit.load(str(tmp_path))  # its parts are vlkit's own
    assert not isinstance(images, ImageTextToText)
    import transformers

    processor = transformers.Blip2Processor(
        transformers.AutoImageProcessor.from_pretrained(tmp_path),
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        num_query_tokens=whole_models.QUERIES,
    )
    processor.save_pretrained(tmp_path)
    ours = load_whole(str(tmp_path)).eval()
    asked = [one for one in QUESTIONS if one.images]
    found = ours.answer(asked, generation=GenerationSpec(max_tokens=6, min_tokens=0))
    for question, said in zip(asked, found, strict=True):
        with quiet():
            inputs = ours.whole.processor(text=[question.text], images=list(question.images), return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        skip = 0 if architecture == "mt5" else inputs["input_ids"].shape[1]
        text = ours.whole.tokenizer.decode(ids[0, skip:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert said == text.strip()


def test_what_cannot_be_done_is_told(tmp_path: Path) -> None:
    FAMILIES["idefics3"](tmp_path)
    model: Any = vlkit.load(str(tmp_path))
    cases: list[tuple[Any, str]] = [
        (lambda: model.answer([Question(" ")]), "question 1 is empty; write what you want to know, or call caption"),
        (
            lambda: model.answer([Question("<image> and <image>", (PICTURES[0],))]),
            "question 1 has 2 places for images (<image>) and 1 images; give as many",
        ),
        (
            lambda: model.ask(None, "What?", language_token="<2{language}>"),
            "generation.language_token = '<2{language}>': a whole model of transformers is told the language by its "
            "question alone; set it to null",
        ),
        (
            lambda: model.ask(None, "What?", beams=2, temperature=1.0),
            "generation.beams = 2 follows the likeliest answers and generation.temperature = 1 draws one; set beams to "
            "1 or temperature to 0",
        ),
        (
            lambda: model.log_likelihoods(QUESTIONS, ["a"]),
            "there are 5 questions and 1 answers; give one for each",
        ),
        (
            lambda: model.preparer(DataSpec.model_construct()),
            f"{tmp_path} is a whole model of transformers, which vlkit asks and evaluates but does not train; train "
            f"one of its parts: model: {{kind: vision_language, encoder: ..., bridge: ..., language_model: ...}}",
        ),
    ]
    for call, message in cases:
        with pytest.raises(VlkitError) as caught:
            call()
        assert str(caught.value) == message
    settings = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert answers_about_images(settings) and not answers_about_images({**settings, "architectures": ["X"]})
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(AssetError, match="cannot read the processor in"):
        vlkit.load(str(tmp_path))
