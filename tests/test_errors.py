"""Errors name what was asked for, what is near it, and where to look."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlkit import errors
from vlkit.errors import MissingPackage, SpecError, UnknownName, VlkitError, did_you_mean, nearest

MANY = [f"entry-{number:02d}-{'x' * 20}" for number in range(13)]


@pytest.mark.parametrize(
    ("name", "allowed", "hint", "text"),
    [
        ("imag", ["image", "text"], "", "no part 'imag'; did you mean 'image'?"),
        ("imag", ["image", "text"], "See the docs.", "no part 'imag'; did you mean 'image'? See the docs."),
        ("llm", ["text", "image"], "", "no part 'llm'; there are: image, text"),
        ("llm", ["text", "image"], "See the docs.", "no part 'llm'; there are: image, text. See the docs."),
        ("llm", ["text", "image"], "(see: docs)", "no part 'llm'; there are: image, text (see: docs)"),
        ("llm", [], "", "no part 'llm'"),
        ("llm", MANY, "See the docs.", "no part 'llm'. See the docs."),
        ("llm", MANY, "(see: docs)", "no part 'llm' (see: docs)"),
    ],
)
def test_unknown_names(name: str, allowed: list[str], hint: str, text: str) -> None:
    error = UnknownName("part", name, allowed=iter(allowed), hint=hint)
    assert str(error) == text
    assert (error.kind, error.name, error.allowed) == ("part", name, sorted(allowed))


def test_nearest_ignores_case_and_stops_at_three() -> None:
    assert nearest("VIT-b-32", ["ViT-B-32", "ResNet"]) == ["ViT-B-32"]
    assert len(nearest("aaaa1", ["aaaa2", "aaaa3", "aaaa4", "aaaa5"])) == 3
    assert nearest("x", []) == [] and did_you_mean("x", []) == ""
    assert did_you_mean("aab", ["aaa", "aac"]).startswith("did you mean 'aa")


@given(st.lists(st.text(min_size=1), max_size=9, unique_by=str.lower), st.data())
def test_a_name_that_exists_is_its_own_nearest(names: list[str], data: st.DataObject) -> None:
    for name in names[:1]:
        assert nearest(name, names)[0] == name
    wanted = data.draw(st.text())
    assert set(nearest(wanted, names)) <= set(names)


def test_a_name_without_end_is_cut() -> None:
    assert str(UnknownName("part", "x" * 10**6, allowed=["image"])) == f"no part '{'x' * 200}...'; there are: image"


def test_a_recipes_problems_are_counted() -> None:
    assert str(SpecError(["a"])) == "a\n1 problem; nothing was run."
    assert str(SpecError(["a", "b"])) == "a\nb\n2 problems; nothing was run."
    assert SpecError(["a", "b"]).problems == ["a", "b"]


def test_missing_packages_say_what_to_run() -> None:
    assert str(MissingPackage("emoji", purpose="the OpenMoji data set", extra="data")) == (
        "the OpenMoji data set needs the package 'emoji', which is not installed; run: "
        "pip install 'babel>=2.16' 'emoji>=2.16' 'fonttools>=4.47' 'resvg-py>=0.2'"
    )


def test_every_error_is_a_value_error_a_caller_can_catch_as_one() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__]
    assert len(kinds) > 5 and {kind for kind in kinds if not issubclass(kind, VlkitError)} == {errors.Stopped}
    assert issubclass(errors.Stopped, KeyboardInterrupt)  # which nothing that catches errors may swallow
    assert issubclass(VlkitError, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("part", "imag", allowed=["image"], hint="See the docs."),
        SpecError(["a", "b"]),
        MissingPackage("emoji", purpose="this", extra="data"),
        errors.DataError("broken"),
    ],
)
def test_errors_travel_between_processes(error: VlkitError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
