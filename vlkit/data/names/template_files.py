"""Prompt templates of many languages from a file of the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlkit import languages as language_table
from vlkit.data.formats.text_files import read_json, read_text
from vlkit.data.names.label_set import raise_all
from vlkit.errors import DataError, UnknownName
from vlkit.foreign import parse_yaml
from vlkit.prompts import check_template


def read_templates(
    path: str | Path, *, normalize_whitespace: bool = False, skip: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Templates by BCP 47 tag from a JSON or YAML file that maps language codes to lists of templates.

    Args:
        path: For example Babel-ImageNet's ``nllb_dist13b_prompts.json`` (80 machine-translated templates in 90
            languages; its ``EN`` is a translation of English to English, so give ``skip=["en"]``).
        normalize_whitespace: Take out doubled, leading and trailing blanks and those before a final dot, which machine
            translation left behind. Tokenizers of bytes or BPE see them; published scores were made with them.
        skip: Languages to leave out.

    Raises:
        DataError: Missing, of another form, or a template without exactly one ``{}``; the message lists what is wrong.
    """
    path = Path(path)
    content = _parse(path)
    problems: list[str] = []
    left_out = {language_table.normalize(code) for code in skip}
    found: dict[str, tuple[str, ...]] = {}
    for code, templates in content.items():
        try:
            tag = language_table.get(code, system="babelnet" if code.isupper() else None).tag
        except UnknownName as error:
            problems.append(str(error))
            continue
        if not isinstance(templates, list) or not templates or not all(isinstance(one, str) for one in templates):
            problems.append(f"{code}: must be a list of texts")
        elif tag in found:
            problems.append(f"{code}: the file has {tag} twice")
        elif tag not in left_out:
            problems += _problems(code, templates)
            found[tag] = tuple(_tidy(one) for one in templates) if normalize_whitespace else tuple(templates)
    raise_all(problems, where=f"template file {path}")
    return found


def weighted(templates: Collection[str]) -> dict[str, int]:
    """The distinct templates and how often each occurs; the mean over all is the weighted mean over these."""
    return dict(Counter(templates))


def _parse(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() == ".json":
        content = read_json(path, what="template file ")
    else:
        content = parse_yaml(read_text(path, what="template file "), where=f"template file {path}")
    if not isinstance(content, dict) or not content:
        raise DataError(f"template file {path} must map language codes to lists of templates")
    return content


def _problems(code: str, templates: list[str]) -> list[str]:
    found = []
    for template in templates:
        try:
            check_template(template)
        except DataError as error:
            found.append(f"{code}: {error}")
    return found


def _tidy(template: str) -> str:
    text = " ".join(template.split())
    for sign in ".,;:!?":
        text = text.removesuffix(f" {sign}") + sign if text.endswith(f" {sign}") else text
    return text
