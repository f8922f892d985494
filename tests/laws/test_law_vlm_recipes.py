"""Laws of the shipped vision-language recipes: all say where they come from, and tiny twins train in all stages."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.helpers.train_factory import drawings, losses
from vlkit.models.registry import build_meta
from vlkit.models.trainable import set_trainable, trainable_report
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.spec.load import load_recipe, shipped_recipes
from vlkit.spec.model import VisionLanguageSpec
from vlkit.training.loop import train
from vlkit.types import as_module

ALL = sorted(
    name for name in shipped_recipes() if name.startswith("vlm/") and load_recipe(name).model.kind == "vision_language"
)
TINY = [name for name in ALL if name.startswith("vlm/tiny/")]
PAPERS = ["mblip", "bloomz", "mt0", "blip2_stage2", "centurio", "centurio_ocr", "llava15", "yi_vl", "florenz"]


def short(name: str, tmp_path: Path) -> list[str]:
    """Overrides that make a recipe a matter of a second."""
    table = drawings(tmp_path / "data", 6)
    steps = [f"stages.{number}.steps=2" for number in range(len(load_recipe(name).stages))]
    sizes = [
        "data.holdout_concepts=0",
        "data.languages=null",
        "loop.batch_size=4",
        "loop.micro_batch=2",
        "loop.log_every=1",
    ]
    source = f"data.sources=[{{kind: folder, path: {table}}}]"
    return [source, *sizes, *steps, f"run.folder={tmp_path / 'run'}"]


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_twin_trains_and_names_an_image(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, short(name, tmp_path))
    run = train(recipe)
    values = losses(run)
    assert len(values) == 2 * len(recipe.stages)
    assert all(torch.tensor(value).isfinite() for value in values)
    model = run.model()
    assert isinstance(model, VisionLanguageModel)
    assert isinstance(model.caption(tmp_path / "data" / "0.png", language="de", max_tokens=2), str)


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_says_how_to_run_it_and_what_it_is(name: str) -> None:
    recipe, text = load_recipe(name), shipped_recipes()[name].read_text(encoding="utf-8")
    header = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    assert f"vlkit train {name}" in header
    assert len(recipe.description) > 40
    if (short_name := name.removeprefix("vlm/")) in PAPERS:
        assert "arXiv " in recipe.description and "Changed: " in recipe.description
        assert f"vlm/tiny/{short_name}" in TINY


def test_yi_vl_goes_on_with_larger_images(tmp_path: Path) -> None:
    first = train(load_recipe("vlm/tiny/yi_vl", short("vlm/tiny/yi_vl", tmp_path)))
    name, loop = "vlm/yi_vl_448", ["loop.parallel=auto", "loop.grad_checkpointing=false", "loop.precision=fp32"]
    more = [f"model.path={first.model_path}", "model.image_size=64", f"run.folder={tmp_path / 'larger'}", *loop]
    run = train(load_recipe(name, [*short(name, tmp_path), *more]))
    assert len(losses(run)) == 4
    assert run.model().encoder.image_size == 2 * first.model().encoder.image_size


# sizes ----------------------------------------------------------------------------------------------------------------

CONFIGS: dict[str, dict[str, Any]] = {
    "mt0-xl": {"model_type": "mt5", "d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_layers": 24, "num_heads": 32,
               "feed_forward_proj": "gated-gelu", "vocab_size": 250_112, "tie_word_embeddings": False},
    "mt0-base": {"model_type": "mt5", "d_model": 768, "d_ff": 2048, "d_kv": 64, "num_layers": 12, "num_heads": 12,
                 "feed_forward_proj": "gated-gelu", "vocab_size": 250_112, "tie_word_embeddings": False},
    "bloomz-7b1": {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250_880},
    "opt-2.7b": {"model_type": "opt", "hidden_size": 2560, "ffn_dim": 10_240, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "word_embed_proj_dim": 2560, "vocab_size": 50_272,
                 "max_position_embeddings": 2048},
    "Qwen2.5-7B-Instruct": {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18_944,
                            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
                            "vocab_size": 152_064, "max_position_embeddings": 32_768, "tie_word_embeddings": False},
    "vicuna-7b-v1.5": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11_008,
                       "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32_000,
                       "max_position_embeddings": 4096, "tie_word_embeddings": False},
    "Yi-6B-Chat": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 64_000,
                   "max_position_embeddings": 4096, "tie_word_embeddings": False},
    "SmolLM2-360M-Instruct": {"model_type": "llama", "hidden_size": 960, "intermediate_size": 2560,
                              "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5,
                              "vocab_size": 49_152, "max_position_embeddings": 8192, "tie_word_embeddings": True},
    "Florence-2-large": {"model_type": "bart", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12,
                         "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_attention_heads": 16,
                         "decoder_attention_heads": 16, "vocab_size": 51_328, "is_encoder_decoder": True},
    "gemma-2-2b": {"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                   "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256_000},
    "gemma-3-270m": {"model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048,
                     "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
                     "vocab_size": 262_144, "max_position_embeddings": 32_768},
}  # fmt: skip
# Millions of parameters that are published: of a part, and of all that trains in the last stage. The Q-Former's,
# without what reads text, are BLIP-2's 107 with the projection to OPT-2.7B (arXiv 2301.12597, table 2); mBLIP trains
# 124 in all. Without weights transformers takes mT5's output map for its embedding.
SIZES: dict[str, dict[str, float]] = {
    "mblip": {"encoder": 1012, "language_model": 3743 - 250_112 * 2048e-6, "trains": 124},
    "bloomz": {"language_model": 7069, "trains": 124},
    "mt0": {"language_model": 582 - 250_112 * 768e-6},
    "blip2_stage2": {"language_model": 2652, "bridge": 107, "trains": 107},
    "centurio": {"encoder": 428, "language_model": 7616, "bridge": 2304 * 3584e-6 + 3584**2 * 1e-6},
    "llava15": {"language_model": 6738, "bridge": 21},
    "nanovlm": {"language_model": 362, "encoder": 93},
    "yi_vl": {"encoder": 632, "language_model": 6061, "trains": 632 + 22},
    "pictures": {"language_model": 268.098176, "encoder": 4.65},
}


def without_weights(folder: Path, config: dict[str, Any]) -> Path:
    """A folder in hub layout with a configuration and some tokenizer, and no weights."""
    folder.mkdir(exist_ok=True)
    marks = ("<pad>", "</s>", "<unk>")
    words = {word: number for number, word in enumerate((*marks, *map(str, range(config["vocab_size"] // 2))))}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": [], **config}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_papers(name: str, tmp_path: Path) -> None:
    published = load_recipe(f"vlm/{name}")
    assert isinstance(published.model, VisionLanguageSpec) and published.model.language_model.kind == "hf"
    config = CONFIGS[published.model.language_model.name.rpartition("/")[2]]
    folder = without_weights(tmp_path, config)
    recipe = load_recipe(f"vlm/{name}", [f"model.language_model.name={folder}"])
    model = as_module(build_meta(recipe.model))
    set_trainable(model, recipe.stages[-1].trainable)
    report = trainable_report(model)
    found = {row.part: row.parameters / 1e6 for row in report.rows} | {"trains": report.trainable / 1e6}
    assert {part: found[part] for part in SIZES[name]} == pytest.approx(SIZES[name], rel=0.02)


def test_florenz_is_as_large_as_its_name_says(tmp_path: Path) -> None:
    sides = {"encoder": "Florence-2-large", "decoder": "gemma-2-2b"}
    folders = {side: without_weights(tmp_path / side, CONFIGS[name]) for side, name in sides.items()}
    named = [f"model.language_model.{side}.name={folder}" for side, folder in folders.items()]
    model = as_module(build_meta(load_recipe("vlm/florenz", named).model))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(3.5e9, rel=0.05)
