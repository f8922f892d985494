"""README and docs as a reader pastes them: their blocks of code, what each needs, and the commands in it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = frozenset(("set-up", "extras", "quickstart", "parts", "hub", "data", "GPUs", "minutes", "names"))
"""What a block may need that a test has not: an installation, optional packages, the model of ``make quickstart``,
pretrained parts, the hub, data of the reader's, several GPUs, minutes, or names in place of MODEL and RECIPE."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<word>needs|file): (?P<what>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: ``needs`` is what a test has not, ``file`` where a reader saves it."""

    page: Path
    line: int
    language: str
    text: str
    needs: frozenset[str] = frozenset()
    file: str = ""

    @property
    def name(self) -> str:
        """Page and line, for the names of tests."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command with the output that is shown for it, "" for none."""
        text = self.text.replace("\\\n", " ")
        if self.language == "bash":
            return [(line, "") for line in text.splitlines() if line.strip()]
        pieces = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
        return [(command, output) for command, _, output in (piece.partition("\n") for piece in pieces)]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        needs = frozenset(re.split(r",\s*", match["what"])) if match["word"] == "needs" else frozenset[str]()
        line = text[: match.start("language")].count("\n") + 1
        file = match["what"] if match["word"] == "file" else ""
        found.append(Block(page, line, match["language"], match["text"], needs, file))
    return found


def unquoted_signs(command: str) -> list[str]:
    """What a shell would act on in a command that it is not meant to: patterns, and comments, which zsh does not know.

    Assignments, pipes and ``>`` are meant.
    """
    found, quote = [], ""
    for place, sign in enumerate(command):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "[]*?{}!~" or (sign == "#" and command[place - 1] == " "):
            found.append(sign)
    return found


def words(command: str) -> list[str]:
    """The words of a command of vlkit's, however it is started; [] for other commands."""
    split = shlex.split(command)
    while split and re.fullmatch(r"[A-Z_]+=\S*", split[0]):
        split = split[1:]
    if split[:1] == ["torchrun"] and "vlkit" in split:
        return split[split.index("vlkit") :]
    return split if split[:1] == ["vlkit"] else []
