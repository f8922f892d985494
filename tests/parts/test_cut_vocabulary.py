"""Laws of a changed vocabulary: what is kept is kept to the bit, texts stay the same, all else can still be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import PreTrainedTokenizerFast

import vlkit
from tests.helpers import encoder_factory as factory
from tests.helpers import vision_language
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.image_prompts import question_prompts
from vlkit.models.folder import load, save
from vlkit.parts.cut_vocabulary import add_tokens, cut_vocabulary
from vlkit.parts.language_models import build_language_model, language_model
from vlkit.parts.language_words import language_words
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.language import GenerationSpec, HfLanguage, TinyLanguage

_CORPUS = [
    "a lighthouse on a rock by the sea", "the lighter house in the light", "ein Leuchtturm am Meer, und ein Boot",
    "der Hund läuft über die Straße", "un phare au bord de la mer", "маяк на скале над морем", "собака бежит по улице",
    "灯塔在海边的悬崖上", "狗在街上跑", "日本の灯台", "aaaa aaaaaaa bbbb abababab", "समुद्र के ऊपर",
] * 3  # fmt: skip
_TEXTS = ["the lighthouse", "ein Leuchtturm am Meer", "маяк над морем", "灯塔", "aaaaaaaa abab"]
_OTHERS = ["Ein Hund: läuft!", "собака 狗 कुत्ता 🦊", "THE SEA  and\nthe rock", "bababab aaa"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_MARKS = ["<pad>", "<eos>", "<bos>", "<unk>", "<unused0>", "<unused1>", "<start_of_turn>"]


def _gemma_like() -> Tokenizer:
    core = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = BpeTrainer(vocab_size=700, special_tokens=[*_MARKS, *_BYTES], show_progress=False)
    core.train_from_iterator(_CORPUS, trainer)
    whole = json.loads(core.to_str())
    whole["added_tokens"] = [one for one in whole["added_tokens"] if one["content"] not in _BYTES]
    core = Tokenizer.from_str(json.dumps(whole))
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return core


def _bytes_of_gpt() -> Tokenizer:
    core = Tokenizer(BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=600, special_tokens=_MARKS, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(_CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return core


def _unigram() -> Tokenizer:
    core = Tokenizer(Unigram())
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = UnigramTrainer(vocab_size=300, special_tokens=_MARKS, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(_CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return core


_KINDS: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "gemma": (_gemma_like, "gemma3"), "gpt": (_bytes_of_gpt, "llama"), "unigram": (_unigram, "mt5"),
}  # fmt: skip


def _folder(folder: Path, kind: str) -> Path:
    make, architecture = _KINDS[kind]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make(), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    model: Any = build_language_model(TinyLanguage(architecture=architecture))
    model.whole.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _pieces(model: Any, text: str) -> list[str]:
    found: list[str] = model.tokenizer.convert_ids_to_tokens(model.tokenizer(text)["input_ids"])
    return found


@pytest.fixture(params=_KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return _folder(tmp_path / request.param, request.param)


def test_kept_rows_and_the_given_texts_stay_as_they_are(folder: Path) -> None:
    before: Any = language_model(f"hf:{folder}")
    model: Any = language_model(f"hf:{folder}")
    kept_V = cut_vocabulary(model, _TEXTS)
    assert model.vocab_size == len(kept_V) < before.vocab_size and model.vocab_size % 64 == 0
    for name in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(model.whole, name)().weight, getattr(before.whole, name)().weight[kept_V])
    for text in _TEXTS:
        assert _pieces(model, text) == _pieces(before, text)
        assert kept_V[model.tokenizer(text)["input_ids"]].tolist() == before.tokenizer(text)["input_ids"]
    ids_BL, mask_BL = pad_rows([model.tokenizer(text)["input_ids"] for text in _TEXTS], pad_id=0)
    states = [one.embed(ids) for one, ids in ((model, ids_BL), (before, kept_V[ids_BL]))]
    assert torch.equal(*states)
    states_RE = model(states[0], mask_BL)[0]
    torch.testing.assert_close(model.logits(states_RE), before.logits(states_RE)[:, kept_V])
    assert "<unused0>" not in model.tokenizer.get_vocab() and "<start_of_turn>" in model.tokenizer.get_vocab()


def test_other_texts_fall_back_to_smaller_pieces(folder: Path) -> None:
    model: Any = language_model(f"hf:{folder}")
    want = [model.tokenizer.decode(model.tokenizer(text)["input_ids"], skip_special_tokens=True) for text in _OTHERS]
    cut_vocabulary(model, _TEXTS)
    for text, whole in zip(_OTHERS, want, strict=True):
        ids = model.tokenizer(text)["input_ids"]
        if "unigram" not in str(folder):  # which has no bytes
            assert model.tokenizer.decode(ids, skip_special_tokens=True) == whole == text
        assert max(ids) < model.vocab_size


def test_marks_have_their_new_ids_everywhere(folder: Path) -> None:
    model: Any = language_model(f"hf:{folder}")
    cut_vocabulary(model, _TEXTS)
    tokenizer, config = model.tokenizer, model.whole.config
    assert model.end_ids == (tokenizer.eos_token_id,) == (config.eos_token_id,)
    assert config.vocab_size == model.config.vocab_size == model.vocab_size
    assert [tokenizer.pad_token_id, config.pad_token_id] == [0, 0] and tokenizer.convert_ids_to_tokens(0) == "<pad>"
    ids_BL, mask_BL = pad_rows([tokenizer("маяк")["input_ids"]], pad_id=0)
    texts = model.generate(model.embed(ids_BL), mask_BL, generation=GenerationSpec(max_tokens=5))
    assert len(texts) == 1


def test_a_spec_cuts_and_adds_once_and_what_is_saved_loads(folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join([*_TEXTS, ""]))
    spec = HfLanguage(name=str(folder), vocabulary=str(texts), tokens=("<2de>", "<2fr>"))
    first: Any = build_language_model(spec)
    assert _pieces(first, "a<2de>b").count("<2de>") == 1
    first.save_config(tmp_path / "saved")
    texts.unlink()
    second: Any = build_language_model(spec.model_copy(update={"name": "gone/away"}), saved=tmp_path / "saved")
    second.load_state_dict(first.state_dict())
    assert second.vocab_size == first.vocab_size and second.end_ids == first.end_ids
    for text in (*_TEXTS, *_OTHERS, "<2fr> x"):
        assert first.tokenizer(text)["input_ids"] == second.tokenizer(text)["input_ids"]


def test_without_weights_the_shapes_are_the_same(folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(_TEXTS))
    spec = HfLanguage(name=str(folder), vocabulary=str(texts))
    real: Any = build_language_model(spec)
    empty: Any = build_language_model(spec, empty=True)
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert all(parameter.is_meta for parameter in empty.parameters())


@pytest.mark.parametrize("architecture", ["gemma3", "bloom", "t5", "mt5"])
def test_added_tokens_leave_old_rows_and_start_as_the_mean(architecture: str) -> None:
    model: Any = build_language_model(TinyLanguage(architecture=architecture))
    old_VE, size = model.whole.get_input_embeddings().weight.clone(), len(model.tokenizer)
    tied = model.whole.get_output_embeddings().weight is model.whole.get_input_embeddings().weight
    add_tokens(model, ["<2de>", "<2fr>"])
    new_VE = model.whole.get_input_embeddings().weight
    assert model.vocab_size == len(new_VE) == 320 and model.whole.get_output_embeddings().weight.shape == new_VE.shape
    assert (model.whole.get_output_embeddings().weight is new_VE) == tied
    assert torch.equal(new_VE[: len(old_VE)], old_VE)
    torch.testing.assert_close(new_VE[size], old_VE.mean(dim=0))
    assert model.tokenizer("<2de>", add_special_tokens=False)["input_ids"] == [size]
    ids_BL = torch.tensor([[size, 70, 71]])
    assert model.logits(model(model.embed(ids_BL), torch.ones_like(ids_BL))[0]).shape == (3, 320)
    add_tokens(model, ["<2sw>"])
    assert model.vocab_size == 320


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    model: Any = build_language_model(TinyLanguage())
    with pytest.raises(VlkitError) as caught:
        cut_vocabulary(model, ["a"])
    assert str(caught.value) == (
        "tiny llama: the vocabulary of a tokenizer of the kind ByT5Tokenizer cannot be cut; allowed: BPE, Unigram; set "
        "vocabulary to null"
    )
    folder = factory.llama(tmp_path / "llama")
    empty, gone = tmp_path / "empty.txt", tmp_path / "gone.txt"
    empty.write_text("\n \n")
    for path, message in (
        (empty, f"{empty} has no texts to keep the vocabulary of; write one text a line"),
        (gone, f"cannot read the texts for the vocabulary in {gone}: No such file or directory"),
    ):
        with pytest.raises(DataError) as wrong:
            build_language_model(HfLanguage(name=str(folder), pretrained=False, vocabulary=str(path)))
        assert str(wrong.value) == message


def test_a_saved_model_goes_on_with_other_tokens(tmp_path: Path) -> None:
    first = vision_language.tiny("linear", "gemma3")
    save(first, tmp_path / "first")
    model: Any = load(tmp_path / "first")
    vlkit.add_tokens(model.language_model, ["<2de>"])
    assert model.language_model.vocab_size == 320
    batch = vision_language.dialogues(model, (1, ("what? <2de>", "a cat")))
    save(model, tmp_path / "second")
    again: Any = load(tmp_path / "second")
    assert torch.equal(again(batch).states_RE, model(batch).states_RE)
    assert again.language_model.tokenizer.get_vocab() == model.language_model.tokenizer.get_vocab()


def test_a_vocabulary_of_languages_keeps_their_names_and_prompts(folder: Path) -> None:
    whole: Any = build_language_model(HfLanguage(name=str(folder)))
    cut: Any = build_language_model(HfLanguage(name=str(folder), vocabulary=("de", "ru")))
    words = language_words(("de", "ru"))
    assert {"roter apfel", "красное яблоко", "Dänemark", "среда", *question_prompts("name", "ru")} <= {*words}
    assert whole.vocab_size >= cut.vocab_size
    for text in words[::50]:
        assert _pieces(cut, text) == _pieces(whole, text)


def test_languages_without_names_are_refused() -> None:
    with pytest.raises(DataError) as wrong:
        language_words(("de", "arz"))
    assert str(wrong.value) == (
        "vocabulary: Unicode CLDR (babel) has no names in arz; give a file of texts instead (vocabulary: texts.txt, "
        "one a line)"
    )
    with pytest.raises(UnknownName, match="klingon"):
        language_words(("klingon",))
