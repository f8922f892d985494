"""Each task says what it needs of a model; a model that cannot do it is told what it can do, before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.tasks.test_captioning import suite
from tests.helpers.answering_fakes import ColorTeller
from tests.helpers.evaluate_fakes import CountingModel, sample
from vlkit.errors import VlkitError
from vlkit.evaluation.abilities import ANSWERS, ANYTHING, EMBEDS, require
from vlkit.evaluation.run import evaluate
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask


def test_who_can_do_what() -> None:
    model, teller = CountingModel(), ColorTeller()
    assert EMBEDS.of(model) and not ANSWERS.of(model) and ANYTHING.of(model)
    assert ANSWERS.of(teller) and not EMBEDS.of(teller) and ANYTHING.of(teller)
    assert EMBEDS.key(model) == EMBEDS.key(CountingModel()) != EMBEDS.key(CountingModel(seed=1))
    assert ANYTHING.key(teller) != ANYTHING.key(model)


def test_a_model_that_cannot_is_told_what_it_can(tmp_path: Path) -> None:
    with pytest.raises(VlkitError) as caught:
        evaluate(CountingModel(), suite(tmp_path), folder=tmp_path / "out", quiet=True)
    assert str(caught.value) == (
        "a CountingModel does not answer questions about images, as task 'say' needs (it has no image_features, "
        "answer, log_likelihoods); it can embed images and texts: evaluate it on tasks of kind zero_shot or retrieval"
    )

    assert not (tmp_path / "out").exists()
    with pytest.raises(VlkitError) as caught:
        require(ColorTeller(), EMBEDS, of="this")
    assert str(caught.value) == (
        "a ColorTeller does not embed images and texts, as this needs (it has no transform, encode_image, tokenize, "
        "encode_text); it can answer questions about images: evaluate it on tasks of kind captioning, choices, "
        "presence or questions"
    )
    pets = ZeroShotTask("pets", [sample(1, en="cat"), sample(2, en="dog")], {"en": [("cat",), ("dog",)]})
    with pytest.raises(VlkitError, match="a ColorTeller does not embed images and texts, as this task needs"):
        score_task(ColorTeller(), pets)  # type: ignore[arg-type]
    with pytest.raises(VlkitError, match=r"as this needs \(it has no .*\); evaluate it on tasks of its own kind$"):
        require(object(), ANSWERS, of="this")
