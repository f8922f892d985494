"""The size budget finds what is too large, and its list of exceptions can only shrink."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_size", ROOT / "tools" / "check_size.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A function, a constructor and a file, each exactly at its limit."""
    for folder in ("vlkit", "tests", "tools"):
        (tmp_path / folder).mkdir()
    write(tmp_path, function=60, parameters=11, lines=400)
    return tmp_path


def write(root: Path, *, function: int, parameters: int, lines: int) -> None:
    named = ", ".join(f"a{number}" for number in range(parameters))
    head = f"class C:\n    def __init__(self, {named}): ...\n    @property\n    def f(self):\n"
    text = head + "        1\n" * (function - 1)
    (root / "vlkit" / "a.py").write_text(text)
    (root / "vlkit" / "b.py").write_text("1\n" * lines)


def run(check: ModuleType, root: Path, capsys: pytest.CaptureFixture[str], listed: str = "") -> tuple[int, list[str]]:
    (root / "tools" / "size_allow.txt").write_text(listed)
    return check.main(root), capsys.readouterr().out.splitlines()


def test_at_the_limit_is_within_it(check: ModuleType, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(check, house, capsys) == (0, ["sizes are within the budget, 0 exceptions"])


def test_one_more_is_too_much(check: ModuleType, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(house, function=61, parameters=12, lines=401)
    (house / "tests" / "test_a.py").write_text("1\n" * 601)
    assert run(check, house, capsys) == (
        1,
        [
            "tests/test_a.py: this file has 601 lines, the limit is 600; split it",
            "vlkit/a.py:C.__init__: this constructor has 12 parameters, the limit is 11; split it",
            "vlkit/a.py:C.f: this function has 61 lines, the limit is 60; split it",
            "vlkit/b.py: this file has 401 lines, the limit is 400; split it",
        ],
    )


def test_the_list_holds_exact_sizes(check: ModuleType, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(house, function=70, parameters=11, lines=400)
    for size, answer in [
        (70, (0, ["sizes are within the budget, 1 exceptions"])),
        (
            69,
            (1, ["vlkit/a.py:C.f: this function grew from 69 to 70 lines; tools/size_allow.txt only shrinks"]),
        ),
        (
            71,
            (1, ["vlkit/a.py:C.f: this function shrank to 70 lines; write 70 into tools/size_allow.txt"]),
        ),
    ]:
        assert run(check, house, capsys, f"function vlkit/a.py:C.f {size}  # why\n") == answer


def test_stale_and_broken_entries_are_errors(
    check: ModuleType, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for listed, text in [
        (
            "function vlkit/a.py:C.f 70",
            "vlkit/a.py:C.f: this function keeps its limit or is gone; take it out of tools/size_allow.txt",
        ),
        (
            "# x\nfunc a 1",
            "tools/size_allow.txt:2: write 'file|function|constructor PLACE SIZE', not 'func a 1'",
        ),
        ("file a 1\nfile a 2", "tools/size_allow.txt:2: file a is written twice"),
    ]:
        assert run(check, house, capsys, listed) == (1, [text])


def test_functions_inside_functions_count(check: ModuleType, house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "".join(f"        x{number} = 1\n" for number in range(60))
    (house / "vlkit" / "a.py").write_text(f"if True:\n  def f():\n    async def g():\n{body}")
    assert run(check, house, capsys)[1] == [
        "vlkit/a.py:f.g: this function has 61 lines, the limit is 60; split it",
        "vlkit/a.py:f: this function has 62 lines, the limit is 60; split it",
    ]


def test_this_repository_keeps_its_budget(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert check.main(ROOT) == 0
