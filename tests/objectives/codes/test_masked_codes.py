"""The loss of hidden codes: what it is, what it learns from, and that pieces and runs agree."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.helpers.painters import BODIES, enliven, painter
from tests.helpers.train_factory import drawings, figures
from vlkit.errors import DataError, VlkitError
from vlkit.models.registry import build
from vlkit.models.text_to_image.batch import CodeBatch
from vlkit.models.trainable import set_trainable, snapshot
from vlkit.models.weights import read_weights
from vlkit.nn.code_masks import masked_codes
from vlkit.objectives.codes.masked_codes import MaskedCodes, mean_share, without_prompt
from vlkit.objectives.context import Context
from vlkit.spec.adapt import LoRA
from vlkit.spec.dataset import DataSpec
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.load import load_recipe
from vlkit.spec.model import ImageTokenizerModelSpec
from vlkit.spec.objectives import MaskedCodesObjective
from vlkit.training.loop import train
from vlkit.types import Batch, Pick, Sample

DATA = {"sources": [{"kind": "built", "name": "openmoji"}]}
TEXTS = ({"en": ("a red fox",), "fa": ("روباه",)}, {"en": ("sun",)}, {"de": ("Mond",), "zh": ("月亮",)}, {"en": ("x",)})


def batch_of(model: Any, count: int = 4, *, seed: int = 0, **data: Any) -> CodeBatch:
    preparer = model.preparer(DataSpec(**DATA, **data))
    rows = []
    for number in range(count):
        captions = TEXTS[number % len(TEXTS)]
        image = Image.effect_noise((16, 16), 60 + number).convert("RGB")
        sample = Sample(str(number), (lambda image=image: image,), captions, source="toy")
        rows.append(preparer.row(sample, Pick(number, next(iter(captions)), 0, 100 * seed + number)))
    batch: CodeBatch = preparer.collate(rows)
    return batch


def objective(**fields: Any) -> MaskedCodes:
    return MaskedCodes(MaskedCodesObjective(**{"prompt_dropout": 0.0, **fields}))


def hidden(model: Any, batch: CodeBatch) -> tuple[torch.Tensor, torch.Tensor]:
    codes = model.codes_of(batch.pixels_BCHW)
    return codes, masked_codes(batch.draws.masks, schedule="cosine", power=2.0, least_share=0.0)


def test_it_is_the_cross_entropy_of_hidden_codes_alone() -> None:
    model = painter()
    batch = batch_of(model)
    codes, masked = hidden(model, batch)
    with torch.no_grad():
        logits = model.logits(model(batch.prompts, codes.masked_fill(masked, model.codebook_size)))
        expected = functional.cross_entropy(logits[masked], codes[masked], reduction="none")
        each = objective()(model, batch)
        images = objective(counts="images")(model, batch)
        sliced = objective(slice_size=3)(model, batch)
    torch.testing.assert_close(each.parts["codes"], expected.mean())
    torch.testing.assert_close(each.total, expected.sum() / (4 * 16 * 2 / math.pi), rtol=1e-4, atol=0)
    by_image = [expected[torch.nonzero(masked)[:, 0] == row].mean() for row in range(4)]
    torch.testing.assert_close(images.total, torch.stack(by_image).mean())
    torch.testing.assert_close(sliced.total, each.total)
    right = (logits[masked].argmax(dim=1) == codes[masked]).float()
    torch.testing.assert_close(each.parts["accuracy"], right.mean())


def test_a_new_model_loses_the_logarithm_of_the_codebook() -> None:
    model = painter(lively=False)
    loss = objective()(model, batch_of(model))
    assert math.isclose(float(loss.parts["codes"]), math.log(45), rel_tol=1e-6)


@pytest.mark.parametrize(("schedule", "power", "least", "mean"), [
    ("cosine", 2.0, 0.0, 2 / math.pi), ("linear", 2.0, 0.0, 0.5), ("linear", 2.0, 0.5, 0.625), ("pow", 2.0, 0.0, 2 / 3),
])  # fmt: skip
def test_the_mean_share_is_that_of_the_schedule(schedule: str, power: float, least: float, mean: float) -> None:
    assert math.isclose(mean_share(schedule, power, least), mean, abs_tol=1e-4)


def test_masks_of_rows_have_the_schedules_mean_and_hang_on_the_seed_alone() -> None:
    model = painter()
    batch = batch_of(model, 400, seed=3)
    _, masked = hidden(model, batch)
    assert abs(float(masked.float().mean()) - 2 / math.pi) < 0.04
    assert int(masked.sum(dim=1).min()) >= 1
    again = batch_of(model, 3, seed=3)
    assert torch.equal(again.draws.masks.order_BN, batch.draws.masks.order_BN[:3])


def test_known_places_get_no_gradient() -> None:
    model = painter()
    batch = batch_of(model, 1)
    _, masked = hidden(model, batch)
    seen: list[torch.Tensor] = []
    forward = model.forward
    model.forward = lambda *inputs: seen.append(forward(*inputs)) or seen[-1].retain_grad() or seen[-1]
    objective()(model, batch).total.backward()
    by_place = seen[0].grad.abs().sum(dim=-1)[0]  # type: ignore[union-attr]
    assert bool((by_place[masked[0]] > 0).all()) and not bool(by_place[~masked[0]].any())


@pytest.mark.parametrize("fields", [{}, {"counts": "images"}, {"consistency": 0.5, "prompt_dropout": 0.5}])
def test_pieces_give_the_loss_and_gradient_of_the_batch(fields: dict[str, Any]) -> None:
    model = painter("adapted")
    batch, goal = batch_of(model, 5), objective(**fields)
    model.zero_grad()
    whole = goal(model, batch).total
    whole.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total = torch.zeros(())
    for piece in goal.pieces(batch, 2):
        loss = goal(model, piece.batch).total * piece.weight
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(total, whole.detach())
    for name, p in model.named_parameters():
        if name in wanted:
            torch.testing.assert_close(p.grad, wanted[name], atol=1e-5, rtol=1e-4)


def test_prompts_are_left_out_where_the_draw_says_so() -> None:
    model = painter()
    batch = batch_of(model)
    bare = without_prompt(model, batch.prompts, torch.tensor([True, False, True, False]))
    null = list(model.layout.null)
    assert bare.ids_BL[0][bare.mask_BL[0].bool()].tolist() == null
    assert torch.equal(bare.ids_BL[1], batch.prompts.ids_BL[1])
    assert int(batch.prompts.mask_BL[0].sum()) > len(null)  # what was given is not changed


def test_languages_that_say_the_same_are_no_distance_apart() -> None:
    model = painter()
    batch = batch_of(model)
    same = replace(batch, others=batch.prompts)
    apart, equal = (objective(consistency=1.0)(model, one).parts["consistency"] for one in (batch, same))
    assert float(equal.abs()) < 1e-6 < float(apart)


def test_another_caption_is_taken_where_there_is_one() -> None:
    model = painter()
    layout, batch = model.layout, batch_of(model)
    texts = [layout.tokenizer.decode(ids[mask.bool()][1:-1]) for ids, mask in zip(*batch.others, strict=True)]
    assert texts == ["روباه", "sun", "月亮", "x"]
    narrow = batch_of(model, languages=("en", "de"))
    assert layout.tokenizer.decode(narrow.others.ids_BL[0][narrow.others.mask_BL[0].bool()][1:-1]) == "a red fox"


def test_a_caption_without_words_is_no_sample_to_learn_from() -> None:
    preparer = painter().preparer(DataSpec(**DATA))
    sample = Sample("7", (lambda: Image.new("RGB", (16, 16)),), {"en": (" ",)}, source="toy")
    with pytest.raises(DataError, match="a prompt is empty"):
        preparer.row(sample, Pick(0, "en", 0, 1))


def test_a_batch_is_cut_and_moved_with_all_that_it_holds() -> None:
    model = painter()
    batch = batch_of(model, 4)
    assert isinstance(batch, Batch) and len(batch) == 4
    part = batch.rows(torch.tensor([2, 0])).to(torch.device("cpu"))
    assert part.languages == ("de", "en") and part.sources == ("toy", "toy")
    assert torch.equal(part.prompts.ids_BL[1], batch.prompts.ids_BL[0])
    assert torch.equal(part.draws.masks.order_BN[0], batch.draws.masks.order_BN[2])


def test_prompts_that_are_cut_too_often_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    model = painter(prompt={"max_length": 4})
    goal, batch = objective(), batch_of(model, 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(250):
            goal._tell_of_cut(batch)
    assert [row.getMessage()[:34] for row in caplog.records if "in en" in row.getMessage()] == [
        "67 % of the prompts in en are longe"[:34]
    ]


def test_another_kind_of_model_is_refused() -> None:
    model = build(ImageTokenizerModelSpec(tokenizer=ConvTokenizerSpec(image_size=16, widths=(8,), levels=(5, 3))))
    with pytest.raises(
        VlkitError, match="needs a model of kind text_to_image, and this one is of kind image_tokenizer"
    ):
        MaskedCodes.build(MaskedCodesObjective(), model, Context())


@pytest.mark.parametrize(("body", "trained"), [
    ("tower", ("head", "body")), ("own_layers", ("head", "body")), ("frozen", ("head", "language_model_adapter")),
    ("adapted", ("head", "language_model")),
])  # fmt: skip
def test_what_is_to_train_trains_and_nothing_else(body: str, trained: tuple[str, ...]) -> None:
    adapters = {"language_model": LoRA(rank=2, targets="all")} if body == "frozen" else {}
    model = painter(body, adapters=adapters)
    enliven(model)
    set_trainable(model, trained)
    model.train()
    before = snapshot(model).parameters
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    objective()(model, batch_of(model)).total.backward()
    optimizer.step()
    moved = {name for name, digest in snapshot(model).parameters.items() if digest != before[name]}
    assert moved and {name.split(".")[0] for name in moved} == {part.removesuffix("_adapter") for part in trained}
    assert all("lora_" in name for name in moved if body == "frozen" and name.startswith("language_model"))
    assert BODIES[body].kind == model.body.spec.kind


def recipe(folder: Path, run: str, *more: str) -> Any:
    table = drawings(folder / "data", 24)
    overrides = [
        f"data.sources=[{{kind: folder, path: {table}}}]", "data.holdout_concepts=0", "stages.0.steps=6",
        "data.languages=null", "loop.batch_size=8", "loop.log_every=1", "loop.checkpoint_every=2",
        f"run.folder={folder / run}",
    ]  # fmt: skip
    return load_recipe("t2i/tiny", [*overrides, *more])


def test_a_stopped_run_goes_on_to_the_bit_and_looked_up_codes_are_the_same(tmp_path: Path) -> None:
    whole = train(recipe(tmp_path, "whole"))
    short = recipe(tmp_path, "short")
    stopped = train(short)
    for path in (stopped.path / "checkpoints").iterdir():
        if path.name != "step-4":
            shutil.rmtree(path)
    shutil.rmtree(stopped.model_path)
    again = train(short, resume=True)
    assert figures(again) == figures(whole)
    first, second = (read_weights(run.model_path) for run in (whole, again))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    read = train(recipe(tmp_path, "read", "loop.cache_features=false"))
    assert [line["loss"] for line in figures(read)] == pytest.approx(
        [line["loss"] for line in figures(whole)], abs=1e-5
    )
