"""The place of a process in a job, as the environment tells it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from vlkit.cli.app import app
from vlkit.distributed.launch import Launch, launched
from vlkit.errors import VlkitError

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
JOB = {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Launch()),
        ({"WORLD_SIZE": ""}, Launch()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, Launch()),
        ({"RANK": "3", "LOCAL_RANK": "1"}, Launch()),  # left over from another job
        ({"WORLD_SIZE": "1", "RANK": "3"}, Launch()),
        (JOB, Launch(3, 4, 3, 4)),
        ({**JOB, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Launch(3, 4, 1, 2)),
    ],
)
def test_a_place_is_read(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: Launch) -> None:
    given(monkeypatch, variables)
    assert launched() == place
    assert launched().leads == (place.rank == 0)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2"}, "the environment has WORLD_SIZE=2 and no RANK and no MASTER_ADDR and no MASTER_PORT, "),
        ({**JOB, "MASTER_PORT": ""}, "the environment has WORLD_SIZE=4 and no MASTER_PORT, without which"),
        ({"WORLD_SIZE": "two"}, "the environment has WORLD_SIZE=two; it must be a whole number, 1 or more: start with"),
        ({"WORLD_SIZE": "0"}, "the environment has WORLD_SIZE=0; it must be a whole number, 1 or more"),
        ({"WORLD_SIZE": "-2"}, "the environment has WORLD_SIZE=-2; it must be a whole number, 1 or more"),
        ({**JOB, "RANK": "4"}, "the environment has RANK=4; it must be a whole number, 0 to 3"),
        ({**JOB, "RANK": "first"}, "the environment has RANK=first; it must be a whole number, 0 to 3"),
        ({**JOB, "LOCAL_RANK": "x"}, "the environment has LOCAL_RANK=x; it must be a whole number, 0 or more"),
        (
            {**JOB, "MASTER_PORT": "70000"},
            "the environment has MASTER_PORT=70000; it must be a whole number, 1 to 65535",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    given(monkeypatch, variables)
    with pytest.raises(VlkitError) as caught:
        launched()
    assert str(caught.value).startswith(said)
    for command in (
        ["train", "contrastive/tiny"],
        ["train", "contrastive/tiny", "--dry-run"],
        ["eval", "tiny", "openmoji"],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2 and result.stderr.startswith(f"error: {said}"), result.output


def test_one_process_needs_no_more_than_to_be_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"RANK": "1"})
    result = CliRunner().invoke(app, ["train", "contrastive/tiny", "--dry-run"])
    assert result.exit_code == 0 and "1 process, " in result.stdout
