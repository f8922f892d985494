"""Class embeddings of many languages from one stream of texts, in which equal ones are encoded once.

K classes of a language, T distinct texts, E embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.distributed.collectives import Ranks, shared_errors
from vlkit.errors import VlkitError
from vlkit.evaluation.abilities import EMBEDS, require
from vlkit.evaluation.embed.callables import TwoCallables
from vlkit.evaluation.embed.encode import Embedder, encode_texts, marks_language
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.identity import texts_key
from vlkit.models.feature_store import FeatureStore, Numbers, key_of
from vlkit.progress import Bar, bar

BARE: tuple[str, ...] = ("{}",)
_WINDOW = 1 << 16  # texts planned and held at once: 134 MB of embeddings of width 512
_FILE = 1 << 13  # texts in one file of the cache
_ROWS = 1 << 13  # texts averaged at once


class ClassTexts(NamedTuple):
    """The K classes of one language: one or more names each, and the templates that names are put into."""

    language: str | None
    names: Sequence[Sequence[str]]
    templates: Sequence[str] = BARE


def embed_texts(
    model: Embedder, texts: Sequence[str], *, language: str | None = None, encoding: Encoding | None = None
) -> Tensor:
    """L2-normalised text_TE of texts of one language (BCP 47, for tokenizers that need it), in their order.

    Equal texts are encoded once and texts of like length together, which saves padding; the result is the same. A batch
    never mixes languages where tokenizers have to be told which it is.

    Raises:
        VlkitError: No text, or an embedding that is not finite (the message names the text).
    """
    if not texts:
        raise VlkitError("no texts to encode; give at least one")
    encoding = Encoding() if encoding is None else encoding
    spoken = (language or "") if marks_language(model) else ""
    place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    encoding.counts.texts_asked += len(texts)
    distinct_TE = _encode(model, [(spoken, text) for text in place], encoding, store=_store(model, encoding))
    return distinct_TE[[place[text] for text in texts]]


def class_embeddings(
    model: Embedder,
    names_per_class: Sequence[Sequence[str]],
    *,
    language: str | None = None,
    templates: Sequence[str] = BARE,
    encoding: Encoding | None = None,
) -> Tensor:
    """L2-normalised class_KE of one language; see ``stream_class_embeddings``."""
    return next(stream_class_embeddings(model, [ClassTexts(language, names_per_class, templates)], encoding=encoding))


def stream_class_embeddings(
    model: Embedder, wanted: Iterable[ClassTexts], *, encoding: Encoding | None = None
) -> Iterator[Tensor]:
    """L2-normalised class_KE of one language after another, in their order.

    It is the mean of a class's names in all templates (CLIP, arXiv 2103.00020, section 3.1.4). Languages are taken
    together until they have some 65,000 texts, so that memory does not grow with their number. Of these, equal texts
    are encoded once, those of several languages too where the tokenizer is not told the language; texts in the cache
    are not. A template that occurs twice weighs twice.

    Raises:
        VlkitError: A class without a name, or an embedding that is not finite (the message names the text).
    """
    encoding = Encoding() if encoding is None else encoding
    store = _store(model, encoding)
    for window in _windows(wanted):
        plan = _Plan(window, marked=marks_language(model))
        encoding.counts.texts_asked += plan.asked
        text_TE = _encode(model, plan.texts, encoding, store=store)
        for number in range(len(window)):
            yield plan.mean(number, text_TE)


def check_languages(model: Embedder, languages: Iterable[str], *, spoken: Mapping[str, str]) -> None:
    """Refuses languages that the tokenizer has no mark for, all at once and before anything is encoded.

    ``spoken`` is what tokenizers are told in place of a tag.

    Raises:
        VlkitError: There are such languages, or the model does not embed images and texts at all.
    """
    require(model, EMBEDS, of="this task")
    if isinstance(model, TwoCallables) or not getattr(model, "marks_language", False):
        return
    missing: dict[str, str] = {}
    for tag in languages:
        try:
            model.tokenize(["a"], language=spoken.get(tag, tag))
        except VlkitError as error:
            missing[tag] = str(error)
    if missing:
        raise VlkitError(
            f"the model's tokenizer has no mark for {len(missing)} of the languages: {', '.join(missing)}; leave them "
            f"out, or say by tokenizer_languages which mark stands for them, e.g. tokenizer_languages={{"
            f"{next(iter(missing))}: en}} ({next(iter(missing.values()))})"
        )


def _windows(wanted: Iterable[ClassTexts]) -> Iterator[list[ClassTexts]]:
    window: list[ClassTexts] = []
    count = 0
    for one in wanted:
        more = sum(map(len, one.names)) * len(set(one.templates))
        if window and count + more > _WINDOW:
            yield window
            window, count = [], 0
        window.append(one)
        count += more
    if window:
        yield window


class _Plan:
    """Which texts the classes of several languages are the means of."""

    def __init__(self, window: Sequence[ClassTexts], *, marked: bool) -> None:
        place: dict[tuple[str, str], int] = {}
        self.asked = 0
        self._means: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32], int]] = []
        for one in window:
            spoken = (one.language or "") if marked else ""
            templates = Counter(one.templates)
            if not templates or not all(one.names):
                bare = next((row for row, names in enumerate(one.names) if not names), 0)
                raise VlkitError(f"class {bare} has no name or no template")
            texts, rows, weights = [], [], []
            for row, names in enumerate(one.names):
                for name in names:
                    for template, weight in templates.items():
                        text = template.replace("{}", name, 1)
                        texts.append(place.setdefault((spoken, text), len(place)))
                        rows.append(row)
                        weights.append(weight)
            self.asked += sum(weights)
            self._means.append((np.array(texts), np.array(rows), np.array(weights, np.float32), len(one.names)))
        self.texts = list(place)

    def mean(self, number: int, text_TE: Tensor) -> Tensor:
        """class_KE of one of the languages."""
        texts, rows, weights, count = self._means[number]
        class_KE = torch.zeros(count, text_TE.shape[1])
        for start in range(0, len(texts), _ROWS):
            part = slice(start, start + _ROWS)
            weighted_TE = text_TE[torch.from_numpy(texts[part])] * torch.from_numpy(weights[part])[:, None]
            class_KE.index_add_(0, torch.from_numpy(rows[part]), weighted_TE)
        return F.normalize(class_KE, dim=1)


def _store(model: Embedder, encoding: Encoding) -> FeatureStore | None:
    if encoding.cache is None:
        return None
    folder = encoding.cache / f"texts-{texts_key(model)}"
    names = encoding.ranks.gather_objects(FeatureStore.names(folder))[0]
    return FeatureStore(folder, names=names, writes=not encoding.follows)


def _encode(
    model: Embedder, texts: Sequence[tuple[str, str]], encoding: Encoding, *, store: FeatureStore | None
) -> Tensor:
    """L2-normalised text_TE of distinct (language, text); those of the store are not encoded."""
    ranks = encoding.ranks
    # the order of the batches is that of the set of texts, whatever order they came in
    order = sorted(range(len(texts)), key=lambda row: (texts[row][0], len(texts[row][1].encode()), texts[row][1]))
    keys = np.array([key_of(*one) for one in texts] if store is not None else (), dtype=np.int64)
    known_T, text_TE = np.zeros(len(texts), dtype=bool), None
    if store is not None:
        with shared_errors(ranks):
            place_T = store.find(keys)
            text_TE = store.read(place_T) if (place_T >= 0).any() else None
        # known is what all processes could read: they must cut the same batches
        known_T = ranks.all_reduce(torch.from_numpy(place_T >= 0).int(), "min").bool().numpy()
    missing = [row for row in order if not known_T[row]]
    unsaved: list[int] = []
    quiet = encoding.quiet or encoding.follows or not missing
    with bar("texts", total=len(texts), unit="texts", quiet=quiet) as shown:
        shown.advance(len(texts) - len(missing))
        for rows, block_TE in _blocks(model, texts, missing, encoding, shown):
            if text_TE is None:
                text_TE = torch.zeros(len(texts), block_TE.shape[1])
            text_TE[rows] = F.normalize(block_TE, dim=1)
            unsaved += rows
            if store is not None and (len(unsaved) >= _FILE or rows[-1] == missing[-1]):
                _keep(store, keys[unsaved], text_TE[unsaved], ranks)
                unsaved = []
    if text_TE is None:
        raise VlkitError("no texts to encode; give at least one")
    return text_TE


def _keep(store: FeatureStore, keys: Numbers, text_TE: Tensor, ranks: Ranks) -> None:
    """The first process writes a file, which the others take in."""
    name: str | None = None
    with shared_errors(ranks):
        if ranks.rank == 0:
            store.add(keys, text_TE)
            name = store.flush()
    if (written := ranks.gather_objects(name)[0]) is not None:
        store.include([written])


def _blocks(
    model: Embedder, texts: Sequence[tuple[str, str]], rows: Sequence[int], encoding: Encoding, shown: Bar
) -> Iterator[tuple[list[int], Tensor]]:
    """Rows and their embeddings, batch after batch; the processes of a job encode neighbouring batches at a time."""
    size, ranks = encoding.text_batch_size, encoding.ranks
    groups = [list(group) for _, group in groupby(rows, key=lambda row: texts[row][0])]
    batches = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
    for start in range(0, len(batches), ranks.size):
        turn = batches[start : start + ranks.size]
        block_TE = torch.zeros(0, 0)
        with shared_errors(ranks):
            if ranks.rank < len(turn):
                mine = turn[ranks.rank]
                block_TE = encode_texts(model, [texts[row][1] for row in mine], language=texts[mine[0]][0] or None)
        for batch, block in zip(turn, ranks.gather_objects(block_TE.numpy()), strict=False):
            encoding.counts.texts += len(batch)
            shown.advance(len(batch))
            yield batch, torch.from_numpy(block)
