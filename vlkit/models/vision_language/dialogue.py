"""How turns of a conversation become the ids that a language model reads, the places of images, and what is learned.

Texts that are learned and texts that are not are tokenised apart, so that a question has the same tokens whether an
answer follows or is to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from vlkit.errors import DataError, VlkitError
from vlkit.spec.model import DialogueSpec
from vlkit.types import IMAGE_MARK, Turn

IGNORED = -100
"""The label of a place whose state foretells nothing that is learned."""
_TEXT = "{text}"


class Laid(NamedTuple):
    """One conversation as a language model takes it.

    ``ids`` are read, those at places in ``slots`` stand for model tokens of images; ``labels`` are what the state at
    each place is to foretell. An encoder-decoder writes ``targets``, and the labels are theirs.
    """

    ids: list[int]
    slots: list[bool]
    labels: list[int]
    targets: list[int] | None = None


class _Piece(NamedTuple):
    text: str
    learned: bool


@dataclass(frozen=True)
class Layout:
    """Turns to ids for one language model.

    ``tokenizer`` is transformers', ``encodes`` whether the model is an encoder-decoder, ``image_tokens`` the model
    tokens of an image, ``max_length`` the longest input in tokens. ``reads_with`` is the tokenizer of what is read,
    where it is another than that of what is written.
    """

    tokenizer: Any
    spec: DialogueSpec
    encodes: bool
    image_tokens: int
    max_length: int
    reads_with: Any = None

    def learned(self, turns: Sequence[Turn], *, images: int, seed: int, where: str) -> Laid:
        """A conversation to learn from: the answers, and what ends them.

        Of several answers an encoder-decoder learns one, which ``seed`` draws, and reads those before it. What is
        longer than the context is cut at its end.

        Raises:
            DataError: There is no answer, places and images differ in number, or the question alone fills the context.
        """
        answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
        if not answers:
            raise DataError(f"{where}: it has no turn of the role assistant, so there is nothing to learn")
        if self.encodes:
            turns = turns[: answers[seed % len(answers)] + 1]
            read = self._read(self._pieces(turns[:-1], images=images, where=where, open_end=True), where=where)
            answer = [*self._tokens(turns[-1].text), *self._end][: self.max_length]
            return read._replace(labels=answer, targets=answer)
        return self._read(self._pieces(turns, images=images, where=where, open_end=False), where=where)

    def asked(self, turns: Sequence[Turn], *, images: int, where: str) -> Laid:
        """A conversation up to where an answer is to be written; no label is learned.

        Raises:
            DataError: Places and images differ in number, or it is longer than the context.
        """
        read = self._read(self._pieces(turns, images=images, where=where, open_end=True), where=where)
        return read._replace(targets=[] if self.encodes else None)

    def answered(self, turns: Sequence[Turn], answer: str, *, images: int, where: str) -> Laid:
        """A conversation with the answer whose likelihood is wanted: labels are the answer's and its end's."""
        read = self.asked(turns, images=images, where=where)
        tokens = [*self._tokens(answer), *self._end]
        if self.encodes:
            return read._replace(labels=tokens, targets=tokens)
        if len(read.ids) + len(tokens) > self.max_length:
            raise DataError(f"{where}: question and answer take {len(read.ids) + len(tokens)} tokens; {self._room}")
        return _shifted([*read.ids, *tokens], [*read.slots, *[False] * len(tokens)], learned=len(tokens))

    def prefix(self, text: str) -> list[int]:
        """The tokens of the words that an answer begins with."""
        return self._tokens(text)

    def written_out(self, turns: Sequence[Turn], *, images: int, mark: str) -> str:
        """What ``asked`` reads as one text: with the tokenizer's own marks, and ``mark`` at each place of an image."""
        pieces = self._pieces(turns, images=images, where="prompt", open_end=True)
        lead, read = self._led(pieces)
        first, last = ("".join(self.tokenizer.convert_ids_to_tokens(ids)) for ids in self._frame)
        text = "".join(piece.text for piece in read).replace(IMAGE_MARK, mark * self.image_tokens)
        return mark * lead + first + text + (last if self.encodes else "")

    def _pieces(self, turns: Sequence[Turn], *, images: int, where: str, open_end: bool) -> list[_Piece]:
        """The whole text in pieces that are learned or not, never two of a kind after each other."""
        texts = _with_marks(turns, images, where=where)
        before, after = self.spec.assistant.split(_TEXT)
        pieces = [_Piece(self.spec.system, False)]
        for turn, text in zip(turns, texts, strict=True):
            if turn.role == "assistant":
                pieces += [_Piece(before, False), _Piece(text, True), _Piece(after, False)]
            else:
                frame = self.spec.user if turn.role == "user" else _TEXT
                pieces.append(_Piece(frame.replace(_TEXT, text), False))
        if open_end:
            pieces.append(_Piece(before, False))
        joined: list[_Piece] = []
        for piece in pieces:
            if joined and joined[-1].learned == piece.learned and not piece.learned:
                joined[-1] = _Piece(joined[-1].text + piece.text, False)
            else:
                joined.append(piece)
        return [piece for piece in joined if piece.text or piece.learned]

    def _read(self, pieces: Sequence[_Piece], *, where: str) -> Laid:
        first, last = self._frame
        lead, pieces = self._led(pieces)
        ids = [self.pad] * lead + first
        slots, learned = [True] * lead + [False] * len(first), [False] * len(ids)
        for piece in pieces:
            parts = [piece.text] if piece.learned else piece.text.split(IMAGE_MARK)
            for number, part in enumerate(parts):
                places = self.image_tokens if number else 0
                tokens = self._tokens(part, self._reader) if part else []
                tokens += self._end if piece.learned and not self.encodes else []
                ids += [self.pad] * places + tokens
                slots += [True] * places + [False] * len(tokens)
                learned += [False] * places + [piece.learned and not self.encodes] * len(tokens)
        if self.encodes:
            ids, slots = [*ids, *last], [*slots, *[False] * len(last)]
        if len(ids) > self.max_length:
            ids, slots, learned = self._cut(ids, slots, learned, where=where)
        labels = [token if wanted else IGNORED for token, wanted in zip(ids[1:], learned[1:], strict=False)]
        return Laid(ids, slots, [] if self.encodes else [*labels, IGNORED])

    def _led(self, pieces: Sequence[_Piece]) -> tuple[int, Sequence[_Piece]]:
        """The places of images before all else, where they stand so, and the pieces without those."""
        if not self.spec.images_first or not pieces or pieces[0].learned:
            return 0, pieces
        text = pieces[0].text
        rest = text
        while rest.startswith(IMAGE_MARK):
            rest = rest.removeprefix(IMAGE_MARK)
        images = (len(text) - len(rest)) // len(IMAGE_MARK)
        return images * self.image_tokens, [_Piece(rest, False), *pieces[1:]]

    def _cut(
        self, ids: list[int], slots: list[bool], learned: list[bool], *, where: str
    ) -> tuple[list[int], list[bool], list[bool]]:
        """To the context's length, where something is learned within it."""
        if not any(learned[: self.max_length]) or any(slots[self.max_length :]):
            raise DataError(f"{where}: its question takes {len(ids)} tokens, images included; {self._room}")
        return ids[: self.max_length], slots[: self.max_length], learned[: self.max_length]

    def _tokens(self, text: str, tokenizer: Any = None) -> list[int]:
        tokenizer = tokenizer if tokenizer is not None else self.tokenizer
        found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return found

    @property
    def _reader(self) -> Any:
        return self.reads_with if self.reads_with is not None else self.tokenizer

    @property
    def _room(self) -> str:
        return (
            f"the context has {self.max_length} (model.language_model.max_length), an image takes {self.image_tokens} "
            f"of them; shorten the text, or take a bridge with fewer model tokens"
        )

    @cached_property
    def pad(self) -> int:
        """The id of padding, and of the places of images."""
        return int(self._reader.pad_token_id if self._reader.pad_token_id is not None else 0)

    @cached_property
    def _end(self) -> list[int]:
        """What ends an answer.

        Raises:
            VlkitError: The tokenizer has no end token, and the spec names none.
        """
        if self.spec.end is not None:
            return self._tokens(self.spec.end)
        if self.tokenizer.eos_token_id is None:
            raise VlkitError(
                "the tokenizer has no end token, so the model could not learn where an answer ends; set "
                "model.dialogue.end to a text that ends answers"
            )
        return [int(self.tokenizer.eos_token_id)]

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The marks that the tokenizer itself puts before and behind a text."""
        bare, framed = self._tokens("a", self._reader), self._reader("a")["input_ids"]
        start = next((at for at in range(len(framed)) if framed[at : at + len(bare)] == bare), 0)
        return framed[:start], framed[start + len(bare) :]


def _with_marks(turns: Sequence[Turn], images: int, *, where: str) -> list[str]:
    """The turns' texts; images that no place is said for come first in the first turn that asks."""
    texts = [turn.text for turn in turns]
    asking = [number for number, turn in enumerate(turns) if turn.role != "assistant"]
    places = sum(texts[number].count(IMAGE_MARK) for number in asking)
    if images and not places:
        if not asking:
            raise DataError(f"{where}: it has {images} images and no turn of the role user where they could stand")
        first = next((number for number in asking if turns[number].role == "user"), asking[0])
        texts[first] = IMAGE_MARK * images + texts[first]
    elif places != images:
        raise DataError(f"{where}: its text has {places} places for images ({IMAGE_MARK}) and it has {images} images")
    return texts


def _shifted(ids: list[int], slots: list[bool], *, learned: int) -> Laid:
    labels = [IGNORED] * (len(ids) - learned - 1) + ids[-learned:] + [IGNORED]
    return Laid(ids, slots, labels)
