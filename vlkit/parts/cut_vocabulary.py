"""Fewer or more rows for a language model's vocabulary: cut to what texts need, or with tokens added.

Shapes: V vocabulary, E embedding width.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import DataError, VlkitError
from vlkit.parts.hf_language import HfLanguageModel
from vlkit.parts.tokenizers import check_texts, vocabulary_size

MULTIPLE = 64  # rows come in such numbers: tensor cores like them
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_IDLE = re.compile(r"\W*(unused|reserved|extra_id)\w*\W*")  # tokens that a tokenizer holds ready and no text has


def read_texts(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: It cannot be read, is not UTF-8, or has no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"cannot read the texts for the vocabulary in {path}: {why}") from error
    if not lines:
        raise DataError(f"{path} has no texts to keep the vocabulary of; write one text a line")
    return lines


def cut_vocabulary(model: HfLanguageModel, texts: Sequence[str]) -> Tensor:
    """Leaves a language model the rows that these texts need; it reads and writes them exactly as before.

    Kept are the pieces of the texts, the smaller ones that they are put together from, ASCII characters, bytes, marks,
    and as many frequent pieces as make the rows a multiple of 64. Any other text falls back to smaller pieces or bytes.
    Changes the model and its tokenizer in place; what is kept stays as it is, to the bit.

    Args:
        model: A model whose tokenizer is of the kind BPE or Unigram.
        texts: All that must stay as it is, prompts included.

    Returns:
        kept_V int64: which row each row was.

    Raises:
        VlkitError: The tokenizer is of another kind.
        DataError: There are no texts.
    """
    whole = _rules(model)
    pieces = _Pieces(whole)
    used = {token for row in model.tokenizer(check_texts(texts))["input_ids"] for token in row}
    keep = pieces.closed(used | {*model.end_ids, *_marks(model)} | pieces.always)
    kept = sorted(pieces.filled(keep, multiple=MULTIPLE))
    renamed = {old: new for new, old in enumerate(kept)}
    model.tokenizer = _tokenizer_of(pieces.only(renamed), model.tokenizer)
    kept_V = torch.tensor(kept)
    _set_rows(model, lambda rows_VE: rows_VE[kept_V.to(rows_VE.device)])
    _rename(model, renamed)
    return kept_V


def add_tokens(model: HfLanguageModel, tokens: Sequence[str]) -> None:
    """Gives a language model tokens that stay whole; their rows start as the mean of all, and old rows stay the same.

    The rows become a multiple of 64. Changes the model and its tokenizer in place.
    """
    model.tokenizer.add_tokens(list(tokens))
    rows = -(-vocabulary_size(model.tokenizer) // MULTIPLE) * MULTIPLE
    if rows <= model.vocab_size:
        return

    def longer(rows_VE: Tensor) -> Tensor:
        mean = rows_VE.float().mean(dim=0, keepdim=True).to(rows_VE.dtype)
        return torch.cat([rows_VE, mean.expand(rows - len(rows_VE), *rows_VE.shape[1:])])

    _set_rows(model, longer)
    _rename(model, None)


class _Pieces:
    """The vocabulary of a fast tokenizer, as its JSON says it."""

    def __init__(self, whole: dict[str, Any]) -> None:
        self.whole, rules = whole, whole["model"]
        self.merges: list[tuple[str, str]] = []
        if rules["type"] == "BPE":
            self.ids: dict[str, int] = dict(rules["vocab"])
            self.merges = [tuple(one) if isinstance(one, list) else tuple(one.split(" ", 1)) for one in rules["merges"]]
        else:
            self.ids = {piece: index for index, (piece, _) in enumerate(rules["vocab"])}
        self.added: dict[str, int] = {one["content"]: one["id"] for one in whole["added_tokens"]}
        self.names = {index: piece for piece, index in {**self.ids, **self.added}.items()}
        self.ranks = {pair: rank for rank, pair in reversed([*enumerate(self.merges)])}

    @property
    def always(self) -> set[int]:
        """Ids that any text may need: bytes, ASCII characters, added tokens that are not idle."""
        found = {index for piece, index in self.ids.items() if piece in string.printable or _BYTE.fullmatch(piece)}
        found |= {index for piece, index in self.added.items() if not _IDLE.fullmatch(piece)}
        rules = self.whole["model"]
        if rules["type"] == "Unigram":  # what no piece has costs as much as the worst piece and some
            found.add(min(range(len(rules["vocab"])), key=lambda index: rules["vocab"][index][1]))
            return found | ({rules["unk_id"]} if rules["unk_id"] is not None else set())
        if _level_of_bytes(self.whole):
            found |= {index for piece, index in self.ids.items() if len(piece) == 1}
        return found | ({self.ids[rules["unk_token"]]} if rules["unk_token"] in self.ids else set())

    def closed(self, ids: set[int]) -> set[int]:
        """With the pieces that these are merged from.

        Merges inside a piece do not depend on the text around it, as none goes across its ends: it is enough to merge
        each piece alone.
        """
        more = {self.ids[part] for index in ids for part in self._steps(self.names[index]) if part in self.ids}
        return ids | more

    def filled(self, ids: set[int], *, multiple: int) -> set[int]:
        """With pieces of low ids, which are the frequent ones, up to a multiple."""
        whole: dict[str, list[tuple[str, str]]] = {}
        for one, other in self.merges:
            whole.setdefault(one + other, []).append((one, other))
        found = set(ids)
        for piece, index in sorted(self.ids.items(), key=lambda entry: entry[1]):
            if not len(found) % multiple:
                break
            pairs = whole.get(piece, [])
            reached = len(piece) == 1 or not self.merges
            reached |= any(self.ids[one] in found and self.ids[other] in found for one, other in pairs)
            if reached and not _IDLE.fullmatch(piece):
                found.add(index)
        return found

    def only(self, renamed: dict[int, int]) -> dict[str, Any]:
        """The JSON of a tokenizer with these pieces and their new ids."""
        whole, rules = dict(self.whole), dict(self.whole["model"])
        if rules["type"] == "BPE":
            rules["vocab"] = {piece: renamed[index] for piece, index in self.ids.items() if index in renamed}
            kept = rules["vocab"].keys()
            rules["merges"] = [[a, b] for a, b in self.merges if a in kept and b in kept and a + b in kept]
        else:
            rules["vocab"] = [entry for index, entry in enumerate(rules["vocab"]) if index in renamed]
            rules["unk_id"] = renamed.get(rules["unk_id"])
        whole["model"] = rules
        whole["added_tokens"] = [
            {**one, "id": renamed[one["id"]]} for one in whole["added_tokens"] if one["id"] in renamed
        ]
        whole["post_processor"] = _renumbered(whole["post_processor"], renamed)
        return whole

    def _steps(self, piece: str) -> Iterator[str]:
        """A piece's characters and all that merging makes of them on the way to it."""
        if not self.merges or piece in self.added or _BYTE.fullmatch(piece):
            return
        parts = list(piece)
        yield from parts
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(parts)]
            place = ranks.index(min(ranks))
            if ranks[place] == len(self.ranks):
                return
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
            yield parts[place]


def _rules(model: HfLanguageModel) -> dict[str, Any]:
    core = getattr(model.tokenizer, "backend_tokenizer", None)
    whole: dict[str, Any] = json.loads(core.to_str()) if core is not None else {}
    kind = whole.get("model", {}).get("type", type(model.tokenizer).__name__)
    if kind not in ("BPE", "Unigram"):
        raise VlkitError(
            f"{model.where}: the vocabulary of a tokenizer of the kind {kind} cannot be cut; allowed: BPE, Unigram; "
            f"set vocabulary to null"
        )
    return whole


def _level_of_bytes(whole: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([whole["pre_tokenizer"], whole["normalizer"]])


def _renumbered(rule: Any, renamed: dict[int, int]) -> Any:
    """A post-processor whose marks have their new ids: in ``ids`` of templates, or in pairs of token and id."""
    if isinstance(rule, list):
        if len(rule) == 2 and isinstance(rule[0], str) and isinstance(rule[1], int):
            return [rule[0], renamed[rule[1]]]
        return [_renumbered(one, renamed) for one in rule]
    if not isinstance(rule, dict):
        return rule
    return {
        key: [renamed[index] for index in one] if key == "ids" else _renumbered(one, renamed)
        for key, one in rule.items()
    }


def _tokenizer_of(whole: dict[str, Any], like: Any) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)),
        model_max_length=like.model_max_length,
        padding_side=like.padding_side,
        clean_up_tokenization_spaces=False,
        **like.special_tokens_map,
    )
    made.chat_template = like.chat_template
    return made


def _marks(model: HfLanguageModel) -> Iterable[int]:
    settings = model.whole.config.to_dict()
    for key, value in settings.items():
        if key.endswith("_token_id"):
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int))


def _set_rows(model: HfLanguageModel, change: Callable[[Tensor], Tensor]) -> None:
    """Gives the token embedding and the output map other rows, with all that share them."""
    tables: list[Any] = [model.whole.get_input_embeddings(), model.whole.get_output_embeddings()]
    for old in {id(one.weight): one.weight for one in tables}.values():
        new = nn.Parameter(change(old.detach()).clone(), requires_grad=old.requires_grad)
        sharing: list[Any] = [part for part in model.modules() if getattr(part, "weight", None) is old]
        for part in sharing:
            part.weight = new
            if isinstance(part, nn.Embedding):
                part.num_embeddings = len(new)
            else:
                part.out_features = len(new)
    head: Any = tables[1]
    if (bias := getattr(head, "bias", None)) is not None:
        head.bias = nn.Parameter(change(bias.detach()[:, None])[:, 0].clone(), requires_grad=bias.requires_grad)


def _rename(model: HfLanguageModel, renamed: dict[int, int] | None) -> None:
    """Puts the new number of rows, and the new ids of marks where they have such, into what knows of them."""

    def named(value: Any) -> Any:
        return [named(one) for one in value] if isinstance(value, list) else (renamed or {}).get(value)

    configs = {id(one): one for part in model.modules() if (one := getattr(part, "config", None)) is not None}
    for config in {**configs, id(model.config): model.config, 0: model.whole.generation_config}.values():
        if hasattr(config, "vocab_size"):
            config.vocab_size = model.vocab_size
        if renamed is not None:
            for key in [key for key in config.to_dict() if key.endswith("_token_id")]:
                setattr(config, key, named(getattr(config, key)))
    table: Any = model.whole.get_input_embeddings()
    if renamed is not None:
        table.padding_idx = named(table.padding_idx)
        model.end_ids = tuple(renamed[index] for index in model.end_ids)
