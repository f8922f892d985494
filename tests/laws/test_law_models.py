"""Laws of whole models: parts take parts, defaults live once, frozen stays frozen, saved is loaded, one equals many."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import vlkit
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.models.registry import build, build_meta
from vlkit.models.trainable import check_moved, set_trainable, snapshot
from vlkit.nn.heads import Head
from vlkit.parts.bridges import build_head
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HeadSpec, IdentityHeadSpec, LinearHeadSpec, MlpHeadSpec, TimmImage, TinyImage, TinyText

TEXTS = ["a cat", "Hund", "x", "een heel lange zin over een fiets", "猫"]
HEADS: tuple[type[Any], ...] = get_args(get_args(HeadSpec)[0])


def make(head: Any = None, *, image: Any = None) -> DualEncoder:
    torch.manual_seed(0)
    head = head or MlpHeadSpec(hidden=24, center=True)
    tiny = TinyImage(image_size=16, width=16)
    return build(
        DualEncoderSpec(image=image or tiny, text=TinyText(width=16), embed_dim=16, image_head=head, text_head=head)
    ).eval()


def tiny_head(kind: type[Any]) -> Any:
    return kind(known_dim=6, num_classes=5) if "known_dim" in kind.model_fields else kind()


def batch_of(model: DualEncoder, *, size: int = 16) -> PairBatch:
    pixels = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))
    return PairBatch(pixels, None, model.tokenize(TEXTS), None, ("en",) * 5, tuple("abcde"))


def train(model: DualEncoder, batch: PairBatch, *, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        out = model(batch)
        logits = out.scale * out.image_BE @ out.text_BE.T + (0 if out.bias is None else out.bias)
        torch.nn.functional.cross_entropy(logits, torch.arange(5)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", HEADS)
def test_every_kind_of_head_builds_and_survives_a_folder(kind: type[Any], tmp_path: Path) -> None:
    model = make(tiny_head(kind))
    batch = batch_of(model)
    if "center" not in kind.model_fields:
        expected = model(batch)
    else:
        train(model, batch)
        expected = model.eval()(batch)
    out = load(save(model, tmp_path / "m"))(batch)
    assert torch.equal(out.image_BE, expected.image_BE) and torch.equal(out.text_BE, expected.text_BE)
    assert torch.equal(out.scale, expected.scale)


def test_one_equals_many() -> None:
    model = make()
    batch = batch_of(model)
    assert batch.pixels_BCHW is not None
    with torch.no_grad():
        many = model.encode_image(batch.pixels_BCHW), model.encode_text(model.tokenize(TEXTS))
        one = (
            torch.cat([model.encode_image(pixels[None]) for pixels in batch.pixels_BCHW]),
            torch.cat([model.encode_text(model.tokenize([text])) for text in TEXTS]),
        )
    for together, alone in zip(many, one, strict=True):
        torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_cached_equals_uncached_with_its_gradients() -> None:
    model = make()
    set_trainable(model, ["image_head", "text_head", "scale"])
    model.train()
    raw = batch_of(model)
    assert raw.tokens is not None and raw.pixels_BCHW is not None
    with torch.no_grad():
        cached = replace(
            raw, pixels_BCHW=None, tokens=None, image_BD=model.image(raw.pixels_BCHW), text_BD=model.text(raw.tokens)
        )
    grads = []
    for batch in (raw, cached):
        model.zero_grad()
        out = model(batch)
        (out.scale * (out.image_BE * out.text_BE).sum()).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) == 11
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@pytest.mark.parametrize("parts", [("text_head", "scale"), ("image_head",), ("text", "image_head"), ("image.blocks",)])
def test_what_is_frozen_stays_frozen(parts: tuple[str, ...]) -> None:
    model = make()
    set_trainable(model, parts)
    before = snapshot(model)
    train(model, batch_of(model))
    check_moved(before, snapshot(model), parts)


def test_batch_statistics_of_a_frozen_network_stand_still() -> None:
    model = make(image=TimmImage(name="test_efficientnet", pretrained=False, image_size=32))
    batch = batch_of(model, size=32)
    set_trainable(model, ["image_head"])
    before = snapshot(model)
    assert any("running_mean" in name for name in before.buffers)
    train(model, batch)
    check_moved(before, snapshot(model), ["image_head"])
    set_trainable(model, ["image"])
    train(model, batch)
    moved = snapshot(model)
    assert any(moved.buffers[name] != digest for name, digest in before.buffers.items() if "running" in name)


def test_training_from_a_folder_is_training_from_memory(tmp_path: Path) -> None:
    model = make()
    save(model, tmp_path / "m")
    other = load(tmp_path / "m")
    for one in (model, other):
        train(one, batch_of(one))
    assert snapshot(model) == snapshot(other)


def test_defaults_live_in_the_spec_alone() -> None:
    model = make()
    bare = DualEncoder(model.image, model.text).spec
    named = {field: value for field, value in bare.model_dump().items() if field not in ("kind", "image", "text")}
    fields = DualEncoderSpec(image=bare.image, text=bare.text).model_dump()
    assert named == {field: fields[field] for field in named}


def test_meta_and_real_have_the_same_shapes() -> None:
    model = make()
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    empty = build_meta(model.spec).state_dict()
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in empty.items()} == shapes


def test_heads_know_widths_and_nothing_else() -> None:
    for path in (Path(vlkit.__file__).parent / "nn").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith(("vlkit.parts", "vlkit.models")), path
    for kind in HEADS:
        spec = tiny_head(kind)
        head = build_head(spec, 16, 16)
        assert isinstance(head, Head) and (head.in_width, head.out_width, head.spec) == (16, 16, spec)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vision_text", "open_clip", "open_clip_siglip"])
def test_foreign_models_survive_a_folder(kind: str, tmp_path: Path) -> None:
    from tests.helpers import encoder_factory as factory

    source = tmp_path / "source"
    if kind.startswith("open_clip"):
        factory.open_clip_folder(source, siglip_like=kind == "open_clip_siglip")
    else:
        getattr(factory, kind)(source)
    model = load(source)
    assert isinstance(model.spec.image_head, IdentityHeadSpec)
    again = load(save(model, tmp_path / "model"))
    pixels = torch.stack([model.transform(factory.random_image(seed)) for seed in range(2)])
    assert torch.equal(torch.stack([again.transform(factory.random_image(seed)) for seed in range(2)]), pixels)
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))
        assert torch.equal(again.encode_text(again.tokenize(TEXTS)), model.encode_text(model.tokenize(TEXTS)))
    assert torch.equal(again.scale, model.scale)
    assert (again.bias is None) == (model.bias is None)
    half = load(source, dtype=torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in half.parameters() if p.ndim)
    with torch.no_grad():
        torch.testing.assert_close(half.encode_image(pixels), model.encode_image(pixels), atol=0.1, rtol=0)


def test_a_scale_above_the_usual_maximum_is_kept(tmp_path: Path) -> None:
    from transformers import SiglipModel

    from tests.helpers import encoder_factory as factory

    model = SiglipModel.from_pretrained(factory.siglip(tmp_path / "s"))
    with torch.no_grad():
        model.logit_scale.fill_(4.77)
    model.save_pretrained(tmp_path / "s")
    ours = load(tmp_path / "s")
    torch.testing.assert_close(ours.scale, model.logit_scale.exp()[0])
    torch.testing.assert_close(load(save(ours, tmp_path / "m")).scale, ours.scale)


def test_a_linear_head_is_the_same_from_parts_and_from_a_spec() -> None:
    model = make(LinearHeadSpec())
    heads = {"image_head": model.image_head, "text_head": model.text_head}
    assert DualEncoder(model.image, model.text, embed_dim=16, **heads).spec == model.spec
