"""The rule of the seams finds every way to ask what a model is, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
MODEL = """
class Painter(nn.Module):
    def __init__(self, canvas: nn.Module, brush: Brush | nn.Module, *, size: int) -> None: ...
"""


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_seams", ROOT / "tools" / "check_seams.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(check: ModuleType, root: Path, code: str, *, package: str = "training") -> list[str]:
    (root / "vlkit" / "models" / "painter").mkdir(parents=True, exist_ok=True)
    (root / "vlkit" / "models" / "painter" / "model.py").write_text(MODEL)
    (root / "vlkit" / package).mkdir(exist_ok=True)
    (root / "vlkit" / package / "a.py").write_text(code)
    problems: list[str] = check.problems(root)
    return problems


def test_the_package_itself_is_clean(check: ModuleType) -> None:
    assert check.problems(ROOT) == []
    classes, parts = check.kinds(ROOT)
    kinds = {
        "DiffusionBridge": "diffusion_bridge",
        "DualEncoder": "dual_encoder",
        "ImageTextToText": "image_text_to_text",
        "ImageTokenizerModel": "image_tokenizer",
        "TextToImageModel": "text_to_image",
        "QueryFormer": "query_former",
        "VisionLanguageModel": "vision_language",
    }  # fmt: skip
    assert classes == {name: f"vlkit.models.{folder}" for name, folder in kinds.items()}
    assert {"image", "text", "image_head", "text_head", "decoder", "encoder", "bridge", "language_model"} <= parts


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from vlkit.models.painter.model import Painter", "vlkit.models.painter.model is one kind of model's"),
        ("isinstance(model, Painter)", "isinstance of Painter asks what kind a model is"),
        ("isinstance(model, Other | models.Painter)", "isinstance of Painter asks what kind a model is"),
        ("model.canvas", "model.canvas names a part"),
        ("self.model.brush.width", "self.model.brush names a part"),
        ("model.get_submodule('brush')", "model.get_submodule('brush') names a part"),
        ("getattr(model, 'canvas')", "getattr(model, 'canvas') names a part"),
        ("model.parts()['canvas']", "model.parts()['canvas'] names a part"),
    ],
)
@pytest.mark.parametrize("package", ["training", "evaluation", "cli"])
def test_what_is_refused(check: ModuleType, tmp_path: Path, code: str, message: str, package: str) -> None:
    (problem,) = found(check, tmp_path, f"\n{code}\n", package=package)
    assert problem.startswith(f"vlkit/{package}/a.py:2: {message}")


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(model, ImageTextModel)",
        "model.parts()[name]",
        "sample.canvas",
        "row['canvas']",
        "from vlkit.models.registry import build",
    ],
)
def test_what_is_allowed(check: ModuleType, tmp_path: Path, code: str) -> None:
    assert found(check, tmp_path, code) == []


def test_others_may_know_their_kind(check: ModuleType, tmp_path: Path) -> None:
    assert found(check, tmp_path, "isinstance(model, Painter)", package="objectives") == []


def test_it_is_part_of_make_lint() -> None:
    assert "python tools/check_seams.py" in (ROOT / "Makefile").read_text(encoding="utf-8")
