"""DualEncoder: what it checks, what it computes, how it behaves in training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.registry import build, build_meta
from vlkit.models.trainable import freeze
from vlkit.parts.bridges import build_head
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import LinearHeadSpec, TinyText
from vlkit.types import ImageTextModel

TEXTS = ["a cat", "Hund", "x", "een heel lange zin over een fiets", "猫"]


class UserImage(nn.Module):
    """A user's own encoder: no base class, no spec."""

    def __init__(self) -> None:
        super().__init__()
        self.width = self.token_width = 6
        self.image_size = 8
        self.norm = nn.BatchNorm2d(3)
        self.map = nn.Linear(3, 6)
        self.dropout = nn.Dropout(0.5)
        self.transform = lambda image: image

    def num_tokens(self, size: int) -> int:
        return 1

    def tokens(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.forward(pixels_BCHW)[:, None]

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.map(self.norm(pixels_BCHW).mean((2, 3))))

    def save_config(self, folder) -> None:
        pass


def with_user_image(model: DualEncoder) -> DualEncoder:
    return DualEncoder(UserImage(), model.text, embed_dim=8)


def test_it_is_an_image_text_model(model) -> None:
    assert isinstance(model, ImageTextModel)
    assert model.transform is model.image.transform


def test_embeddings_are_unit_length(model, pixels) -> None:
    for out in (model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))):
        assert out.shape == (5, 12) and out.dtype == torch.float32
        torch.testing.assert_close(out.norm(dim=-1), torch.ones(5))


def test_the_spec_is_read_off_the_parts_and_builds_the_same_shapes(model, spec) -> None:
    assert model.spec == spec
    again = build(model.spec).state_dict()
    assert {name: t.shape for name, t in again.items()} == {name: t.shape for name, t in model.state_dict().items()}


def test_defaults_are_those_of_the_spec(model) -> None:
    built, default = (
        DualEncoder(model.image, model.text).spec,
        DualEncoderSpec(image=model.image.spec, text=model.text.spec),
    )
    assert built == default


def test_build_meta_has_all_shapes_and_no_memory(spec, model) -> None:
    empty = build_meta(spec)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert {n: t.shape for n, t in empty.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_a_batch_takes_cached_features_where_it_has_them(model, pixels) -> None:
    tokens = model.tokenize(TEXTS)
    raw = PairBatch(pixels, None, tokens, None, ("en",) * 5, tuple("abcde"))
    expected = model(raw)
    cached = replace(raw, image_BD=model.image(pixels), text_BD=model.text(tokens))
    only = replace(cached, pixels_BCHW=None, tokens=None)
    for batch in (cached, only):
        out = model(batch)
        assert torch.equal(out.image_BE, expected.image_BE) and torch.equal(out.text_BE, expected.text_BE)
    poisoned = replace(cached, pixels_BCHW=pixels * math.nan)
    assert torch.equal(model(poisoned).image_BE, expected.image_BE)


@pytest.mark.parametrize(("side", "what"), [("image", "pixels_BCHW nor image_BD"), ("text", "tokens nor text_BD")])
def test_a_batch_without_a_side_is_refused(model, pixels, side, what) -> None:
    batch = PairBatch(pixels, None, model.tokenize(TEXTS), None, ("en",) * 5, tuple("abcde"))
    batch = replace(batch, pixels_BCHW=None) if side == "image" else replace(batch, tokens=None)
    with pytest.raises(VlkitError, match=f"the batch has neither {what}; one of them is needed"):
        model(batch)


def test_scale_starts_at_its_init_and_never_exceeds_its_maximum(model) -> None:
    assert model.scale.item() == pytest.approx(12.5, rel=1e-6)
    assert model.bias.item() == -10.0
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    assert model.scale.item() == pytest.approx(50.0, rel=1e-6)


@pytest.mark.parametrize(
    ("log_scale", "direction", "moves"), [(9.0, 1, True), (9.0, -1, False), (1.0, 1, True), (1.0, -1, True)]
)
def test_above_its_maximum_the_scale_can_only_come_down(model, log_scale, direction, moves) -> None:
    with torch.no_grad():
        model.log_scale.fill_(log_scale)
    (direction * model.scale).backward()  # descent lowers the scale for direction 1 and raises it for -1
    assert (model.log_scale.grad.item() != 0) == moves
    if log_scale < math.log(50):
        assert model.log_scale.grad.item() == pytest.approx(direction * math.exp(log_scale), rel=1e-5)


def test_no_bias_unless_asked_for(model) -> None:
    plain = DualEncoder(model.image, model.text, embed_dim=8)
    assert plain.bias is None and "bias" not in plain.state_dict()


def test_head_widths_are_checked_with_both_numbers(model) -> None:
    with pytest.raises(ShapeError, match=r"^image_head takes 7 values, the image encoder gives 16$"):
        DualEncoder(model.image, model.text, embed_dim=8, image_head=build_head(LinearHeadSpec(), 7, 8))
    with pytest.raises(ShapeError, match=r"^text_head gives 9 values, the shared space has embed_dim=8$"):
        DualEncoder(model.image, model.text, embed_dim=8, text_head=build_head(LinearHeadSpec(), 24, 9))


def test_a_users_head_is_checked_at_its_first_output(model, pixels) -> None:
    bare = DualEncoder(model.image, model.text, embed_dim=8, image_head=nn.Linear(16, 9))
    with pytest.raises(ShapeError, match=r"^image_head gives 9 values, the shared space has embed_dim=8$"):
        bare.encode_image(pixels)


def test_features_of_another_encoder_are_refused(model) -> None:
    with pytest.raises(ShapeError, match=r"^text features are 16 wide, the text encoder says 24$"):
        model.project_text(torch.randn(2, 16))


def test_parts_must_be_modules_and_offer_what_is_needed(model) -> None:
    with pytest.raises(VlkitError, match=r"^image encoder is a str, not a torch nn.Module; DualEncoder takes built"):
        DualEncoder("timm:vit", model.text)
    with pytest.raises(
        VlkitError,
        match=r"^text encoder Linear lacks width, marks_language, tokenize, save_config; see vlkit.types.TextEncoder$",
    ):
        DualEncoder(model.image, nn.Linear(2, 2))


@pytest.mark.parametrize("init", [0.0, -1.0, 101.0])
def test_an_impossible_first_scale_is_refused(model, init) -> None:
    with pytest.raises(VlkitError, match=r"init_scale is .*; it must be above 0 and at most max_scale \(100\)"):
        DualEncoder(model.image, model.text, init_scale=init)


def test_a_users_own_encoder_works_and_its_spec_is_asked_for_only_when_needed(model, pixels) -> None:
    mine = with_user_image(model).eval()
    assert mine.encode_image(pixels).shape == (5, 8)
    with pytest.raises(VlkitError, match=r"^part 'image' \(UserImage\) has no .spec, .*; give your module a .spec"):
        _ = mine.spec
    mine.image.spec = TinyText()
    with pytest.raises(VlkitError, match=r"^the .spec of image is none of vlkit.spec's; save the model's state_dict"):
        _ = mine.spec


def test_frozen_parts_stay_in_eval_mode_with_their_batch_statistics(model, pixels) -> None:
    mine = with_user_image(model)
    freeze(mine, "image")
    before = {name: tensor.clone() for name, tensor in mine.image.named_buffers()}
    mine.train()
    assert mine.training and not mine.image.training and not mine.image.norm.training and mine.text.training
    assert torch.equal(mine.encode_image(pixels), mine.encode_image(pixels))
    for name, tensor in mine.image.named_buffers():
        assert torch.equal(tensor, before[name])


def test_a_part_frozen_in_part_trains_in_the_rest(model) -> None:
    mine = with_user_image(model)
    freeze(mine, "image.norm")
    mine.train()
    assert mine.image.training and mine.image.map.training and not mine.image.norm.training


def test_no_gradient_graph_through_frozen_encoders(model, pixels) -> None:
    freeze(model, "image", "text")
    assert not model.image(pixels).requires_grad
    assert model.encode_image(pixels).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_inputs_follow_the_precision_of_each_part(model, pixels, dtype) -> None:
    expected = model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))
    model.image.to(dtype)
    model.text_head.to(dtype)
    out = model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))
    for got, want in zip(out, expected, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, atol=0.05, rtol=0)


def test_an_empty_container_is_a_head_and_not_a_missing_one(model) -> None:
    bare = DualEncoder(model.image, model.text, embed_dim=16, image_head=nn.Sequential())
    assert len(bare.image_head) == 0


@pytest.mark.parametrize("width", [10**11, 10**12, 10**29])
@pytest.mark.parametrize("make", [build, build_meta])
def test_sizes_that_no_memory_holds_are_told(make: Any, width: int) -> None:
    spec = DualEncoderSpec.model_validate({"image": {"kind": "tiny", "width": width}, "text": {"kind": "tiny"}})
    with pytest.raises(VlkitError, match=r"a model of these sizes does not fit into memory \(.*; lower the widths"):
        make(spec)
