"""Which token ids begin and end words, of each kind of tokenizer."""

from __future__ import annotations

import torch

from vlkit.parts.encoders import build_text_encoder
from vlkit.parts.vocabulary import byte_vocabulary, marked_vocabulary
from vlkit.spec.parts import TinyText
from vlkit.types import Vocabulary


def starts(tokens: list[str], **more: object) -> list[bool]:
    return marked_vocabulary(tokens, special=[], rows=len(tokens), **more).starts_V.tolist()  # type: ignore[arg-type]


def test_bytes() -> None:
    found = byte_vocabulary(259)
    assert found.special_V.nonzero().flatten().tolist() == [256, 257, 258]
    text = "ab é 猫ก"
    begins = [bool(found.starts_V[byte]) for byte in text.encode()]
    # a b space e-acute (two bytes) space, then two characters of three bytes each
    assert begins == [False, False, True, False, False, True, True, False, False, True, False, False]


def test_word_pieces() -> None:
    assert starts(["cat", "##s", "猫", "."]) == [True, False, True, True]


def test_sentence_pieces_and_scripts_without_spaces() -> None:
    assert starts(["▁ein", "er", "▁", "猫", "の", "แมว", "s"]) == [True, False, True, True, True, True, False]


def test_byte_level_pieces() -> None:
    wide = "ç"  # how byte-level BPE writes the byte 0xE7, the first of the cat's character
    assert starts(["Ġcat", "s", wide, "Ċ"]) == [True, False, True, False]


def test_pieces_with_an_end_mark() -> None:
    found = marked_vocabulary(["cat</w>", "ca", "<s>"], special=[2], rows=4)
    assert found.starts_V.tolist() == [False, False, True, True] and found.ends_V.tolist() == [True, False, True, True]
    assert found.special_V.tolist() == [False, False, True, True]


def test_without_marks_each_token_is_a_word() -> None:
    assert starts(["a", "b", "cd"]) == [True, True, True]


def test_encoders_tell_it() -> None:
    encoder = build_text_encoder(TinyText())
    told: Vocabulary = encoder.vocabulary()  # type: ignore[operator]
    assert len(told.special_V) == encoder.vocab_size == encoder.embedding.num_embeddings  # type: ignore[union-attr]
    ids_BL = encoder.tokenize(["a b"]).ids_BL  # type: ignore[operator]
    assert torch.equal(told.special_V[ids_BL], torch.tensor([[False, False, False, True]]))
