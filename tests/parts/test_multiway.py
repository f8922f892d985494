"""Laws of the multiway encoder: what its two sides share, what they do not, and how large the known shapes are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.encoder_factory import fast_tokenizer
from vlkit.errors import AssetError, ShapeError, VlkitError
from vlkit.models.digest import part_digest
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.models.registry import build, build_meta
from vlkit.models.trainable import check_moved, freeze, set_trainable, snapshot, trainable_report
from vlkit.parts.encoders import build_text_encoder, text_encoder
from vlkit.spec.load import load_recipe
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import DecoderSpec, LinearHeadSpec, MultiwayImage, MultiwayText, TinyImage, TinyText
from vlkit.types import TextBatch

SHAPE: dict[str, Any] = {"width": 32, "heads": 2, "ffn": 48, "layers": 1, "vl_layers": 2}
IMAGE = MultiwayImage(**SHAPE, image_size=16, patch_size=8)
TEXT = MultiwayText(**SHAPE)


def spec(**more: Any) -> DualEncoderSpec:
    heads = {"image_head": LinearHeadSpec(), "text_head": LinearHeadSpec()}
    return DualEncoderSpec(**{"image": IMAGE, "text": TEXT, "embed_dim": 8, **heads, **more})


def batch(model: DualEncoder, size: int = 4) -> PairBatch:
    texts = ["a red house", "ein Haus", "猫", "x"]
    tokens = model.tokenize([texts[row % 4] + str(row) for row in range(size)])
    names = tuple(map(str, range(size)))
    return PairBatch(torch.randn(size, 3, 16, 16), None, tokens, None, ("en",) * size, names)


def step(model: DualEncoder, of: PairBatch) -> None:
    out = model(of)
    (out.image_BE @ out.text_BE.T).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    model.zero_grad()


def test_the_last_layers_are_one_and_count_once() -> None:
    model = build(spec())
    assert model.text.shared is model.image.shared and model.text.own is not model.image.own
    report = {row.part: row.parameters for row in trainable_report(model).rows}
    shared = sum(parameter.numel() for parameter in model.image.shared.parameters())
    assert report["image"] == sum(parameter.numel() for parameter in model.image.parameters())
    assert report["text"] == sum(parameter.numel() for parameter in model.text.parameters()) - shared
    assert sum(report.values()) == trainable_report(model).parameters == sum(p.numel() for p in model.parameters())


def test_each_modality_goes_through_its_own_layers_and_then_the_shared_ones() -> None:
    model = build(spec()).eval()
    given = batch(model)
    before = model(given)

    def changed(part: torch.nn.Module) -> tuple[bool, bool]:
        kept = [parameter.detach().clone() for parameter in part.parameters()]
        with torch.no_grad():
            for parameter in part.parameters():
                parameter += torch.randn_like(parameter) * 0.1
            after = model(given)
            for parameter, old in zip(part.parameters(), kept, strict=True):
                parameter.copy_(old)
        return tuple(not torch.allclose(a, b) for a, b in zip(before[:2], after[:2], strict=True))  # type: ignore[return-value]

    assert changed(model.image.own) == (True, False)
    assert changed(model.text.own) == (False, True)
    assert changed(model.image.shared) == (True, True)


def test_alone_each_side_has_layers_of_its_own() -> None:
    mixed = build(spec(image=TinyImage(image_size=16)))
    out = mixed(batch(mixed))
    assert out.text_BE.shape == (4, 8) and len(mixed.text.shared.stack.blocks) == 2
    other = build(spec(text=TinyText()))
    assert other(batch(other)).image_BE.shape == (4, 8)


def test_saved_and_loaded_it_is_the_same_and_still_shares(tmp_path: Path) -> None:
    model = build(spec(decoder=DecoderSpec(width=16, heads=2, ffn=16, text_layers=1, image_layers=1, patch_size=8)))
    save(model.eval(), tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.text.shared is again.image.shared and again.spec == model.spec
    given = batch(model)
    for one, other in zip(model(given)[:2], again(given)[:2], strict=True):
        assert torch.equal(one, other)
    step(again, given)
    for side in (again.image, again.text):
        assert not torch.equal(side.shared.norm.weight, model.image.shared.norm.weight)
    count = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "model/model.safetensors").stat().st_size < 4 * count + 20_000
    assert part_digest(load(tmp_path / "model").text) == part_digest(model.text)


def test_a_frozen_image_side_holds_the_shared_layers_still() -> None:
    model = build(spec())
    given = batch(model)
    set_trainable(model, ["text", "text_head"])
    model.train()
    assert not model.image.training and not model.text.shared.training and model.text.own.training
    before, image_BE = snapshot(model), model(given).image_BE
    step(model, given)
    check_moved(before, snapshot(model), ["text", "text_head"])
    model.eval()
    assert torch.equal(model(given).image_BE, image_BE)


def test_a_trained_image_side_moves_the_shared_layers_of_both() -> None:
    model = build(
        spec(image=IMAGE.model_copy(update={"drop_path": 0.0}), text=TEXT.model_copy(update={"drop_path": 0.0}))
    )
    given = batch(model)
    set_trainable(model, ["image", "image_head"])
    before, digest, text_BE = snapshot(model), part_digest(model.text), model(given).text_BE
    step(model, given)
    check_moved(before, snapshot(model), ["image", "image_head"])
    assert not torch.equal(model(given).text_BE, text_BE)
    assert part_digest(model.text) != digest, "cached features of a text side that moved would be wrong"
    freeze(model, "image", "text")
    assert not any(parameter.requires_grad for parameter in model.text.parameters())


@pytest.mark.parametrize("key", ["width", "heads", "ffn", "layers", "vl_layers", "drop_path"])
def test_two_sides_that_do_not_agree_are_refused(key: str) -> None:
    other = {"width": 64, "heads": 4, "ffn": 32, "layers": 2, "vl_layers": 1, "drop_path": 0.2}[key]
    with pytest.raises(ShapeError, match=f"model.image.{key} = .* and model.text.{key} = {other}"):
        build_meta(spec(text=TEXT.model_copy(update={key: other})))


# facts of the release: hidden width, ffn, modality layers; and this package's count of all that embedding runs
_SIZES = {
    "m2_encoder": (768, 9, 238_301_184),
    "m2_encoder_1b": (1024, 21, 686_350_336),
    "m2_encoder_10b": (4096, 21, 9_540_173_824),
}


@pytest.mark.parametrize("name", _SIZES)
def test_known_shapes_have_the_sizes_that_their_formula_gives(name: str) -> None:
    width, own, counted = _SIZES[name]
    recipe = load_recipe(f"contrastive/{name}")
    assert isinstance(recipe.model, DualEncoderSpec) and isinstance(recipe.model.image, MultiwayImage)
    model = build_meta(recipe.model)

    def size(model: DualEncoder) -> int:
        return sum(parameter.numel() for parameter in {*model.image.parameters(), *model.text.parameters()})

    matrices = (2 * own + 3) * 12 * width**2 + 115_244 * width  # experts in use, token embedding
    assert size(model) == counted and counted == pytest.approx(matrices, rel=0.01)
    full = recipe.model.image.model_copy(update={"vl_experts": 2})
    both = size(build_meta(recipe.model.model_copy(update={"image": full})))
    assert both == pytest.approx(2 * (own + 3) * 12 * width**2 + 115_244 * width, rel=0.01)
    if name == "m2_encoder_10b":
        assert round(both / 1e9, 1) == 10.1
    assert model.image.positions_ND.shape == (196 + 1 + 2, width)


def test_tokenization_of_bytes() -> None:
    encoder: Any = build_text_encoder(TEXT.model_copy(update={"max_length": 6}))
    tokens = encoder.tokenize(["Ab", "“XYZ”abc"])
    assert tokens.ids_BL.tolist() == [[256, 97, 98, 257, 258, 258], [256, 34, 120, 121, 122, 257]]
    plain: Any = build_text_encoder(TEXT.model_copy(update={"normalize": False}))
    assert plain.tokenize(["Ab"]).ids_BL.tolist() == [[256, 65, 98, 257]]


def test_a_tokenizer_of_its_own_is_saved_with_the_model(tmp_path: Path) -> None:
    fast_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    named = TEXT.model_copy(update={"tokenizer": str(tmp_path / "tokenizer"), "vocab": 300})
    model = build(spec(text=named)).eval()
    tokens = model.tokenize(["A Cat", "ein Hund"])
    assert model.tokenize(["a cat"]).ids_BL.tolist()[0] == tokens.ids_BL[0][tokens.mask_BL[0] > 0].tolist()
    save(model, tmp_path / "model")
    (tmp_path / "tokenizer").rename(tmp_path / "gone")
    again = load(tmp_path / "model")
    for one, other in zip(tokens, again.tokenize(["A Cat", "ein Hund"]), strict=True):
        assert torch.equal(one, other)
    assert again.text.vocabulary().special_V[tokens.ids_BL[0, 0]]
    with pytest.raises(VlkitError, match=r"has \d+ tokens and model.text.vocab = 259; set vocab="):
        build_text_encoder(named.model_copy(update={"tokenizer": str(tmp_path / "gone"), "vocab": 259}))
    with pytest.raises(AssetError, match=r"no tokenizer 'org/none'.*HF_HUB_OFFLINE=1 is set"):
        build_text_encoder(named.model_copy(update={"tokenizer": "org/none"}))


def test_shapes_alone_cannot_read_and_kinds_without_names_say_so() -> None:
    model = build_meta(spec(text=TEXT.model_copy(update={"tokenizer": "org/none"})))
    with pytest.raises(VlkitError, match="holds shapes alone"):
        model.tokenize(["a"])
    with pytest.raises(VlkitError, match="a multiway encoder has no weights to name"):
        text_encoder("multiway:base")


def test_less_memory_and_the_same_gradients() -> None:
    model = build(spec()).train()
    given, found = batch(model), []
    for side in (model.image, model.text):
        for enable in (False, True):
            side.set_grad_checkpointing(enable)
            model.zero_grad()
            torch.manual_seed(1)
            step_grads(model, given)
            found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for grads in found[1:]:
        for one, other in zip(found[0], grads, strict=True):
            if one is not None:
                torch.testing.assert_close(one, other)


def step_grads(model: DualEncoder, of: PairBatch) -> None:
    out = model(of)
    (out.image_BE @ out.text_BE.T).square().sum().backward()


def test_states_come_with_the_features_and_in_the_order_of_the_real_tokens() -> None:
    model = build(spec()).eval()
    given = batch(model)
    assert given.tokens is not None
    found, plain = model.encode(given, states=True), model.encode(given)
    assert torch.equal(found.image_BE, plain.image_BE) and torch.equal(found.text_BE, plain.text_BE)
    assert found.image_BND.shape == (4, 4, 32) and found.text_BLD.shape[:2] == given.tokens.ids_BL.shape
    assert torch.equal(found.image_BND, model.image.tokens(given.pixels_BCHW))
    padded = TextBatch(*(torch.nn.functional.pad(part, (2, 0)) for part in given.tokens))  # on the left
    states_BLD = model.encode(replace(given, tokens=padded), states=True).text_BLD
    real_BL = given.tokens.mask_BL > 0
    torch.testing.assert_close(states_BLD[:, :-2][real_BL], found.text_BLD[real_BL], atol=1e-5, rtol=1e-4)
    projected: Tensor = model.project_text(found.text_BLD[:, 0])
    torch.testing.assert_close(projected, plain.text_BE)
