"""Tokenizers that put a mark of the language into their input (NLLB, M2M-100, mBART), and which mark is whose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlkit import languages
from vlkit.errors import VlkitError


def marks_language(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a language token into its input (NLLB, M2M-100, mBART)."""
    return callable(getattr(tokenizer, "set_src_lang_special_tokens", None))


def set_language(tokenizer: Any, language: str | None, *, where: str) -> None:
    """Tells an NLLB-type tokenizer the language of the next texts; others are left alone.

    The language is a BCP 47 tag or any code that ``languages.get`` knows.

    Raises:
        VlkitError: No language was given, or the tokenizer has no token for it. It never falls back to English.
        UnknownName: There is no such language.
    """
    if not marks_language(tokenizer):
        return
    if language is None:
        raise VlkitError(
            f"{where}: the tokenizer marks the language of its input; pass language=, for example language='de'"
        )
    tokenizer.src_lang = language_token(tokenizer, language, where=where)[1]


def language_token(tokenizer: Any, language: str, *, where: str) -> tuple[str, str]:
    """The token of a language, and the tokenizer's code for it.

    Raises:
        VlkitError: The tokenizer has no token for it.
        UnknownName: There is no such language.
    """
    entry = languages.get(language)
    for token, code in _language_tokens(entry, tokenizer):
        if tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id):
            return token, code
    raise VlkitError(
        f"{where}: the tokenizer has no language token for {language!r} ({entry.name}; NLLB code: "
        f"{entry.nllb or 'none'}); use a language the model knows, or another model"
    )


def _language_tokens(entry: languages.Language, tokenizer: Any) -> Iterable[tuple[str, str]]:
    """Candidate (token, code) pairs: NLLB ``deu_Latn``, M2M-100 ``__de__``, mBART ``de_DE``."""
    short = entry.tag.split("-")[0]
    if entry.nllb:
        yield entry.nllb, entry.nllb
    yield f"__{short}__", short
    for token in map(str, tokenizer.added_tokens_decoder.values()):
        if len(token) == len(short) + 3 and token.startswith(f"{short}_") and token[-2:].isupper():
            yield token, token
