"""Settings of the sampler: both conventions of guidance, and every wrong value told in words."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from vlkit.errors import SpecError
from vlkit.nn.code_masks import SCHEDULES
from vlkit.spec.load import resolve_spec
from vlkit.spec.text_to_image import SamplingSpec, Schedule


def told(tmp_path: Path, *overrides: str) -> str:
    (tmp_path / "sampling.yaml").write_text("steps: 20\n", encoding="utf-8")
    with pytest.raises(SpecError) as error:
        resolve_spec(SamplingSpec, tmp_path / "sampling.yaml", overrides)
    (problem,) = error.value.problems
    return problem.partition("\n")[2].strip()


def test_guidance_is_a_scale_or_a_weight() -> None:
    assert SamplingSpec(guidance=6.0).guidance_scale == 6.0
    assert SamplingSpec(guidance=5.0, guidance_as="weight").guidance_scale == 6.0
    assert SamplingSpec(guidance=0.0, guidance_as="weight").guidance_scale == 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("steps=0", "should be an int >= 1"),
        ("schedule=cosin", "should be one of cosine, linear, pow, sigmoid, arccos; did you mean 'cosine'?"),
        ("power=0", "should be a number > 0"),
        ("temperature=-0.5", "should be a number >= 0"),
        ("top_k=0", "should be an int >= 1, or null"),
        ("top_p=0", "should be a number > 0 and <= 1"),
        ("confidence=maskgit", "should be one of linear, compounding, linspace"),
        ("noise=-1", "should be a number >= 0"),
        ("guidance=-1", "should be a number >= 0"),
        ("guidance_as=w", "should be one of scale, weight"),
        ("guidance_interval=[0,2]", "should be a number >= 0 and <= 1"),
        ("guidance_interval=[0.6,0.2]", "guidance_interval: [0.6, 0.2] holds no step; its first number is the smaller"),
        ("seed=-1", "should be an int >= 0 and < 9223372036854775808"),
    ],
)
def test_wrong_values_are_told(tmp_path: Path, wrong: str, words: str) -> None:
    assert told(tmp_path, wrong) == words


def test_schedules_of_the_spec_are_those_that_there_are() -> None:
    assert set(get_args(Schedule)) == set(SCHEDULES)
