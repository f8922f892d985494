"""What training of a text-to-image model measures: hidden codes of images kept back, and previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.helpers.painters import painter
from tests.helpers.train_factory import drawings, figures
from vlkit.errors import VlkitError
from vlkit.models.folder import load
from vlkit.nn.code_masks import first_of
from vlkit.spec.load import load_recipe
from vlkit.training.loop import train
from vlkit.training.watchers import EVALUATORS
from vlkit.types import ForetellsCodes


def made(folder: Path, *more: str) -> Any:
    table = drawings(folder / "data", 24)
    return load_recipe(
        "t2i/tiny",
        [
            f"data.sources=[{{kind: folder, path: {table}}}]", "data.languages=null", "data.holdout_concepts=4",
            "stages.0.steps=4", "loop.batch_size=8", "loop.log_every=2", f"run.folder={folder / 'run'}",
            "validation={kind: held_back_codes, every: 2, previews: 2}", *more,
        ],
    )  # fmt: skip


def test_losses_are_those_of_hidden_codes(tmp_path: Path) -> None:
    model = painter()
    assert isinstance(model, ForetellsCodes)
    images = [Image.effect_noise((16, 16), 60 + number).convert("RGB") for number in range(3)]
    found = model.code_losses(images, ["a", "b", "c"], language="en", share=0.5, batch_size=2)
    order = torch.rand((3, 16), generator=torch.Generator().manual_seed(0))
    masked = first_of(order, torch.full((3,), 8))
    codes = model.codes_of(torch.stack([model.transform(image) for image in images]))
    layout = model.layout
    for row, text in enumerate("abc"):
        read = layout.batch([layout.laid(text, language="en").ids])
        with torch.no_grad():
            logits = model.logits(model(read, codes[row : row + 1].masked_fill(masked[row], 45)))[0][masked[row]]
        torch.testing.assert_close(found[row, 0], functional.cross_entropy(logits, codes[row][masked[row]]))
        assert found[row, 1] == (logits.argmax(dim=1) == codes[row][masked[row]]).float().mean()


def test_a_run_tells_them_by_language_and_shows_previews(tmp_path: Path) -> None:
    run = train(made(tmp_path))
    told = [line["validation"] for line in run.metrics() if "validation" in line]
    assert len(told) == 2 and told[0]["loss"].keys() == {"de", "en", "fr"}
    assert told[1]["mean_loss"] == pytest.approx(sum(told[1]["loss"].values()) / 3)
    assert {"mean_accuracy", "accuracy_30_hidden", "accuracy_60_hidden", "accuracy_90_hidden"} <= told[0].keys()
    shown = sorted((run.path / "previews").iterdir())
    assert [path.name for path in shown] == ["step-2.png", "step-4.png"]
    assert Image.open(shown[0]).size == (2 * 128 + 4, 2 * 128 + 4)
    again = EVALUATORS.get_object("held_back_codes")(run.recipe())(load(run.model_path))
    assert again["mean_loss"] == pytest.approx(told[1]["mean_loss"], abs=1e-5)


def test_it_changes_no_figure_of_the_training(tmp_path: Path) -> None:
    with_it = figures(train(made(tmp_path / "with")))
    without = figures(train(made(tmp_path / "without", "validation=null")))
    assert [line for line in with_it if "validation" not in line] == without


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlkitError, match="keeps back, and that is 0"):
        train(made(tmp_path, "data.holdout_concepts=0"))
    with pytest.raises(VlkitError, match="foretell codes of images"):
        EVALUATORS.get_object("held_back_codes")(made(tmp_path))(load("tiny"))
