"""Tokenizers that fit their model: sizes, padding and language are checked, never assumed.

Shapes: B batch, L text length.
"""

from __future__ import annotations

import copy
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlkit.errors import AssetError, DataError, VlkitError
from vlkit.parts.assets import hub
from vlkit.parts.building import foreign_errors
from vlkit.parts.configs import check_settings, read_settings
from vlkit.parts.language_marks import set_language
from vlkit.paths import local_path
from vlkit.types import TextBatch

# any of these makes a folder hold a tokenizer; without one, transformers may build an empty tokenizer and say nothing
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model",
          "sentencepiece.bpe.model", "source.spm")  # fmt: skip

# a folder with these settings alone holds all in tokenizer.json, which transformers then need not read twice
_PLAIN = frozenset(
    ("backend", "bos_token", "clean_up_tokenization_spaces", "cls_token", "eos_token", "is_local", "local_files_only",
     "mask_token", "model_input_names", "model_max_length", "pad_token", "sep_token", "tokenizer_class", "unk_token")
)  # fmt: skip
_PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
_BESIDE = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "additional_chat_templates")

_LONGEST = 400_000  # characters, of a hundred
_MOST_ADDED = 64  # special tokens
_OTHER_MODEL = "the tokenizer belongs to another model, put the model's own tokenizer files in its folder"


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        DataError: One bare string, no texts at all, or an entry that is no string or holds half a surrogate pair.
    """
    if isinstance(texts, str):
        raise DataError(f"texts must be a list of strings, not the one string {texts!r}; write [{texts!r}]")
    texts = list(texts)
    if not texts:
        raise DataError("no texts to tokenize: the list is empty; give at least one string")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"texts[{index}] = {text!r} is a {type(text).__name__}; every text must be a string")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"texts[{index}] = {text[:40]!r} holds half a character; save the text as UTF-8") from None
    return texts


def pad_rows(rows: Sequence[Sequence[int]], *, pad_id: int, length: int | None = None) -> TextBatch:
    """Pads on the right to the longest row, or to ``length``."""
    length = max(map(len, rows)) if length is None else length
    ids_BL = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask_BL = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        ids_BL[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask_BL[index, : len(row)] = 1
    return TextBatch(ids_BL, mask_BL)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that lies in a model's folder; no code from the folder is run.

    Raises:
        AssetError: The folder holds none, none that can be read, or one whose rules make long inputs of short texts.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not any((folder / name).is_file() for name in _FILES):
        raise AssetError(f"{folder} holds no tokenizer (none of {', '.join(_FILES)}); copy the model's own files there")
    check_settings(folder)
    with _panics_are_errors(), foreign_errors(f"cannot read the tokenizer in {folder}"):
        if settings := _plain_settings(folder):
            tokenizer = PreTrainedTokenizerFast(**settings)
        else:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    check_rules(tokenizer, where=str(folder))
    return tokenizer


@contextmanager
def _panics_are_errors() -> Iterator[None]:
    """The library behind fast tokenizers panics on some damaged files, with what is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise AssetError(f"the tokenizers library cannot take these files: {error}; get them again") from None


def check_rules(tokenizer: Any, *, where: str) -> None:
    """A fast tokenizer's own rules must not make texts much longer: memory and time go with what comes out.

    Raises:
        AssetError: They prepend or put in so much, or end a text with so many tokens, that no model can want it.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return
    rule = "{}" if core.normalizer is None else core.normalizer.__getstate__().decode("utf-8", "replace")
    longest = _longest(json.loads(rule), len(string.printable))
    if longest <= _LONGEST and core.normalizer is not None:  # what a table of characters makes of them
        longest = len(core.normalizer.normalize_str(string.printable))
    if longest > _LONGEST:
        raise AssetError(
            f"{where}: the normalizer in tokenizer.json may make texts of {len(string.printable)} characters more than "
            f"{_LONGEST:,} long; take a tokenizer that fits the model"
        )
    if (added := core.num_special_tokens_to_add(False)) > _MOST_ADDED:
        raise AssetError(
            f"{where}: the tokenizer adds {added:,} special tokens to each text (allowed: {_MOST_ADDED}); see "
            f"post_processor in tokenizer.json"
        )
    with foreign_errors(f"{where}: its tokenizer cannot take texts"):
        core.encode("a Ж 猫")


def _longest(rule: Any, length: float) -> float:
    """How long a normalizer may make a text of this length, for what can be read off it."""
    kind = rule.get("type") if isinstance(rule, dict) else None
    if kind == "Sequence":
        for one in rule.get("normalizers", ()):
            length = _longest(one, length)
    elif kind == "Prepend":
        length += len(rule["prepend"])
    elif kind == "Replace":
        content, (form, pattern) = len(rule["content"]), next(iter(rule["pattern"].items()))
        if form == "String" and pattern:
            length *= max(1, content / len(pattern))
        else:
            length *= max(1, content + _fits_nothing(pattern))
    return length


def _fits_nothing(pattern: str) -> bool:
    """Whether a pattern also fits between characters, so that what it is replaced by comes on top; True if in doubt."""
    try:
        return re.search(pattern, "") is not None
    except re.error:
        return True


def save_tokenizer(tokenizer: Any, folder: Path, *, prefix: str = "") -> None:
    """Writes a transformers tokenizer for other libraries; ``prefix`` becomes a part of it.

    Raises:
        VlkitError: There is a prefix and the tokenizer is none of the ``tokenizers`` library.
    """
    if prefix:
        from tokenizers import normalizers

        if not getattr(tokenizer, "is_fast", False):
            raise VlkitError(
                f"the prefix {prefix!r} cannot be put into a {type(tokenizer).__name__}; train with "
                f"model.text.prefix=''"
            )
        tokenizer = copy.deepcopy(tokenizer)
        core = tokenizer.backend_tokenizer
        own = [] if core.normalizer is None else [core.normalizer]
        core.normalizer = normalizers.Sequence([normalizers.Prepend(prefix), *own])
    tokenizer.save_pretrained(str(folder))


def _plain_settings(folder: Path) -> dict[str, Any]:
    """Arguments of transformers' generic tokenizer, where AutoTokenizer would do no more than call it; else nothing.

    AutoTokenizer parses all of tokenizer.json (17 MB for XLM-R's vocabulary) in Python to find the few added tokens.
    """
    path, beside = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not path.is_file() or not beside.is_file() or any((folder / name).exists() for name in _BESIDE):
        return {}
    settings = read_settings(beside)
    tokens = [value for key, value in settings.items() if key.endswith("_token")]
    if not settings.keys() <= _PLAIN or not all(isinstance(token, str) for token in tokens):
        return {}
    if settings.pop("tokenizer_class", None) not in _PLAIN_CLASSES:
        return {}
    return settings | {"tokenizer_file": str(path), "name_or_path": str(folder), "is_local": True}


def check_vocabulary(size: int, *, rows: int, where: str) -> None:
    """Refuses a tokenizer that belongs to another model.

    ``size`` is the highest token id plus one, ``rows`` those of the model's token embedding.

    Raises:
        VlkitError: Ids beyond the embedding, or an embedding so much larger that the tokenizer cannot be its own.
    """
    if size > rows:
        raise VlkitError(
            f"{where}: the tokenizer has {size} tokens but the text model's embedding has {rows} rows; {_OTHER_MODEL}"
        )
    if rows > 2 * size + 1024:
        raise VlkitError(
            f"{where}: the tokenizer has only {size} tokens for the {rows} rows of the text model's embedding; "
            f"{_OTHER_MODEL}"
        )


def vocabulary_size(tokenizer: Any) -> int:
    """Highest token id plus one, added tokens included (``len`` is too small where ids have holes)."""
    return max(len(tokenizer), max(tokenizer.added_tokens_decoder, default=-1) + 1)


def check_padding(tokenizer: Any, model: nn.Module, *, where: str) -> None:
    """The tokenizer's pad id must be the model's where the model computes with it (positions counted from the pad id).

    A config's ``pad_token_id`` alone proves nothing: multilingual-e5's says 0 and OpenAI CLIP's 1, though both are
    padded with another id and rightly so, because their models use the mask.

    Raises:
        VlkitError: The ids differ.
    """
    for name, module in model.named_modules():
        used = getattr(module, "padding_idx", None)
        if "position" in name and used is not None and tokenizer.pad_token_id != used:
            raise VlkitError(
                f"{where}: the tokenizer pads with id {tokenizer.pad_token_id} but the text model counts positions "
                f"from pad id {used}; {_OTHER_MODEL}"
            )


def check_end_token(tokenizer: Any, *, reads: int | None, where: str) -> None:
    """The tokenizer must end its texts with the token at which the model reads their feature.

    ``reads`` is its id; None for models that read at the highest id of a text (the first CLIP).

    Raises:
        VlkitError: It ends them with another token, or with one that is not the highest: the model would read the
            feature of some other token, and give nearly the same for every text.
    """
    ends = tokenizer.eos_token_id
    if reads is not None and ends != reads:
        raise VlkitError(
            f"{where}: the tokenizer ends a text with id {ends} but the text model reads its feature at id {reads}; "
            f"{_OTHER_MODEL}"
        )
    if reads is None:
        special = set(tokenizer.all_special_ids)
        highest = max((index for index in tokenizer.get_vocab().values() if index not in special), default=-1)
        if ends is None or ends < highest:
            raise VlkitError(
                f"{where}: the text model reads the feature of a text at its highest id, which must be the end token, "
                f"but the tokenizer's end token is {ends} and it has ids up to {highest}; {_OTHER_MODEL}"
            )


def longest_input(tokenizer: Any, model: nn.Module, *, config: Any) -> int:
    """How many tokens the model and its tokenizer can take."""
    bounds = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            # RoBERTa counts from padding_idx + 1
            bounds.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min(int(bound) for bound in bounds if bound is not None and bound > 0)


class HfTokenizer:
    """A transformers tokenizer with the rules of one text encoder.

    ``max_length`` is the longest input in tokens, special ones included; longer texts are cut before their end token.
    ``prefix`` is put before every text. With ``end_token`` every row holds the end-of-text token, added where the
    tokenizer adds none; ``fixed_length`` pads every batch to ``max_length`` (SigLIP).
    """

    def __init__(
        self,
        tokenizer: Any,
        where: str,
        *,
        max_length: int,
        prefix: str = "",
        end_token: bool = False,
        fixed_length: bool = False,
    ) -> None:
        self.tokenizer, self.where = tokenizer, where
        self.max_length, self.prefix, self.fixed_length = max_length, prefix, fixed_length
        self.end_id: int | None = tokenizer.eos_token_id if end_token else None
        if end_token and self.end_id is None:
            raise VlkitError(
                f"{where}: pooling = 'eos' needs an end-of-text token and the tokenizer has none; use 'last' or 'mean'"
            )
        # where there is no pad token the mask alone tells padding, and any id serves
        pad_id = tokenizer.pad_token_id
        self.pad_id: int = next((int(i) for i in (pad_id, tokenizer.eos_token_id) if i is not None), 0)

    def __call__(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        """Tokens, padded on the right.

        Raises:
            DataError: No texts, an entry that is no string, or a text that leaves no token at all.
            VlkitError: The tokenizer needs a language and has none for this one.
        """
        texts = check_texts(texts)
        set_language(self.tokenizer, language, where=self.where)
        rows: list[list[int]] = self.tokenizer(
            [self.prefix + text for text in texts], truncation=True, max_length=self.max_length, padding=False
        )["input_ids"]
        if self.end_id is not None:
            rows = [row if self.end_id in row else [*row[: self.max_length - 1], self.end_id] for row in rows]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise DataError(f"{self.where}: the text {text!r} gives no tokens; leave it out")
        return pad_rows(rows, pad_id=self.pad_id, length=self.max_length if self.fixed_length else None)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files."""
        self.tokenizer.save_pretrained(str(folder))


def named_tokenizer(name: str, saved: Path | None, *, rows: int, max_length: int) -> HfTokenizer:
    """A tokenizer by folder or hub id, or as ``save`` wrote it, for a table of ``rows`` embeddings (``model.text``)."""
    folder = saved or local_path(name)
    tokenizer = load_tokenizer(folder if folder.is_dir() else hub.tokenizer_files(name))
    if (size := vocabulary_size(tokenizer)) > rows:
        raise VlkitError(f"{name} has {size} tokens and model.text.vocab = {rows}; set vocab={size} or more")
    return HfTokenizer(tokenizer, name, max_length=max_length)


Tokenize = Callable[..., TextBatch]
"""``tokenize(texts, language=...)`` of a text encoder."""


def tokenize_mixed(tokenize: Tokenize, captions: Sequence[str], languages: Sequence[str]) -> TextBatch:
    """Tokens of captions in several languages, each tokenised as its own, padded to one length."""
    groups: dict[str, list[int]] = {}
    for row, language in enumerate(languages):
        groups.setdefault(language, []).append(row)
    parts = [(rows, tokenize([captions[row] for row in rows], language=language)) for language, rows in groups.items()]
    length = max(tokens.ids_BL.shape[1] for _, tokens in parts)
    ids_BL = torch.zeros((len(captions), length), dtype=torch.int64)
    mask_BL = torch.zeros_like(ids_BL)
    for rows, tokens in parts:
        ids_BL[rows, : tokens.ids_BL.shape[1]] = tokens.ids_BL
        mask_BL[rows, : tokens.mask_BL.shape[1]] = tokens.mask_BL
    return TextBatch(ids_BL, mask_BL)
