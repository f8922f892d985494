"""ONNX graphs: run without torch, they give what the model gives, in batches of any size and texts of any length."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import encoder_factory as factory
from vlkit.adapt.inject import adapter_of, add_adapter
from vlkit.errors import MissingPackage, VlkitError
from vlkit.models import export_folder
from vlkit.models.dual_encoder.export import to_onnx
from vlkit.models.dual_encoder.export.formats import ONNX_TOLERANCE, export
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load
from vlkit.models.registry import build
from vlkit.spec.adapt import LoRA
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HfText, LinearHeadSpec, MlpHeadSpec, TimmImage
from vlkit.types import TextBatch

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TEXTS = ["a cat", "ein sehr großer Hund " * 4, "猫"]


def joined(folder: Path) -> DualEncoder:
    """A timm and a transformers encoder with heads that no other format takes, a prefix and an adapter."""
    spec = DualEncoderSpec(
        image=TimmImage(name="test_vit", pretrained=False),
        text=HfText(name=str(factory.bert(folder / "text")), prefix="query: "),
        embed_dim=12,
        image_head=MlpHeadSpec(hidden=8),
        text_head=LinearHeadSpec(bias=True, center=True),
        init_bias=-10.0,
    )
    model = build(spec)
    assert isinstance(model, DualEncoder)
    add_adapter(model.text, LoRA(rank=2))
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    model.text_head.fit_mean(torch.randn(50, model.text.width) + 0.5)
    return model.eval()


MODELS: dict[str, Callable[[Path], DualEncoder]] = {
    "joined": joined,
    "transformers": lambda path: load(factory.clip(path / "hf")),
    "open_clip": lambda path: load(factory.open_clip_folder(path / "oc")),
}


def given(folder: Path, side: str, **inputs: torch.Tensor) -> torch.Tensor:
    """What the graph of a side gives."""
    session = onnxruntime.InferenceSession(folder / f"{side}.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run([f"{side}_embedding"], {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(found)


@pytest.mark.parametrize("kind", MODELS)
def test_graphs_give_what_the_model_gives(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[kind](tmp_path)
    exported = export(model, tmp_path / "out", format="onnx")
    assert max(exported.differences) <= exported.tolerance == ONNX_TOLERANCE
    assert {path.name for path in (tmp_path / "out").iterdir()} <= set(export_folder._FILES)
    assert kind != "joined" or any(adapter_of(part) is not None for part in model.modules())  # it is left as it was
    settings = json.loads((tmp_path / "out" / to_onnx.CONFIG).read_text(encoding="utf-8"))
    for count in (1, 3, 4):
        pixels_BCHW = torch.stack([model.transform(factory.random_image(seed)) for seed in range(count)])
        texts = [*TEXTS, "a"][:count]
        tokens = model.tokenize(texts, language="en")
        with torch.no_grad():
            wanted = model.encode_image(pixels_BCHW), model.encode_text(tokens)
        found = (
            given(tmp_path / "out", "image", pixels=pixels_BCHW),
            given(tmp_path / "out", "text", ids=tokens.ids_BL, mask=tokens.mask_BL),
        )
        for one, two in zip(wanted, found, strict=True):
            torch.testing.assert_close(one, two, atol=ONNX_TOLERANCE, rtol=0)
    assert float((found[1][0] - found[1][1]).abs().max()) > 100 * ONNX_TOLERANCE  # the rows differ at all
    assert settings["scale"] == pytest.approx(float(model.scale.detach()))
    assert list(settings["image"]["inputs"]["pixels"][1:]) == list(pixels_BCHW.shape[1:])
    assert settings["image"]["preprocessing"] == json.loads(json.dumps(model.transform.settings, default=str))
    assert (settings["text"]["tokenizer"] is None) == bool(exported.notes) == (kind == "open_clip")
    if kind != "open_clip":
        monkeypatch.chdir(tmp_path / "out")
        values: dict[str, Any] = {}
        exec(to_onnx.USAGE, values)  # as the card shows it
        with torch.no_grad():
            two_BE = model.encode_text(model.tokenize(["a cat", "ein Hund"], language="en"))
        torch.testing.assert_close(torch.from_numpy(values["text_BE"]), two_BE, atol=ONNX_TOLERANCE, rtol=0)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "library_name: onnx" in card and to_onnx.USAGE in card and "license and source" in card


def test_graphs_say_what_goes_in_and_how_they_were_made(model: DualEncoder, tmp_path: Path) -> None:
    import onnx

    export(model, tmp_path / "out", format="onnx")
    graph = onnx.load(tmp_path / "out" / "text.onnx")
    assert [(one.name, bool(one.doc_string)) for one in graph.graph.input] == [("ids", True), ("mask", True)]
    axes = [[axis.dim_param for axis in one.type.tensor_type.shape.dim] for one in graph.graph.input]
    assert axes == [["batch", "length"]] * 2
    assert [one.version for one in graph.opset_import if not one.domain] == [to_onnx.OPSET]
    assert {one.key for one in graph.metadata_props} >= {"vlkit", "settings", "card"}


def test_a_graph_that_gives_something_else_is_not_kept(
    model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = DualEncoder.encode_text
    monkeypatch.setattr(
        to_onnx._TextSide, "forward", lambda side, ids, mask: encode(side.model, TextBatch(ids, mask)) + 1e-3
    )
    with pytest.raises(VlkitError, match=r"^onnx gives other embeddings .*differences: ids 0\.001; allowed: 0\.0001"):
        export(model, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(MissingPackage, match="export to ONNX needs the package 'onnxruntime'"):
        export(model, tmp_path / "out", format="onnx")
