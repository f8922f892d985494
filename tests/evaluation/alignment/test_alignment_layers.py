"""Embeddings of every layer equal a direct computation, whatever the padding, the batch and the kind of model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.helpers import encoder_factory as factory
from tests.helpers.evaluate_fakes import CountingModel
from vlkit.errors import UnknownName, VlkitError
from vlkit.evaluation.alignment.hidden_states import LAST, LayeredText, from_encoder, from_model, open_text
from vlkit.evaluation.alignment.layer_embeddings import POOLINGS, Pooling, embed_layers, pool_tokens
from vlkit.evaluation.alignment.runner import fertility
from vlkit.types import TextBatch

TEXTS = ["a cat", "a big dog runs over the mountain", "dog", "a cat", "the small cat"]


class Bare(torch.nn.Module):
    """A text encoder that gives its features and nothing else."""

    def tokenize(self, texts: list[str], *, language: str | None = None) -> TextBatch:
        raise NotImplementedError


def plain_pool(states_LD: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One text without padding."""
    count = len(states_LD)
    if pooling == "last":
        return states_LD[-1]
    weights = [1.0] * count if pooling == "mean" else [float(t) for t in range(1, count + 1)]
    return sum(w * row for w, row in zip(weights, states_LD, strict=True)) / sum(weights)


def everything(text: LayeredText) -> dict[Pooling, tuple[str, ...]]:
    return dict.fromkeys(POOLINGS, text.layers)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_does_not_see_where_the_padding_is(pooling: Pooling) -> None:
    states_BLD = torch.randn(3, 7, 4)
    sizes = (7, 4, 1)
    expected = torch.stack([plain_pool(states_BLD[row, :size], pooling) for row, size in enumerate(sizes)])
    for side in ("right", "left", "inside"):
        padded_BLD, mask_BL = torch.full((3, 9, 4), float("nan")), torch.zeros(3, 9, dtype=torch.long)
        for row, size in enumerate(sizes):
            places = {"right": range(size), "left": range(9 - size, 9), "inside": [*range(size - 1), 8]}[side]
            padded_BLD[row, list(places)], mask_BL[row, list(places)] = states_BLD[row, :size], 1
        torch.testing.assert_close(pool_tokens(padded_BLD, mask_BL, pooling=pooling), expected)


def test_a_text_without_tokens_has_no_embedding() -> None:
    for pooling in POOLINGS:
        found = pool_tokens(torch.randn(2, 3, 4), torch.tensor([[0, 0, 0], [1, 1, 0]]), pooling=pooling)
        assert found[0].isnan().all() and found[1].isfinite().all()
    with pytest.raises(UnknownName, match="no pooling 'max'"):
        pool_tokens(torch.randn(1, 1, 1), torch.ones(1, 1), pooling="max")  # type: ignore[arg-type]


def direct(folder: Path, texts: list[str], pooling: Pooling, **options: Any) -> list[torch.Tensor]:
    """By transformers alone, one text at a time: embedding_ND of each layer."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "text_model", model.get_encoder() if model.config.is_encoder_decoder else model)
    found = []
    for one in texts:
        ids = torch.tensor([tokenizer(one)["input_ids"]])
        with torch.no_grad():
            output = model(input_ids=ids, output_hidden_states=True, **options)
        found.append([plain_pool(state[0], pooling) for state in output.hidden_states])
    return [torch.stack(rows) for rows in zip(*found, strict=True)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["llama", "bert", "xlm_roberta", "t5"])
def test_every_layer_of_transformers_models_equals_transformers(kind: str, pooling: Pooling, tmp_path: Path) -> None:
    text = open_text(str(getattr(factory, kind)(tmp_path / kind)))
    assert text.layers == ("0", "1", "2") and text.depth == 2 and not text.projects and text.note == ""
    found = embed_layers(text, TEXTS, wanted={pooling: text.layers}, batch_size=3)
    assert found.projected_NE is None and found.n_cut == 0
    for name, expected_ND in zip(text.layers, direct(tmp_path / kind, TEXTS, pooling), strict=True):
        torch.testing.assert_close(found.layers[pooling, name], expected_ND, atol=2e-5, rtol=1e-4)


def test_left_padded_tokens_give_the_states_of_right_padded_ones(tmp_path: Path) -> None:
    for kind in ("llama", "bert"):
        text = open_text(f"hf:{getattr(factory, kind)(tmp_path / kind)}")
        right = text.tokenize(TEXTS)
        left = TextBatch(torch.zeros_like(right.ids_BL), torch.zeros_like(right.mask_BL))
        for row, size in enumerate(right.mask_BL.sum(1).tolist()):
            left.ids_BL[row, -size:], left.mask_BL[row, -size:] = right.ids_BL[row, :size], 1
        with torch.no_grad():
            one, two = text.states(right), text.states(left)
        for pooling in POOLINGS:
            for a_BLD, b_BLD in zip(one.layers, two.layers, strict=True):
                a_BD = pool_tokens(a_BLD, one.mask_BL, pooling=pooling)
                torch.testing.assert_close(a_BD, pool_tokens(b_BLD, two.mask_BL, pooling=pooling))


def models(tmp_path: Path) -> dict[str, Any]:
    made: dict[str, Any] = {"tiny": "tiny"}
    for kind in ("clip", "siglip", "chinese_clip", "alt_clip", "metaclip_2", "vision_text"):
        made[kind] = getattr(factory, kind)(tmp_path / kind)
    made["open_clip"] = factory.open_clip_folder(tmp_path / "open_clip")
    made["open_clip_siglip"] = factory.open_clip_folder(tmp_path / "ocs", siglip_like=True)
    made["open_clip_hf"] = factory.open_clip_folder(tmp_path / "och", hf_text=factory.xlm_roberta(tmp_path / "xlmr"))
    made["coca"] = factory.coca_folder(tmp_path / "coca")
    return made


KINDS = ["tiny", "clip", "siglip", "chinese_clip", "alt_clip", "metaclip_2", "vision_text", "open_clip",
         "open_clip_siglip", "open_clip_hf", "coca"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_at_a_time_equals_a_batch_for_every_tower(kind: str, tmp_path: Path) -> None:
    made = models(tmp_path)[kind]
    text = open_text(str(made))
    model = text.model
    assert text.projects and model is not None
    many = embed_layers(text, TEXTS, wanted=everything(text), batch_size=len(TEXTS))
    single = embed_layers(text, TEXTS, wanted=everything(text), batch_size=1)
    for key, embedding_ND in many.layers.items():
        assert embedding_ND.isfinite().all() and torch.equal(embedding_ND[0], embedding_ND[3])
        torch.testing.assert_close(embedding_ND, single.layers[key], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        expected_NE = torch.cat([model.encode_text(model.tokenize([one])) for one in TEXTS])
    torch.testing.assert_close(many.projected_NE, expected_NE, atol=1e-5, rtol=1e-4)
    names = {"tiny": (LAST,), "open_clip": ("1", "2"), "open_clip_siglip": ("1", "2"), "coca": ("1", "2")}
    assert text.layers == names.get(kind, ("0", "1", "2"))
    assert bool(text.note) == (kind in names)


def test_layers_of_clip_towers_equal_the_libraries(tmp_path: Path) -> None:
    import open_clip

    folder = factory.clip(tmp_path / "clip")
    text = open_text(str(folder))
    for pooling in POOLINGS:
        found = embed_layers(text, TEXTS, wanted={pooling: text.layers})
        for name, expected_ND in zip(text.layers, direct(folder, TEXTS, pooling), strict=True):
            torch.testing.assert_close(found.layers[pooling, name], expected_ND, atol=2e-5, rtol=1e-4)
    folder = factory.open_clip_folder(tmp_path / "open_clip")
    text = open_text(str(folder))
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    seen: list[torch.Tensor] = []
    theirs.ln_final.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        theirs.encode_text(ids)
    sizes = (ids.argmax(1) + 1).tolist()
    expected = torch.stack([plain_pool(row[:size], "weighted") for row, size in zip(seen[0], sizes, strict=True)])
    found = embed_layers(text, TEXTS, wanted={"weighted": ("2",)})
    torch.testing.assert_close(found.layers["weighted", "2"], expected, atol=2e-5, rtol=1e-4)


def test_a_loaded_folder_and_an_adapted_model_give_their_layers(tmp_path: Path) -> None:
    model = vlkit.DualEncoder(
        vlkit.image_encoder("tiny"), vlkit.text_encoder(f"hf:{factory.bert(tmp_path / 'bert')}"), embed_dim=8
    ).eval()
    before = embed_layers(from_model(model), TEXTS, wanted={"mean": ("2",)})
    alone = embed_layers(from_encoder(model.get_submodule("text")), TEXTS, wanted={"mean": ("2",)})
    torch.testing.assert_close(before.layers["mean", "2"], alone.layers["mean", "2"])
    vlkit.add_lora(model.get_submodule("text"), vlkit.LoRA(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    after = embed_layers(from_model(model), TEXTS, wanted={"mean": ("0", "2")})
    assert not torch.allclose(after.layers["mean", "2"], before.layers["mean", "2"])
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    embed_layers(from_model(model), TEXTS, wanted={"mean": ("0", "2")})
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks  # transformers leaves some of its own
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_users_own_model_is_scored_by_its_embedding_alone() -> None:
    model = CountingModel()
    text = from_model(model)
    found = embed_layers(text, TEXTS, wanted={}, language="de", batch_size=2)
    assert text.layers == () and text.note.startswith("CountingModel gives no states")
    assert found.layers == {} and found.projected_NE is not None
    torch.testing.assert_close(found.projected_NE.norm(dim=1), torch.ones(len(TEXTS)))
    assert sorted(model.texts_seen) == sorted(set(TEXTS)) and set(model.languages_seen) == {"de"}
    assert model.training  # as it was
    with pytest.raises(UnknownName, match="no layer '3'"):
        embed_layers(text, TEXTS, wanted={"mean": ("3",)})
    with pytest.raises(VlkitError, match="no texts to embed"):
        embed_layers(text, [], wanted={})
    with pytest.raises(VlkitError, match="nothing to compare"):
        from_encoder(Bare())


def test_texts_that_are_cut_are_counted_and_tokens_too(tmp_path: Path) -> None:
    text = open_text(str(factory.bert(tmp_path / "bert")))
    found = embed_layers(text, ["a cat", "a cat " * 30, "a cat " * 30], wanted={"mean": ("0",)})
    assert found.n_cut == 2
    # one token a character, blanks too
    counted = fertility(text, ["ab cd", "e"], language="de")
    assert counted == {"tokens_per_character": 6 / 5, "tokens_per_word": 2.0, "unknown_share": 0.0}
    japanese = fertility(text, ["猫の"], language="ja")
    assert japanese["tokens_per_character"] == 1 and japanese["unknown_share"] == 0.5
    assert math.isnan(japanese["tokens_per_word"])
    assert fertility(open_text("tiny"), ["ab"], language="de") == {}
    assert fertility(from_model(CountingModel()), ["ab"], language="de") == {}
