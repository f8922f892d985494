"""A pushed model: loads back by its name, only what belongs to it goes, and licenses are asked about before."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from tests.helpers import encoder_factory as factory
from vlkit.adapt.inject import add_lora
from vlkit.cli.app import app
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import load, save
from vlkit.models.push import license_questions, push_to_hub
from vlkit.models.registry import build
from vlkit.parts.assets import hub
from vlkit.spec.adapt import LoRA
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.parts import HfText, TinyImage

RUNNER = CliRunner()


class Hub:
    """A hub whose repositories lie in its client's own cache, as if they had been fetched."""

    calls: list[tuple[str, dict[str, Any]]]
    refusal: Exception | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, []

    def __call__(self, *, endpoint: str) -> Hub:
        self.endpoint = endpoint
        return self

    def create_repo(self, repo: str, **given: Any) -> None:
        self.calls.append((f"create {repo}", given))
        if self.refusal is not None:
            raise self.refusal

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **given: Any) -> Any:
        self.calls.append((f"upload {repo_id}", given))
        place = self.folder / f"models--{repo_id.replace('/', '--')}"
        for file in Path(folder_path).rglob("*"):
            name = file.relative_to(folder_path)
            if file.is_file() and any(fnmatch(str(name), pattern) for pattern in allow_patterns):
                (place / "snapshots/abcdef0123456789" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place / "snapshots/abcdef0123456789" / name)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs/main").write_text("abcdef0123456789")
        return SimpleNamespace(oid="abcdef0123456789")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "unreachable", lambda address: "no route")  # so that loading looks into the cache alone
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", made)
    return made


def test_a_pushed_model_loads_back_by_its_name(model: DualEncoder, there: Hub, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "model")
    (folder / "optimizer.pt").touch()
    (folder / ".cache").mkdir()
    ran = RUNNER.invoke(app, ["push", str(folder), "org/mine", "-m", "First"])
    assert ran.exit_code == 0, ran.output
    assert "is at http://127.0.0.1:9/org/mine (commit abcdef012345)" in ran.stdout
    assert there.endpoint == "http://127.0.0.1:9"
    assert there.calls[0] == ("create org/mine", {"private": True, "exist_ok": True})
    assert there.calls[1] == ("upload org/mine", {"commit_message": "First", "revision": None})
    (snapshot,) = (tmp_path / "hub/models--org--mine/snapshots").iterdir()
    assert not (snapshot / "optimizer.pt").exists()
    again: DualEncoder = load("hf:org/mine")
    tokens = model.tokenize(["a cat"])
    with torch.no_grad():
        assert torch.equal(model.encode_text(tokens), again.encode_text(tokens))


def test_a_model_in_memory_is_pushed_and_may_be_public(model: DualEncoder, there: Hub) -> None:
    pushed = push_to_hub(model, "org/mine", private=False)
    assert pushed.url == "http://127.0.0.1:9/org/mine" and there.calls[0][1]["private"] is False
    assert load("hf:org/mine").spec == model.spec


def with_text(folder: Path, name: str = "") -> Path:
    """A model folder whose text encoder is a library's, or is called as one of the table of weights."""
    text = str(factory.bert(folder / "text"))
    made = save(build(DualEncoderSpec(image=TinyImage(image_size=16), text=HfText(name=text))), folder / "model")
    if name:
        spec = (made / "spec.yaml").read_text(encoding="utf-8")
        assert text in spec
        (made / "spec.yaml").write_text(spec.replace(text, name), encoding="utf-8")
    return made


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("", r"model\.text = hf:.*/text: its license is not known here; see the model's own page"),
        ("google/gemma-3-270m", r"\(Gemma Terms of Use\): Gemma is provided under and subject to"),
    ],
)
def test_licenses_are_asked_about_before_anything_is_sent(name: str, question: str, there: Hub, tmp_path: Path) -> None:
    folder = with_text(tmp_path, name)
    with pytest.raises(VlkitError, match=rf"^not pushed(.|\n)*{question}.*\nwhere you may .* --yes"):
        push_to_hub(folder, "org/mine")
    assert there.calls == []
    assert RUNNER.invoke(app, ["push", str(folder), "org/mine", "--yes"]).exit_code == 0


def test_parts_that_may_be_passed_on_are_no_question(tmp_path: Path) -> None:
    assert license_questions(with_text(tmp_path, "intfloat/multilingual-e5-small")) == []


def test_cards_of_other_formats_are_read_for_licenses(tmp_path: Path) -> None:
    card = "---\nlibrary_name: onnx\n---\n| part | license |\n| text | {} |\n"
    (tmp_path / "onnx_config.json").write_text("{}")
    for said, count in (("MIT. A part.", 0), ("Gemma Terms of Use. Gemma 3.", 1), ("see the model's own page", 1)):
        (tmp_path / "README.md").write_text(card.format(said), encoding="utf-8")
        assert len(license_questions(tmp_path)) == count


def test_what_nobody_could_load_is_not_pushed(model: DualEncoder, there: Hub, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "model")
    for wrong in ("mine", "a/b/c", "../x"):
        with pytest.raises(VlkitError, match="is no name on the hub; it reads ORG/NAME"):
            push_to_hub(folder, wrong)
    with pytest.raises(VlkitError, match="is no model folder"):
        push_to_hub(tmp_path, "org/mine")
    based: DualEncoder = load(folder)
    add_lora(based.text, LoRA(rank=2))
    with pytest.raises(VlkitError, match=r"holds adapters alone, .* vlkit merge .*/adapters --out merged"):
        push_to_hub(save(based, tmp_path / "adapters", adapters_only=True), "org/mine")
    for card, message in (("# Mine\n", "does not begin with"), ("---\na: [\n---\n", "is no YAML")):
        (folder / "README.md").write_text(card, encoding="utf-8")
        with pytest.raises(VlkitError, match=message):
            push_to_hub(folder, "org/mine")
    (folder / "README.md").unlink()
    with pytest.raises(VlkitError, match="has no model card"):
        push_to_hub(folder, "org/mine")
    assert there.calls == []


def test_what_the_hub_says_is_told(
    model: DualEncoder, there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(model, tmp_path / "model")
    there.refusal = RuntimeError("Invalid user token.\nmore")
    with pytest.raises(VlkitError, match=r"did not take org/mine: RuntimeError: Invalid user token\.; log in with: hf"):
        push_to_hub(folder, "org/mine")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VlkitError, match="nothing was pushed: HF_HUB_OFFLINE=1 is set"):
        push_to_hub(folder, "org/mine")
