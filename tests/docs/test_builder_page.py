"""docs/builder.md as a reader types it: its Python from top to bottom, in one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "builder.md"


def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path("own/images")):
        place.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(("cat.jpg", "coffee.png", "rocket.jpg")):
            Image.new("RGB", (40, 30), (250 - 120 * number, 100, 120 * number)).save(place / name)
    torch.manual_seed(0)
    session: dict[str, Any] = {}
    for block in blocks(PAGE):
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, block.name, "exec"), session)
    printed = capsys.readouterr().out
    assert "4 places of 256 are taken by an image" in printed
    assert "the bridge takes tokens 48 wide, the image encoder gives 32" in printed
    assert "['bridge', 'encoder', 'language_model'] []" in printed
    assert "encoder: transformers' model has an image encoder of transformers (kind: hf)" in printed
    *_, last = printed.splitlines()
    loss, caption = last.split(" ", 1)
    assert float(loss) < 0.1 and caption == "paka"  # the modules of the reader's own have learned it
    assert session["own"].caption("rocket.jpg", language="de", max_tokens=16).startswith("eine Rakete")
