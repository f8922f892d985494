"""A pair of functions is evaluated as a model is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlkit
from tests.helpers.evaluate_fakes import CountingModel, picture
from vlkit.errors import VlkitError
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encoding import Encoding, EncodingCounts
from vlkit.evaluation.tasks.retrieval_task import RetrievalTask
from vlkit.evaluation.tasks.task_rows import evaluate_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.types import Sample

SAMPLES = [Sample(str(n), (lambda n=n: picture(n),), {"de": (f"Ding {n}",)}, split="test") for n in range(7)]
TASK = ZeroShotTask("t", SAMPLES, {tag: [(f"{tag} {n}",) for n in range(7)] for tag in ("en", "de", "sw")})


def _pair(model: CountingModel, **settings: Any) -> TwoCallables:
    model.eval()

    def images(given: list[Image.Image]) -> np.ndarray:
        return model.encode_image(torch.stack([model.transform(image) for image in given])).detach().numpy()

    def texts(given: list[str], language: str | None) -> list[list[float]]:
        return model.encode_text(model.tokenize(given, language=language)).tolist()

    return TwoCallables(images, texts, **settings)


def test_it_scores_as_the_model_it_is_made_of() -> None:
    model = CountingModel()
    found, expected = evaluate_task(_pair(model), TASK), evaluate_task(model, TASK)
    assert [asdict(row) for row in found] == [asdict(row) for row in expected]
    retrieval = [evaluate_task(one, RetrievalTask("r", SAMPLES)) for one in (_pair(model), model)]
    assert retrieval[0][0].flat() == retrieval[1][0].flat()


def test_the_language_reaches_the_function_unless_it_makes_no_difference() -> None:
    evaluate_task(_pair(model := CountingModel()), TASK)
    assert set(model.languages_seen) == {"en", "de", "sw"}
    evaluate_task(_pair(model := CountingModel(), marks_language=False), TASK)
    assert set(model.languages_seen) == {None}


def test_embeddings_are_kept_by_the_name_given(tmp_path: Path) -> None:
    for name, encoded in (("mine-1", 7), ("mine-1", 0), ("mine-2", 7)):
        counts = EncodingCounts()
        evaluate_task(_pair(CountingModel(), name=name), TASK, encoding=Encoding(cache=tmp_path, counts=counts))
        assert (counts.images, counts.texts) == (encoded, 3 * encoded)
    with pytest.raises(VlkitError, match="give it a name, or leave cache out"):
        evaluate_task(_pair(CountingModel()), TASK, encoding=Encoding(cache=tmp_path))


def test_wrong_shapes_are_told() -> None:
    short = TwoCallables(lambda images: np.zeros((1, 4)), lambda texts, language: np.ones((len(texts), 4)))
    with pytest.raises(VlkitError, match=r"images: for 7 of them .* shape \(1, 4\); expected \(7, width\)"):
        evaluate_task(short, TASK)
    flat = TwoCallables(lambda images: np.ones((len(images), 4)), lambda texts, language: np.ones(4))
    with pytest.raises(VlkitError, match=r"texts: for 7 of them .* shape \(4,\)"):
        evaluate_task(flat, TASK)


def test_it_classifies() -> None:
    model = CountingModel()
    answers = [
        vlkit.ZeroShotClassifier(one, labels=["Katze", "Hund"], language="de").classify([picture(1), picture(2)])
        for one in (_pair(model, scale=7.0), model)
    ]
    assert torch.allclose(answers[0].scores, answers[1].scores, atol=1e-6)
    assert torch.allclose(answers[0].probabilities, (7 * answers[0].scores).softmax(1))
