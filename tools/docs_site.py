"""Fills the docs site with what the code knows: commands, public names, recipes and suites, and the pages beside docs/.

mkdocs calls the ``on_...`` functions (``hooks`` of ``mkdocs.yml``). A page says where something is filled in by a
comment such as ``<!-- generated: commands -->``, so that it can be read without the site as well. Links that lead out
of ``docs/`` are turned to where that page stands in the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "data/README.md": "tables.md",
    "eval/README.md": "reference_scores.md",
    "LICENSE": "LICENSE.txt",
    "data/LICENSE-Unicode-3.0.txt": "LICENSE-Unicode-3.0.txt",
}
"""Files of the repository that the site shows besides docs/, and where."""

_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(\))")
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_DEFAULT = re.compile(r"(?:<[^>]+>)?_default(?:</\w+>)?\(&#39;\w+&#39;\)")
_GROUPS = {
    "models": "Models",
    "evaluation": "Classify and evaluate",
    "training": "Train",
    "spec": "Recipes and settings",
    "parts": "Parts",
    "adapt": "Adapters",
    "errors": "Errors",
}
"""Headings of public names by the package that they come from; any other package has its own name as heading."""


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pages that lie beside docs/."""
    from mkdocs.structure.files import File

    for path, place in BESIDE.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The text of a page with its links turned and its marks filled in."""
    return filled(turned(markdown, page.file.src_uri))


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Defaults that live in a spec are said to, in place of the call that looks them up."""
    return _DEFAULT.sub("the spec&#39;s", output)


def turned(markdown: str, place: str) -> str:
    """Links of the page at ``place`` in the site that lead out of docs/ lead to where the site has that page."""
    origin = next((path for path, shown in BESIDE.items() if shown == place), f"docs/{place}")

    def turn(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        shown = BESIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if shown is None:
            return match[0]
        return before + posixpath.relpath(shown, posixpath.dirname(place) or ".") + anchor + after

    return _LINK.sub(turn, markdown)


def filled(markdown: str) -> str:
    """The text with what each mark stands for; a mark that nobody knows is an error."""
    return _MARK.sub(lambda mark: "\n".join(MARKS[mark[1]]()), markdown)


def public_names() -> Iterator[str]:
    """Public names of vlkit, grouped, as mkdocstrings takes them."""
    import vlkit

    homes: Mapping[str, str] = vlkit._HOMES
    packages = list(dict.fromkeys((*_GROUPS, *(home.split(".")[1] for home in homes.values()))))
    for package in packages:
        names = sorted(name for name, home in homes.items() if home.split(".")[1] == package)
        if names:
            yield from ("", f"## {_GROUPS.get(package, package.capitalize())}", "")
            yield from (f"::: vlkit.{name}\n" for name in names)


def seams() -> Iterator[str]:
    """What a module of one's own has to offer to be joined with the others: names of ``vlkit.types``."""
    from vlkit import types

    yield from (f"::: vlkit.types.{name}\n" for name in types.__all__ if name[0].isupper() and not name.isupper())


def recipes() -> Iterator[str]:
    """A table of recipes for each folder; what comes after its name is what the recipe says of itself."""
    from vlkit.spec.load import read_document, shipped_recipes

    tables: dict[str, list[str]] = {}
    for name, path in shipped_recipes().items():
        folder = "tiny" if "tiny" in name else name.partition("/")[0]
        about = " ".join(str(read_document(path).plain().get("description", "")).split())
        tables.setdefault(folder, []).append(f"| `{name}` | {_linked(about)} |")
    titles = {
        "quickstart": "Quickstart", "contrastive": "Contrastive models", "vlm": "Vision-language models",
        "t2i": "Images and codes", "tiny": "Tiny twins, for a CPU in seconds",
    }  # fmt: skip
    for folder in sorted(tables, key=lambda one: (list(titles).index(one) if one in titles else 3, one)):
        yield from ("", f"## {titles.get(folder, folder)}", "", "| recipe | what, and after whom |", "| --- | --- |")
        yield from tables[folder]


def suites() -> Iterator[str]:
    """A table of the evaluation suites."""
    from vlkit.spec.load import read_document, shipped_suites

    yield from ("| suite | what it measures |", "| --- | --- |")
    for name, path in shipped_suites().items():
        about = " ".join(str(read_document(path).plain().get("description", "")).split())
        yield f"| `{name}` | {_linked(about)} |"


def commands() -> Iterator[str]:
    """A chapter for each command of ``vlkit``: what it takes, its options, examples."""
    import typer

    from vlkit.cli.app import COMMANDS, app

    group: Any = typer.main.get_command(app)
    context = group.make_context("vlkit", [], resilient_parsing=True)
    for name in COMMANDS:
        _, command, _ = group.resolve_command(context, [name])
        yield from _chapter(command, f"vlkit {name}", context)


def _chapter(command: Any, name: str, above: Any, level: str = "##") -> Iterator[str]:
    below: Mapping[str, Any] = getattr(command, "commands", {})
    context = type(above)(command, info_name=name.rpartition(" ")[2], parent=above)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from ("", f"{level} {name}", "", *_prose(command.help or command.short_help or ""), "")
    yield from ("```text", f"{name} {usage}", "```", "")
    rows = [row for param in command.params if (row := param.get_help_record(context))]
    if rows:
        yield from ("| argument or option | what it does |", "| --- | --- |")
        yield from (f"| `{shown}` | {_cell(about)} |" for shown, about in rows)
    if command.epilog and not below:
        yield from ("", "```bash", *_examples(command.epilog), "```")
    for one, subcommand in below.items():
        yield from _chapter(subcommand, f"{name} {one}", context, level="###")


def _prose(text: str) -> Iterator[str]:
    """A help text as Markdown: lines that are laid out by hand stand in a block."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b"):
            yield from ("```text", *paragraph.removeprefix("\b").strip("\n").splitlines(), "```", "")
        else:
            yield from (" ".join(paragraph.split()).replace("<", "&lt;").replace("*", r"\*"), "")


def _examples(epilog: str) -> list[str]:
    return [line.strip() for line in epilog.splitlines() if line.startswith("  ")]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def _linked(text: str) -> str:
    """Numbers of arXiv papers become links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", _cell(text))


MARKS: dict[str, Callable[[], Iterator[str]]] = {
    "names": public_names,
    "seams": seams,
    "recipes": recipes,
    "suites": suites,
    "commands": commands,
}
