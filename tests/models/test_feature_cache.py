"""The feature cache: what was computed once is never computed again, and is what would be computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlkit.errors import VlkitError
from vlkit.models import feature_cache as features
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.feature_cache import FeatureStore, encode_frozen, encoder_digest, name_of, remembering
from vlkit.models.registry import build
from vlkit.models.trainable import snapshot
from vlkit.spec.parts import TinyText
from vlkit.types import TextBatch

NAMES = [name_of(number) for number in range(6)]
VALUES = torch.arange(18.0).view(6, 3)


class Computing:
    """Gives VALUES, two rows a block, and counts what was asked of it."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.asked: list[int] = []
        self.fail_at = fail_at

    def __call__(self, rows: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        self.asked += rows
        for start in range(0, len(rows), 2):
            block = rows[start : start + 2]
            if self.fail_at in block:
                raise RuntimeError("interrupted")
            yield block, VALUES[block]


def test_what_is_known_is_not_asked_for_again() -> None:
    compute = Computing()
    repeated = FeatureStore({"a": 1}).fetch([NAMES[row] for row in (0, 1, 0, 3)], compute)
    assert torch.equal(repeated, VALUES[[0, 1, 0, 3]]) and compute.asked == [0, 1, 3]
    store = FeatureStore({"a": 2})
    compute = Computing()
    assert torch.equal(store.fetch(NAMES, compute), VALUES) and compute.asked == [0, 1, 2, 3, 4, 5]
    store.flush()
    again = FeatureStore({"a": 2})
    compute = Computing()
    assert torch.equal(again.fetch(NAMES[::-1], compute), VALUES.flip(0)) and compute.asked == []
    other = FeatureStore({"a": 3})
    other.fetch(NAMES, compute)
    assert compute.asked == [0, 1, 2, 3, 4, 5]


def test_an_interrupted_computation_keeps_what_was_done() -> None:
    store = FeatureStore({"a": 1})
    with pytest.raises(RuntimeError, match="interrupted"):
        store.fetch(NAMES, Computing(fail_at=4))
    store.flush()
    again, compute = FeatureStore({"a": 1}), Computing()
    assert torch.equal(again.fetch(NAMES, compute), VALUES)
    assert compute.asked == [4, 5]


def test_a_long_computation_is_written_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr(features.time, "monotonic", lambda: next(clock))
    store = FeatureStore({"a": 1})
    with pytest.raises(RuntimeError, match="interrupted"):
        store.fetch(NAMES, Computing(fail_at=5))  # and never flushed, as after kill -9
    compute = Computing()
    FeatureStore({"a": 1}).fetch(NAMES, compute)
    assert compute.asked == [4, 5]


def test_a_batch_is_not_worth_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Path] = []
    monkeypatch.setattr(features, "write_atomic", lambda path, raw: writes.append(path))
    store = FeatureStore({"a": 1})
    for name, row in zip(NAMES, VALUES, strict=True):
        store.fetch([name], lambda rows, row=row: [(rows, row[None])])
    assert writes == []
    store.flush()
    store.flush()
    assert writes == [store.path]


def test_inputs_left_out_are_zero_and_asked_for_again() -> None:
    store = FeatureStore({"a": 1})
    found = store.fetch(NAMES, lambda rows: [([1, 3], VALUES[[1, 3]])])
    assert torch.equal(found, VALUES * torch.tensor([0, 1, 0, 1, 0, 0])[:, None])
    compute = Computing()
    assert torch.equal(store.fetch(NAMES, compute), VALUES)
    assert compute.asked == [0, 2, 4, 5]
    with pytest.raises(VlkitError, match=r"^there are no features of any of 6 inputs$"):
        FeatureStore({"a": 9}).fetch(NAMES, lambda rows: [])


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "names"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store = FeatureStore({"a": 1})
    store.fetch(NAMES, Computing())
    store.flush()
    raw = store.path.read_bytes()
    other = features.save({"names": torch.zeros(5, 16, dtype=torch.uint8), "features": torch.zeros(6, 3)})
    store.path.write_bytes({"cut": raw[: len(raw) - 5], "empty": b"", "text": b"hello", "names": other}[damage])
    with caplog.at_level(logging.WARNING):
        again, compute = FeatureStore({"a": 1}), Computing()
    assert caplog.messages[0].startswith(f"the feature cache {store.path} is damaged (")
    assert torch.equal(again.fetch(NAMES, compute), VALUES) and len(compute.asked) == 6
    again.flush()
    assert torch.equal(FeatureStore({"a": 1}).fetch(NAMES, Computing(fail_at=0)), VALUES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(VlkitError, match=r"^the encoder gave features that are not finite for inputs 2 to 3$"):
        FeatureStore({"a": 1}).fetch(NAMES, lambda rows: [([2, 3], VALUES[[2, 3]] * value)])


def test_names_hang_on_every_part() -> None:
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), (b"ab", b"d"), ("ab", 1), ("ab", None)]
    assert len({name_of(*part) for part in parts}) == len(parts)
    assert name_of(b"ab", "c") == name_of("ab", b"c")


def test_the_digest_hangs_on_weights_buffers_and_settings(model: DualEncoder) -> None:
    digest = encoder_digest(model.image)
    assert encoder_digest(model.image) == digest
    with torch.no_grad():
        model.image.positions_ND[0, 0] += 1e-3
    moved = encoder_digest(model.image)
    model.image.register_buffer("more", torch.zeros(1))
    buffered = encoder_digest(model.image)
    model.image.spec = model.image.spec.model_copy(update={"patch_size": 4})
    assert len({digest, moved, buffered, encoder_digest(model.image)}) == 4
    torch.manual_seed(0)
    assert encoder_digest(nn.Linear(2, 2)) != encoder_digest(nn.Linear(2, 2))


TEXTS = ["a cat", "Hund", "x", "a cat", "een heel lange zin"]


def counting(module: nn.Module) -> list[int]:
    rows: list[int] = []
    module.register_forward_pre_hook(
        lambda _, args: rows.append(len(args[0].ids_BL if isinstance(args[0], TextBatch) else args[0]))
    )
    return rows


def embed(model: DualEncoder, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.encode_image(pixels), model.encode_text(model.tokenize(TEXTS))


def test_a_remembering_model_is_the_model(model: DualEncoder, pixels: torch.Tensor) -> None:
    plain, before, parts = embed(model, pixels), snapshot(model), (model.image, model.text)
    counts = [counting(part) for part in parts]
    for expected in ([[5], [4]], [[5], [4]]):  # "a cat" comes twice; the second block reads the file
        with remembering(model):
            for _ in range(2):
                for one, two in zip(embed(model, pixels), plain, strict=True):
                    torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)
            assert model.spec.image == parts[0].spec and model.image.width == parts[0].width
            assert model.transform is parts[0].transform
        assert counts == expected
    assert (model.image, model.text) == parts and snapshot(model) == before
    assert [name for name, _ in model.named_children()][:2] == ["image", "text"]


def test_padding_is_not_part_of_a_text(model: DualEncoder) -> None:
    counts = counting(model.text)
    with remembering(model), torch.no_grad():
        model.encode_text(model.tokenize(["a cat"]))
        model.encode_text(model.tokenize(["a cat", "a much longer text"]))
    assert counts == [1, 1]


def test_another_encoder_or_other_weights_are_not_remembered(model: DualEncoder, pixels: torch.Tensor) -> None:
    with remembering(model):
        embed(model, pixels)
    with torch.no_grad():
        model.image.positions_ND += 0.5
    plain, counts = embed(model, pixels), counting(model.image)
    with remembering(model):
        torch.testing.assert_close(embed(model, pixels)[0], plain[0], atol=1e-6, rtol=1e-5)
    assert counts == [5]


def test_what_is_remembered_is_as_at_inference(pixels: torch.Tensor, spec: Any) -> None:
    model = build(spec)
    model.text.blocks[0].mlp.append(nn.Dropout(0.9))
    tokens = model.eval().tokenize(TEXTS)
    with torch.no_grad():
        plain = model.text(tokens)
    model.train()
    with remembering(model):
        found = model.text(tokens)
        assert not found.requires_grad
        assert model.text.encoder.blocks[0].mlp[-1].training
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=1e-5)


def test_the_mode_of_every_module_is_put_back() -> None:
    from vlkit.parts.text import build_text_encoder

    encoder = build_text_encoder(TinyText(width=16))
    encoder.train()
    encoder.blocks[1].eval()
    modes = [module.training for module in encoder.modules()]
    assert not encode_frozen(encoder, encoder.tokenize(["x"])).requires_grad
    assert [module.training for module in encoder.modules()] == modes
