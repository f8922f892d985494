"""A tokenizer that does not fit is refused; the language of NLLB-type tokenizers is set or refused, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import encoder_factory as factory
from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.parts.building import compact
from vlkit.parts.encoders import build_text_encoder
from vlkit.parts.tokenizers import HfTokenizer, load_tokenizer, pad_rows
from vlkit.spec.parts import HfText, OpenClipText


def test_too_many_tokens_give_both_numbers(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path, tokenizer=factory.fast_tokenizer(extra=5))
    with pytest.raises(VlkitError) as caught:
        build_text_encoder(HfText(name=str(folder)))
    assert str(caught.value) == (
        f"{folder}: the tokenizer has 305 tokens but the text model's embedding has 300 rows; the tokenizer belongs to "
        "another model, put the model's own tokenizer files in its folder"
    )


def test_far_too_few_tokens_give_both_numbers(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path, rows=2000)
    with pytest.raises(VlkitError, match="has only 300 tokens for the 2000 rows of the text model's embedding"):
        build_text_encoder(HfText(name=str(folder)))


def test_a_pad_id_that_positions_are_counted_from(tmp_path: Path) -> None:
    folder = factory.xlm_roberta(tmp_path, tokenizer=factory.fast_tokenizer(pad_id=0))
    with pytest.raises(VlkitError, match="pads with id 0 but the text model counts positions from pad id 1"):
        build_text_encoder(HfText(name=str(folder)))


def test_open_clip_wrong_tokenizers(tmp_path: Path) -> None:
    xlmr = factory.xlm_roberta(tmp_path / "xlmr")
    folder = factory.open_clip_folder(tmp_path / "oc", hf_text=xlmr)
    factory.fast_tokenizer(pad_id=1, extra=1).save_pretrained(folder)
    with pytest.raises(VlkitError, match="has 301 tokens but the text model's embedding has 300 rows"):
        build_text_encoder(OpenClipText(name=str(folder)))
    factory.fast_tokenizer(pad_id=0).save_pretrained(folder)
    with pytest.raises(VlkitError, match="pads with id 0 but the text model masks pad id 1"):
        build_text_encoder(OpenClipText(name=str(folder)))


def test_open_clip_default_tokenizer_with_a_foreign_tower_is_refused(tmp_path: Path) -> None:
    import json

    folder = factory.open_clip_folder(tmp_path / "oc", hf_text=factory.xlm_roberta(tmp_path / "xlmr"))
    content = json.loads((folder / "open_clip_config.json").read_text())
    del content["model_cfg"]["text_cfg"]["hf_tokenizer_name"]  # open_clip then takes its English BPE
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(VlkitError, match="has 49408 tokens but the text model's embedding has 300 rows"):
        build_text_encoder(OpenClipText(name=str(folder)))


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = factory.bert(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(AssetError, match="holds no tokenizer"):
        build_text_encoder(HfText(name=str(folder)))


def test_end_pooling_needs_an_end_token(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=factory.fast_tokenizer(ends=False).backend_tokenizer, pad_token="<pad>"
    )
    with pytest.raises(VlkitError, match="pooling = 'eos' needs an end-of-text token and the tokenizer has none"):
        HfTokenizer(bare, "model", max_length=8, end_token=True)


@pytest.mark.parametrize(
    ("language", "code"),
    [("de", "deu_Latn"), ("af", "afr_Latn"), ("sq", "als_Latn"), ("uz", "uzn_Latn"), ("en", "eng_Latn")],
)
def test_nllb_gets_its_language(language: str, code: str, tmp_path: Path) -> None:
    encoder = build_text_encoder(HfText(name=str(factory.nllb(tmp_path)), pooling="cls"))
    batch = encoder.tokenize(["a b", "abc"], language=language)
    inner = encoder.tokenizer.tokenizer
    assert batch.ids_BL[:, 0].tolist() == [inner.convert_tokens_to_ids(code)] * 2
    assert inner.convert_tokens_to_ids(code) != inner.unk_token_id


def test_nllb_never_falls_back_to_english(tmp_path: Path) -> None:
    encoder = build_text_encoder(HfText(name=str(factory.nllb(tmp_path)), pooling="cls"))
    encoder.tokenize(["a"], language="de")
    with pytest.raises(VlkitError, match=r"no language token for 'fr' \(French; NLLB code: fra_Latn\)"):
        encoder.tokenize(["a"], language="fr")
    with pytest.raises(VlkitError, match=r"no language token for 'br' \(Breton; NLLB code: none\)"):
        encoder.tokenize(["a"], language="br")
    with pytest.raises(VlkitError, match="marks the language of its input; pass language="):
        encoder.tokenize(["a"])
    with pytest.raises(UnknownName, match="no language 'xx-nope'"):
        encoder.tokenize(["a"], language="xx-nope")


def test_mbart_gets_its_language() -> None:
    from transformers import MBart50Tokenizer

    inner = MBart50Tokenizer(vocab=[(piece, 0.0) for piece in ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abc"]])
    tokenizer = HfTokenizer(inner, "model", max_length=8)
    for language, token in (("de", "de_DE"), ("fr", "fr_XX")):
        assert int(tokenizer(["a"], language=language).ids_BL[0, 0]) == inner.convert_tokens_to_ids(token)
    with pytest.raises(VlkitError, match="no language token for 'br'"):
        tokenizer(["a"], language="br")


def test_nllb_inside_open_clip(tmp_path: Path) -> None:
    folder = factory.open_clip_folder(tmp_path / "oc", hf_text=factory.nllb(tmp_path / "nllb"))
    encoder = build_text_encoder(OpenClipText(name=str(folder)))
    ids = [int(encoder.tokenize(["abc"], language=language).ids_BL[0, 0]) for language in ("af", "sq", "uz")]
    assert len(set(ids)) == 3
    with pytest.raises(VlkitError, match="no language token for 'fr'"):
        encoder.tokenize(["abc"], language="fr")


def test_other_tokenizers_ignore_the_language(tmp_path: Path) -> None:
    encoder = build_text_encoder(HfText(name=str(factory.bert(tmp_path))))
    assert encoder.tokenize(["a"], language="de").ids_BL.tolist() == encoder.tokenize(["a"]).ids_BL.tolist()


def test_compact_moves_real_tokens_to_the_front() -> None:
    ids_BL, mask_BL = pad_rows([[1, 2, 3], [4]], pad_id=0)
    ids_BL, mask_BL = ids_BL.flip(1), mask_BL.flip(1)
    moved_ids, moved_mask = compact(ids_BL, mask_BL)
    assert moved_ids.tolist() == [[3, 2, 1], [4, 0, 0]]
    assert moved_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def _saved(folder: Path) -> dict[str, Any]:
    files = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    files["tokenizer_config.json"].pop("local_files_only", None)  # says only whether a hub could be asked
    return files


def test_a_plain_folder_gives_the_tokenizer_that_auto_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "plain"
    factory.fast_tokenizer().save_pretrained(folder)
    auto = AutoTokenizer.from_pretrained(folder)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", _never)
    plain = load_tokenizer(folder)
    texts = ["t7 t8", "", "t9 unheard-of", " ".join(plain.all_special_tokens)]
    assert plain(texts)["input_ids"] == auto(texts)["input_ids"]
    assert plain.special_tokens_map == auto.special_tokens_map
    assert (type(plain), len(plain), plain.model_max_length) == (type(auto), len(auto), auto.model_max_length)
    auto.save_pretrained(tmp_path / "of_auto")
    plain.save_pretrained(tmp_path / "of_plain")
    assert _saved(tmp_path / "of_plain") == _saved(tmp_path / "of_auto")


@pytest.mark.parametrize(
    "more", [{"add_bos_token": True}, {"tokenizer_class": "BertTokenizer"}, {"sep_token": {"content": "</s>"}}, None]
)
def test_anything_out_of_the_ordinary_is_left_to_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any] | None
) -> None:
    from transformers import AutoTokenizer

    factory.fast_tokenizer().save_pretrained(tmp_path)
    if more is None:
        (tmp_path / "special_tokens_map.json").write_text("{}")
    else:
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda folder, **options: "auto's")
    assert load_tokenizer(tmp_path) == "auto's"


def _never(*args: Any, **options: Any) -> Any:
    raise RuntimeError("AutoTokenizer was asked")
