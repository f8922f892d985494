"""Tokenizer and text model belong together, or building them is an error (fact sheet R22, open_clip #514).

The failure: a model of XLM-R's or NLLB's kind fed with CLIP's byte-pair ids runs without a complaint and scores at
chance. Here every way to such a pair ends in an error that names both sides.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, VlkitError
from vlkit.models.folder import load, save
from vlkit.parts.encoders import build_text_encoder
from vlkit.parts.tokenizers import tokenize_mixed
from vlkit.spec.parts import HfText, OpenClipText


def clip_bpe(folder: Path, size: int = 49_408) -> Path:
    """A tokenizer with the number of tokens of CLIP's, which pads with its end token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{index}": index for index in range(size - 2)}
    vocabulary |= {"<|startoftext|>": size - 2, "<|endoftext|>": size - 1}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|startoftext|>", eos_token=end, pad_token=end, unk_token=end
    ).save_pretrained(folder)
    return folder


def swap_tokenizer(folder: Path, other: Path) -> None:
    for path in other.iterdir():
        if "token" in path.name or path.name == "special_tokens_map.json":
            shutil.copy(path, folder / path.name)


def xlm_roberta_of(rows: int, folder: Path) -> Path:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(
        vocab_size=rows, pad_token_id=1, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=80,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (250_002, r"has only 49408 tokens for the 250002 rows of the text model's embedding"),
        (30_000, r"the tokenizer has 49408 tokens but the text model's embedding has 30000 rows"),
        (50_000, r"the tokenizer pads with id 49407 but the text model counts positions from pad id 1"),
    ],
)
def test_xlm_roberta_never_gets_clips_tokenizer(rows: int, message: str, tmp_path: Path) -> None:
    folder = xlm_roberta_of(rows, tmp_path / "xlmr")
    swap_tokenizer(folder, clip_bpe(tmp_path / "clip"))
    with pytest.raises(VlkitError, match=message + ".*belongs to another model"):
        build_text_encoder(HfText(name=str(folder)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (250_002, r"has only 49408 tokens for the 250002 rows"),
        (50_000, r"the tokenizer pads with id None but the text model masks pad id 1"),
    ],
)
def test_nor_inside_of_open_clip(rows: int, message: str, tmp_path: Path) -> None:
    """The case of #514 itself: a transformers tower in open_clip whose config names no tokenizer gets CLIP's."""
    hf_text = xlm_roberta_of(rows, tmp_path / "xlmr")
    factory.fast_tokenizer(pad_id=1).save_pretrained(hf_text)
    folder = factory.open_clip_folder(tmp_path / "oc", hf_text=hf_text)
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    del content["model_cfg"]["text_cfg"]["hf_tokenizer_name"]
    path.write_text(json.dumps(content))
    with pytest.raises(VlkitError, match=message):
        build_text_encoder(OpenClipText(name=str(folder)))
    with pytest.raises(VlkitError, match=message):
        load(folder)


def test_a_folder_without_a_tokenizer_is_not_given_a_usual_one(tmp_path: Path) -> None:
    folder = xlm_roberta_of(300, tmp_path / "xlmr")
    with pytest.raises(AssetError, match="holds no tokenizer"):
        build_text_encoder(HfText(name=str(folder)))


_MAKERS: dict[str, Callable[[Path], Path]] = {
    "clip": factory.clip, "chinese_clip": factory.chinese_clip, "alt_clip": factory.alt_clip, "siglip": factory.siglip,
}  # fmt: skip


@pytest.mark.parametrize("kind", _MAKERS)
def test_two_tower_models_of_transformers_never_get_another_tokenizer(kind: str, tmp_path: Path) -> None:
    folder = _MAKERS[kind](tmp_path / "model")
    swap_tokenizer(folder, clip_bpe(tmp_path / "clip"))
    with pytest.raises(VlkitError, match="has 49408 tokens but the text model's embedding has 300 rows"):
        load(folder)


def test_a_saved_folder_is_checked_again(tmp_path: Path) -> None:
    save(load(factory.alt_clip(tmp_path / "model")), tmp_path / "saved")
    swap_tokenizer(tmp_path / "saved" / "text", factory.bert(tmp_path / "bert"))  # same size, pads with 0
    with pytest.raises(VlkitError, match=r"pads with id 0 but the text model counts positions from pad id 1"):
        load(tmp_path / "saved")


def test_clip_reads_at_the_end_token_its_tokenizer_writes(tmp_path: Path) -> None:
    folder = factory.clip(tmp_path / "model")
    assert load(folder).text.tokenizer.tokenizer.eos_token_id == 1
    factory.fast_tokenizer(pad_id=0).save_pretrained(folder)  # ends with 2
    with pytest.raises(VlkitError, match=r"ends a text with id 2 but the text model reads its feature at id 1"):
        load(folder)


def test_the_first_clip_reads_at_the_highest_id(tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = factory.clip(tmp_path / "model")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["eos_token_id"] = 2
    path.write_text(json.dumps(config))
    with pytest.raises(VlkitError, match=r"must be the end token, but the tokenizer's end token is 1 and it"):
        load(folder)
    factory.fast_tokenizer(pad_id=0).save_pretrained(folder)
    with pytest.raises(VlkitError, match=r"the tokenizer's end token is 2 and it has ids up to 299"):
        load(folder)
    # what OpenAI published: the end token is the highest, and pads, too
    swap_tokenizer(folder, clip_bpe(tmp_path / "bpe", size=300))
    model = load(folder)
    theirs = CLIPModel.from_pretrained(folder).eval()
    tokens = model.tokenize(["t5 t6", "t7"])
    ids_BL = tokens.ids_BL.masked_fill(tokens.mask_BL == 0, 299)
    with torch.no_grad():
        want = theirs.get_text_features(input_ids=ids_BL, attention_mask=tokens.mask_BL).pooler_output
        torch.testing.assert_close(model.text(tokens), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool_type": "argmax"}, r"must be the end token, but the tokenizer's end token is 2"),
        ({"pool_type": "eos", "eos_id": 5}, r"ends a text with id 2 but the text model reads its feature at id 5"),
        ({"pool_type": "last", "embed_cls": True, "pad_id": 3}, r"pads with id 0 but the text model masks pad id 3"),
    ],
)
def test_open_clips_own_towers_fit_a_foreign_tokenizer(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    text = {"context_length": 20, "vocab_size": 300, "width": 16, "heads": 2, "layers": 1, "hf_tokenizer_name": "own"}
    factory.fast_tokenizer().save_pretrained(tmp_path / "oc")
    folder = factory.open_clip_folder(tmp_path / "oc", more={"text_cfg": text | settings, "custom_text": True})
    with pytest.raises(VlkitError, match=message):
        load(folder)
    right = {"pool_type": "eos", "eos_id": 2}
    folder = factory.open_clip_folder(tmp_path / "oc", more={"text_cfg": text | right, "custom_text": True})
    load(folder)


def test_every_row_of_a_mixed_batch_has_its_own_language(tmp_path: Path) -> None:
    """The prefix token of an NLLB-type tokenizer is that of the row, whatever stood before it (open_clip PR #741)."""
    encoder = build_text_encoder(HfText(name=str(factory.nllb(tmp_path)), pooling="cls"))
    inner = encoder.tokenizer.tokenizer
    codes = {"de": "deu_Latn", "en": "eng_Latn", "af": "afr_Latn", "sq": "als_Latn"}
    languages = ("de", "en", "af", "de", "sq", "en")
    batch = tokenize_mixed(encoder.tokenize, ["ab", "cd", "ef", "gh", "ij", "kl"], languages)
    assert batch.ids_BL[:, 0].tolist() == [inner.convert_tokens_to_ids(codes[tag]) for tag in languages]
    features = {tag: encoder(encoder.tokenize(["same"], language=tag)) for tag in codes}
    for one in codes:
        for other in codes:
            assert (one == other) == torch.equal(features[one], features[other])
