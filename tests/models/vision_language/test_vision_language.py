"""The model: images at their places, nothing of one row in another, padding and packing without effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.vision_language import BRIDGES, dialogues, picture, tiny
from vlkit.adapt.inject import add_lora, merge
from vlkit.errors import DataError, ShapeError, VlkitError
from vlkit.models.folder import load, save
from vlkit.models.trainable import freeze, trainable_report
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.nn.projections import LinearBridge
from vlkit.objectives.tokens.answer_loss import AnswerLoss
from vlkit.spec.adapt import LoRA
from vlkit.spec.language import GenerationSpec
from vlkit.spec.objectives import AnswersObjective
from vlkit.types import AnswersQuestions, Question

SHORT = GenerationSpec(max_tokens=5)
ARCHITECTURES = ("llama", "qwen3", "gemma2", "gemma3", "bloom", "t5", "mt5", "joined")
MIXED = ((1, ("what?", "a cat")), (0, ("and?", "no image at all", "sure?", "yes")), (2, ("which <image> <image>", "b")))


def loss_of(model: VisionLanguageModel, batch) -> torch.Tensor:
    return AnswerLoss(AnswersObjective())(model, batch).total


def left_padded(batch):
    """The same batch with its padding before the text."""
    shifts = (batch.mask_BL == 0).sum(dim=1).tolist()
    rolled = {
        name: torch.stack([row.roll(shift) for row, shift in zip(getattr(batch, name), shifts, strict=True)])
        for name in ("ids_BL", "mask_BL", "slots_BL", *(() if batch.targets else ("labels_BS",)))
    }
    return replace(batch, **rolled)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bridge", BRIDGES)
def test_every_bridge_joins_every_language_model(bridge: str, architecture: str, tmp_path) -> None:
    model = tiny(bridge, architecture)
    batch = dialogues(model, *MIXED)
    model.train()
    loss_of(model, batch).backward()
    assert all(parameter.grad is not None for parameter in model.bridge.parameters())
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())
    model.eval()
    asked = [Question("what is this?", (picture(1),)), Question("and this?", ())]
    answers = model.answer(asked, generation=SHORT)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", expect=VisionLanguageModel)
    assert again.spec == model.spec
    assert torch.equal(again(batch).states_RE, model(batch).states_RE)
    assert again.answer(asked, generation=SHORT) == answers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_do_not_depend_on_each_other_or_on_padding(architecture: str) -> None:
    model = tiny("qformer", architecture)
    whole = dialogues(model, *MIXED)
    said = model(whole)
    logits = model.logits(said.states_RE)
    for number in range(len(whole)):
        one = whole.rows(torch.tensor([number]))
        torch.testing.assert_close(model.logits(model(one).states_RE), logits[said.rows_R == number], atol=1e-5, rtol=0)
    left = model(left_padded(whole))
    torch.testing.assert_close(model.logits(left.states_RE), logits, atol=1e-5, rtol=0)
    assert torch.equal(left.labels_R, said.labels_R)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gemma3"])
def test_packed_equals_unpacked(architecture: str) -> None:
    model = tiny("mlp", architecture)
    batch = dialogues(model, *MIXED, (1, ("x", "long " * 9)))
    plain = loss_of(model, batch)
    freeze(model, "language_model")
    model.pack_length = 60
    model.train()
    packed = loss_of(model, batch)
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=0)


def test_model_tokens_of_images_stand_at_their_places_and_nowhere_else() -> None:
    model = tiny("mlp")
    batch = dialogues(model, *MIXED)
    read_BLE, bare_BLE = model.read(batch), model.language_model.embed(batch.ids_BL)
    places = model.image_tokens
    tokens_NME = model.bridge(model.tokens_of_pixels(batch.pixels_NCHW))
    torch.testing.assert_close(read_BLE[batch.slots_BL].view(-1, places, 32), tokens_NME)
    assert torch.equal(read_BLE[~batch.slots_BL], bare_BLE[~batch.slots_BL])
    assert batch.images_B.tolist() == [1, 0, 2]


def test_what_is_looked_up_equals_what_is_computed() -> None:
    model = tiny("qformer")
    batch = dialogues(model, *MIXED)
    tokens_NKT = torch.stack(model.image_features([picture(number) for number in range(3)]))
    looked_up = replace(batch, pixels_NCHW=None, image_NKT=tokens_NKT)
    torch.testing.assert_close(model(looked_up).states_RE, model(batch).states_RE, atol=1e-6, rtol=0)
    chosen = looked_up.rows(torch.tensor([2, 1]))
    assert chosen.images_B.tolist() == [2, 0]
    assert torch.equal(chosen.image_NKT, tokens_NKT[1:])


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_the_loss_is_the_mean_over_samples_of_the_mean_over_their_tokens(architecture: str) -> None:
    model = tiny("linear", architecture)
    batch = dialogues(model, *MIXED)
    objective = AnswerLoss(AnswersObjective())
    each = [loss_of(model, batch.rows(torch.tensor([number]))) for number in range(len(batch))]
    torch.testing.assert_close(loss_of(model, batch), torch.stack(each).mean())
    pieces = objective.pieces(batch, 2)
    torch.testing.assert_close(
        sum(piece.weight * objective(model, piece.batch).total for piece in pieces), loss_of(model, batch)
    )
    sliced = AnswerLoss(AnswersObjective(slice_size=2))
    model.train()
    first, second = objective(model, batch).total, sliced(model, batch).total
    torch.testing.assert_close(first, second)
    grads = [torch.autograd.grad(total, list(model.bridge.parameters())) for total in (first, second)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_a_decoder_only_loss_equals_the_librarys_own() -> None:
    model = tiny("linear")
    batch = dialogues(model, (0, ("why?", "because")))
    ours = loss_of(model, batch)
    labels = torch.full_like(batch.ids_BL, -100)
    labels[:, 1:] = batch.labels_BS[:, :-1]
    theirs = model.language_model.model(input_ids=batch.ids_BL, attention_mask=batch.mask_BL, labels=labels).loss
    torch.testing.assert_close(ours, theirs)


def test_frozen_parts_build_no_graph() -> None:
    model = tiny("qformer")
    freeze(model, "encoder", "language_model")
    model.train()
    assert not model.encoder.training
    assert not model.tokens_of_pixels(dialogues(model, MIXED[0]).pixels_NCHW).requires_grad
    loss_of(model, dialogues(model, *MIXED)).backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.language_model.parameters())
    assert all(parameter.grad is not None for parameter in model.bridge.parameters())


def test_lora_at_its_start_is_the_base_and_merged_is_the_adapter(tmp_path) -> None:
    model = tiny("linear")
    batch = dialogues(model, *MIXED)
    base = model.logits(model(batch).states_RE)
    add_lora(model.language_model, LoRA(rank=2, targets="all"))
    assert torch.equal(model.logits(model(batch).states_RE), base)
    rows = {row.part: row.trainable for row in trainable_report(model).rows}
    assert rows["language_model"] == 0
    assert rows["language_model_adapter"] > 0
    for name, parameter in model.language_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = model.logits(model(batch).states_RE)
    assert not torch.allclose(adapted, base, atol=1e-3)
    save(model, tmp_path / "adapted")
    torch.testing.assert_close(
        (again := load(tmp_path / "adapted")).logits(again(batch).states_RE), adapted, atol=1e-5, rtol=0
    )
    merge(model)
    torch.testing.assert_close(model.logits(model(batch).states_RE), adapted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_likelihoods_are_those_of_the_tokens_one_by_one(architecture: str) -> None:
    model = tiny("linear", architecture)
    questions = [Question("what?", (picture(1),)), Question("what else?", ())]
    found = model.log_likelihoods(questions, ["a cat", "dog"])
    alone = torch.cat(
        [model.log_likelihoods([one], [text]) for one, text in zip(questions, ["a cat", "dog"], strict=True)]
    )
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)
    assert found[:, 1].tolist() == [6, 4]  # bytes, and the end
    assert (found[:, 0] < 0).all()


def test_answers_do_not_depend_on_their_company() -> None:
    model = tiny("qformer")
    questions = [Question("q" * (3 * number + 1), (picture(number),) * (number % 3)) for number in range(7)]
    together = model.answer(questions, generation=SHORT, batch_size=3)
    assert together == [model.answer([one], generation=SHORT)[0] for one in questions]
    assert isinstance(model, AnswersQuestions)


def test_captions_and_questions_in_plain_words() -> None:
    model = tiny("linear")
    assert isinstance(model.caption(picture(1), language="sw", max_tokens=4), str)
    assert len(model.caption([picture(1), picture(2)], language="de", max_tokens=4)) == 2
    assert isinstance(model.ask(picture(1), "这是什么？", language="zh", max_tokens=4), str)
    assert model.ask(None, "why?", prefix="so ", max_tokens=3).startswith("so")


def test_bad_questions_are_told() -> None:
    model = tiny("linear")
    with pytest.raises(VlkitError, match=r"^question 2 is empty; write what you want to know, or call caption$"):
        model.answer([Question("a"), Question("  ")])
    with pytest.raises(DataError, match=r"^question 1: its text has 2 places for images \(<image>\) and it has 1"):
        model.answer([Question("<image><image>", (picture(1),))])
    with pytest.raises(DataError, match=r"^question 1: its question takes \d+ tokens, .* the context has 256 "):
        model.answer([Question("long " * 90)])
    with pytest.raises(VlkitError, match=r"^generation: max_tokens = 0: .*; there are: max_tokens, min_tokens, beams"):
        model.ask(None, "a", max_tokens=0)
    with pytest.raises(DataError, match=r"nowhere\.png"):
        model.caption("nowhere.png", language="en")
    with pytest.raises(VlkitError, match=r"^stream shows one answer"):
        model.answer([Question("a"), Question("b")], stream=print)


def test_parts_that_do_not_fit_are_told() -> None:
    model = tiny("linear")
    with pytest.raises(ShapeError, match=r"^the bridge takes tokens 8 wide, the image encoder gives 16; build it"):
        VisionLanguageModel(model.encoder, LinearBridge(8, 32, bias=True), model.language_model)
    with pytest.raises(ShapeError, match=r"^the bridge gives tokens 8 wide, the language model reads 32; build"):
        VisionLanguageModel(model.encoder, LinearBridge(16, 8, bias=True), model.language_model)
    with pytest.raises(VlkitError, match=r"^bridge Linear lacks in_width, out_width, num_tokens; see vlkit.types."):
        VisionLanguageModel(model.encoder, torch.nn.Linear(2, 2), model.language_model)
    with pytest.raises(VlkitError, match=r"^model.pack_length: an encoder-decoder reads one sample a row"):
        tiny("linear", "t5", pack_length=64)
    batch = dialogues(model, (1, ("a", "b")))
    with pytest.raises(ShapeError, match=r"^2 images give 4 model tokens each, and the batch has 4 places"):
        model(replace(batch, pixels_NCHW=batch.pixels_NCHW.repeat(2, 1, 1, 1)))
