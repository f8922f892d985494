"""Text-to-image recipes: sizes of published models, ids of published tables, and twins that train in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.train_factory import drawings, figures
from tests.laws.test_law_vlm_recipes import CONFIGS, without_weights
from vlkit.errors import VlkitError
from vlkit.models.registry import build_meta
from vlkit.models.text_to_image.code_ids import NEOBABEL, SHOW_O, CodeIds
from vlkit.spec.load import load_recipe
from vlkit.training.loop import train
from vlkit.types import as_module


def test_neobabel_is_as_large_as_published(tmp_path: Path) -> None:
    folder = without_weights(tmp_path, CONFIGS["gemma-2-2b"])
    made = load_recipe("t2i/neobabel", [f"model.language_model.name={folder}", "model.tokenizer.weights=null"])
    model: Any = build_meta(made.model)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in as_module(model).named_children()}
    assert counts["language_model"] + counts["head"] == pytest.approx(264_203 * 2304 + 2.024e9, rel=0.005)
    assert (model.num_codes, model.codebook_size, model.layout.max_length) == (256, 8192, 512)
    last = load_recipe("t2i/neobabel_512")
    assert [stage.steps for stage in (*made.stages, *last.stages)] == [500_000] * 4 + [200_000]
    stage = last.stages[-1]
    assert stage.objectives is not None and stage.objectives[0].least_share == 0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(("ids", "rows", "first"), [(SHOW_O, 58_498, 50_305), (NEOBABEL, 264_203, 256_010)])
def test_ids_are_those_of_published_tables(ids: CodeIds, rows: int, first: int) -> None:
    assert (ids.rows, ids.first, ids.mask) == (rows, first, rows - 1)
    assert ids.code_of(ids.id_of(8191)) == 8191 and ids.code_of(ids.mask) == 8192 and ids.code_of(first - 1) is None


def test_a_padded_table_of_words_does_not_collide() -> None:
    qwen = CodeIds(words=151_936, marks=0, codes=16)  # its tokenizer has 151,669
    assert qwen.id_of(0) == 151_936 and qwen.code_of(151_935) is None
    for wrong in (-1, 17):
        with pytest.raises(VlkitError, match=r"does not exist; there are 0\.\.15"):
            qwen.id_of(wrong)
    with pytest.raises(VlkitError, match="no row of a table"):
        qwen.code_of(qwen.rows)


WAYS = {
    "tiny_neobabel": ("t2i/tiny_neobabel", []),
    "lora": ("t2i/tiny", [
        "model.body={kind: language_model}", "model.adapters={language_model: {kind: lora, targets: all}}",
        "stages.0.trainable=[head, language_model_adapter]",
    ]),
    "frozen": ("t2i/tiny", [
        "model.body={kind: language_model, text: frozen}",
        "model.adapters={language_model: {kind: lora, targets: all}}",
        "stages.0.trainable=[head, language_model_adapter]",
    ]),
    "own_layers": ("t2i/tiny", ["model.body={kind: own_layers}"]),
    "qwen": ("t2i/tiny", ["model.language_model.architecture=qwen3", "loop.micro_batch=3"]),
    "bfloat16": ("t2i/tiny", ["model.language_model.dtype=bfloat16", "loop.precision=bf16"]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_twins_learn(way: str, tmp_path: Path) -> None:
    name, more = WAYS[way]
    table = drawings(tmp_path / "data", 16)
    overrides = [
        f"data.sources=[{{kind: folder, path: {table}}}]", "data.holdout_concepts=0", "data.languages=null",
        "loop.batch_size=8", "loop.log_every=1", "optim.lr=1e-2", f"run.folder={tmp_path / 'run'}",
    ]  # fmt: skip
    run = train(load_recipe(name, [*overrides, *more]))
    lines = figures(run)
    first, last = (torch.tensor([line["codes"] for line in part]).mean() for part in (lines[:5], lines[-5:]))
    assert float(last) < float(first) - 0.05
    assert len(run.model().generate("x", steps=2)) == 1  # type: ignore[attr-defined]
