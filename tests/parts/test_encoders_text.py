"""Laws of text encoders: one == many, padding does not matter, save/build identity, pooling as named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, DataError, UnknownName, VlkitError
from vlkit.parts.encoders import TEXT_ENCODERS, build_text_encoder, text_encoder
from vlkit.spec.parts import HfText, MultiwayText, OpenClipText, TinyText
from vlkit.types import GivesStates, KnowsVocabulary, TextBatch, TextEncoder

_HF: dict[str, Callable[[Path], Path]] = {
    "bert": factory.bert, "xlm_roberta": factory.xlm_roberta, "llama": factory.llama, "t5": factory.t5,
    "clip_text": factory.clip_text, "clip": factory.clip, "siglip": factory.siglip, "vision_text": factory.vision_text,
}  # fmt: skip
_KINDS = [*_HF, "tiny", "multiway", "open_clip", "open_clip_hf"]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    found: dict[str, Any] = {name: HfText(name=str(make(root / name))) for name, make in _HF.items()}
    found["tiny"] = TinyText()
    found["multiway"] = MultiwayText(width=32, heads=2, ffn=64, layers=1, vl_layers=1)
    found["open_clip"] = OpenClipText(name=str(factory.open_clip_folder(root / "oc")))
    hf_text = factory.open_clip_folder(root / "oc_hf", hf_text=Path(found["xlm_roberta"].name))
    found["open_clip_hf"] = OpenClipText(name=str(hf_text))
    return found


def _features(encoder: Any, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.tokenize(texts))


def test_every_registered_kind_is_tested_here(specs: dict[str, Any]) -> None:
    assert {spec.kind for spec in specs.values()} == set(TEXT_ENCODERS)


@pytest.mark.parametrize("kind", _KINDS)
def test_one_equals_many(kind: str, specs: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(specs[kind])
    assert isinstance(encoder, TextEncoder)
    together = _features(encoder, factory.TEXTS)
    assert together.shape == (len(factory.TEXTS), encoder.width)
    assert len(torch.unique(together, dim=0)) == len(factory.TEXTS)
    for text, row in zip(factory.TEXTS, together, strict=True):
        torch.testing.assert_close(_features(encoder, [text])[0], row, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind != "open_clip_hf"])
def test_features_and_states_in_one_pass_and_what_the_ids_mean(kind: str, specs: dict[str, Any]) -> None:
    encoder: Any = build_text_encoder(specs[kind])
    tokens = encoder.tokenize(factory.TEXTS)
    with torch.no_grad():
        features_BD, states_BLD = encoder.pooled_and_states(tokens)
        torch.testing.assert_close(features_BD, encoder(tokens))
    assert isinstance(encoder, GivesStates) and isinstance(encoder, KnowsVocabulary)
    assert states_BLD.shape == (*tokens.ids_BL.shape, encoder.token_width)
    known = encoder.vocabulary()
    assert known.starts_V.shape == known.ends_V.shape == known.special_V.shape == (encoder.vocab_size,)
    assert not known.special_V.all() and (known.special_V <= known.starts_V).all()


def test_a_transformers_tower_inside_open_clip_gives_no_states(specs: dict[str, Any]) -> None:
    encoder: Any = build_text_encoder(specs["open_clip_hf"])
    with pytest.raises(VlkitError, match="name that tower itself, with kind hf"):
        encoder.pooled_and_states(encoder.tokenize(factory.TEXTS))


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind not in {"siglip", "open_clip"}])
def test_left_and_right_padding_give_the_same(kind: str, specs: dict[str, Any]) -> None:
    encoder = build_text_encoder(specs[kind])
    ids_BL, mask_BL = encoder.tokenize(factory.TEXTS)
    pad_id = {"open_clip_hf": 1, "xlm_roberta": 1, "tiny": 257}.get(kind, 0)
    left_ids, left_mask = torch.full_like(ids_BL, pad_id), torch.zeros_like(mask_BL)
    for row, length in enumerate(mask_BL.sum(dim=1).tolist()):
        left_ids[row, -length:], left_mask[row, -length:] = ids_BL[row, :length], 1
    with torch.no_grad():
        right, left = encoder(TextBatch(ids_BL, mask_BL)), encoder(TextBatch(left_ids, left_mask))
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", _KINDS)
def test_saved_config_and_state_give_the_same_features(kind: str, specs: dict[str, Any], tmp_path: Path) -> None:
    first = build_text_encoder(specs[kind])
    first.save_config(tmp_path)
    spec = first.spec.model_copy(update={} if kind in {"tiny", "multiway"} else {"name": "gone/away"})
    second = build_text_encoder(spec, saved=tmp_path)
    assert second.spec == spec
    second.load_state_dict(first.state_dict())
    assert torch.equal(_features(first, factory.TEXTS), _features(second, factory.TEXTS))


@pytest.mark.parametrize("kind", _KINDS)
def test_empty_has_the_same_parameters_and_no_storage(kind: str, specs: dict[str, Any]) -> None:
    empty = build_text_encoder(specs[kind], empty=True)
    assert all(parameter.is_meta for parameter in empty.parameters())
    real = build_text_encoder(specs[kind])
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}


def test_random_start_follows_the_seed(specs: dict[str, Any]) -> None:
    def build() -> torch.Tensor:
        torch.manual_seed(7)
        spec = specs["bert"].model_copy(update={"pretrained": False})
        return _features(build_text_encoder(spec), factory.TEXTS)

    assert torch.equal(build(), build())
    assert not torch.allclose(build(), _features(build_text_encoder(specs["bert"]), factory.TEXTS))


def _states(folder: str, texts: list[str]) -> tuple[Any, torch.Tensor]:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, return_tensors="pt")
    with torch.no_grad():
        return AutoModel.from_pretrained(folder).eval()(**tokens, output_hidden_states=True), tokens["input_ids"]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_is_what_its_name_says(pooling: str, specs: dict[str, Any]) -> None:
    text = factory.TEXTS[1]
    state_LD = _states(specs["bert"].name, [text])[0].last_hidden_state[0]
    want = {"mean": state_LD.mean(dim=0), "cls": state_LD[0], "last": state_LD[-1]}[pooling]
    encoder = build_text_encoder(specs["bert"].model_copy(update={"pooling": pooling}))
    torch.testing.assert_close(_features(encoder, [text, "x"])[0], want, atol=1e-5, rtol=1e-5)


def test_layers_are_pooled_and_concatenated(specs: dict[str, Any]) -> None:
    encoder = build_text_encoder(specs["bert"].model_copy(update={"layers": (0, 1, -1)}))
    assert encoder.width == 48
    states = _states(specs["bert"].name, ["a cat"])[0].hidden_states
    want = torch.cat([states[i][0].mean(dim=0) for i in (0, 1, 2)])
    torch.testing.assert_close(_features(encoder, ["a cat", "x" * 30])[0], want, atol=1e-5, rtol=1e-5)


def test_a_layer_that_does_not_exist(specs: dict[str, Any]) -> None:
    spec = specs["bert"].model_copy(update={"layers": (-1, 3)})
    with pytest.raises(VlkitError) as caught:
        build_text_encoder(spec)
    assert str(caught.value) == (
        f"{spec.name}: layers = [-1, 3]; allowed: one or more of -3..2 (0 the embeddings, 2 or -1 the last block)"
    )


@pytest.mark.parametrize(
    ("kind", "pooling"), [("bert", "mean"), ("llama", "last"), ("t5", "mean"), ("clip_text", "eos"), ("clip", "auto")]
)
def test_auto_pooling_by_architecture(kind: str, pooling: str, specs: dict[str, Any]) -> None:
    assert build_text_encoder(specs[kind]).spec.pooling == pooling


@pytest.mark.parametrize(
    ("name", "pooling", "prefix"),
    [("multilingual-e5-small", "mean", "query: "), ("e5-large-v2", "mean", "query: "),
     ("multilingual-e5-large-instruct", "mean", ""), ("e5-mistral-7b-instruct", "last", ""),
     ("some5-model", "mean", "")],
)  # fmt: skip
def test_e5_is_known_by_name(name: str, pooling: str, prefix: str, tmp_path: Path) -> None:
    encoder = build_text_encoder(HfText(name=str(factory.bert(tmp_path / name))))
    assert (encoder.spec.pooling, encoder.spec.prefix) == (pooling, prefix)
    bare = build_text_encoder(HfText(name=str(tmp_path / name), prefix="", pooling=pooling))
    torch.testing.assert_close(_features(encoder, ["a cat"]), _features(bare, [prefix + "a cat"]))


def test_sentence_transformers_files_decide(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path / "multilingual-e5-odd")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    prompts = {"prompts": {"query": "ask: ", "sts": "same: "}, "default_prompt_name": "sts"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    spec = build_text_encoder(HfText(name=str(folder))).spec
    assert (spec.pooling, spec.prefix) == ("cls", "same: ")
    explicit = build_text_encoder(HfText(name=str(folder), pooling="mean", prefix="")).spec
    assert (explicit.pooling, explicit.prefix) == ("mean", "")


@pytest.mark.parametrize("kind", ["clip_text", "llama"])
def test_a_cut_keeps_the_end_token(kind: str, specs: dict[str, Any]) -> None:
    encoder = build_text_encoder(specs[kind].model_copy(update={"max_length": 8, "pooling": "eos"}))
    batch = encoder.tokenize(["x" * 50, "a"])
    assert batch.ids_BL.shape == (2, 8)
    assert batch.ids_BL[0, -1] == 2
    assert ((batch.ids_BL == 2) & (batch.mask_BL == 1)).sum(dim=1).tolist() == [1, 1]


def test_causal_models_have_no_language_head(specs: dict[str, Any]) -> None:
    names = [name for name, _ in build_text_encoder(specs["llama"]).named_parameters()]
    assert names and not any("lm_head" in name for name in names)


def test_no_unused_pooler_and_no_decoder(specs: dict[str, Any]) -> None:
    for kind in ("bert", "xlm_roberta", "t5"):
        names = [name for name, _ in build_text_encoder(specs[kind]).named_parameters()]
        assert names and not any("pooler" in name or "decoder" in name for name in names)


@pytest.mark.parametrize("kind", ["bert", "tiny", "open_clip"])
def test_texts_must_be_a_list_of_strings(kind: str, specs: dict[str, Any]) -> None:
    encoder = build_text_encoder(specs[kind])
    for texts, message in [
        ([], "no texts to tokenize: the list is empty; give at least one string"),
        (["a", 3], "texts[1] = 3 is a int; every text must be a string"),
        (["a", "b\udc80"], r"texts[1] = 'b\udc80' holds half a character; save the text as UTF-8"),
        ("cat", "texts must be a list of strings, not the one string 'cat'; write ['cat']"),
    ]:
        with pytest.raises(DataError) as caught:
            encoder.tokenize(texts)
        assert str(caught.value) == message


def test_a_text_without_tokens(tmp_path: Path) -> None:
    folder = factory.llama(tmp_path, tokenizer=factory.fast_tokenizer(starts=False, ends=False, pad=None))
    with pytest.raises(DataError) as caught:
        build_text_encoder(HfText(name=str(folder))).tokenize(["a", ""])
    assert str(caught.value) == f"{folder}: the text '' gives no tokens; leave it out"


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = factory.bert(tmp_path)
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        VlkitError, match=r"lack 1 of the tensors of BertModel \(the first: encoder.layer.1.output.dense.weight\)"
    ):
        build_text_encoder(HfText(name=str(folder)))


def test_damaged_weights(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path)
    (folder / "model.safetensors").write_bytes(b"half a download")
    with pytest.raises(AssetError, match=r"cannot read the weights .*model\.safetensors: "):
        build_text_encoder(HfText(name=str(folder)))


def test_names() -> None:
    assert text_encoder("tiny").spec == TinyText()
    with pytest.raises(UnknownName) as caught:
        text_encoder("hff:bert")
    assert (
        str(caught.value)
        == "no text encoder 'hff'; did you mean 'hf'? Names read 'hf:ID', 'open_clip:MODEL/TAG', 'tiny'."
    )
    with pytest.raises(VlkitError, match=r"text encoder 'hf:' lacks a name after the colon"):
        text_encoder("hf:")
    with pytest.raises(UnknownName, match=r"no open_clip model 'ViT-B-33'; did you mean .*'ViT-B-32'"):
        text_encoder("open_clip:ViT-B-33/openai")
    with pytest.raises(UnknownName, match=r"no open_clip weights of ViT-B-32 'open'; did you mean 'openai'\?"):
        text_encoder("open_clip:ViT-B-32/open")
    with pytest.raises(AssetError, match=r"open_clip:ViT-B-32 names no weights; write MODEL/TAG \(tags: openai, "):
        text_encoder("open_clip:ViT-B-32")
