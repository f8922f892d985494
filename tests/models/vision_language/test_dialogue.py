"""What is learned of a conversation, where images stand, and that a question reads alike with and without an answer."""

from __future__ import annotations

import pytest
from transformers import ByT5Tokenizer

from vlkit.errors import DataError, VlkitError
from vlkit.models.vision_language.dialogue import IGNORED, Layout
from vlkit.spec.model import DialogueSpec
from vlkit.types import Turn

TOKENIZER = ByT5Tokenizer()
END, PAD = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
SPEC = DialogueSpec(system="S", user="U:{text} ", assistant="A:{text};")


def layout(*, encodes: bool = False, spec: DialogueSpec = SPEC, image_tokens: int = 3, room: int = 200) -> Layout:
    return Layout(TOKENIZER, spec, encodes, image_tokens, room)


def turns(*texts: str) -> list[Turn]:
    return [Turn("user" if number % 2 == 0 else "assistant", text, "en") for number, text in enumerate(texts)]


def read(ids: list[int]) -> str:
    """Ids as text: ``.`` is a place of an image, ``$`` the end token."""
    return "".join({PAD: ".", END: "$"}.get(token) or TOKENIZER.decode([token]) for token in ids)


def learned(laid) -> str:
    """What is foretold, each token under the place before it."""
    return "".join("_" if token == IGNORED else read([token]) for token in laid.labels)


def test_of_one_turn_the_answer_and_its_end_are_learned() -> None:
    laid = layout().learned(turns("hi?", "yo"), images=1, seed=0, where="x")
    assert read(laid.ids) == "SU:...hi? A:yo$;"
    assert learned(laid) == "___________yo$__".replace("___________", "_" * 11)
    assert [number for number, slot in enumerate(laid.slots) if slot] == [3, 4, 5]
    assert laid.targets is None


def test_of_three_turns_all_answers_are_learned_and_nothing_else() -> None:
    laid = layout().learned(turns("a", "b", "c", "d", "e", "f"), images=0, seed=0, where="x")
    assert read(laid.ids) == "SU:a A:b$;U:c A:d$;U:e A:f$;"
    assert learned(laid) == "______b$_______d$_______f$__"
    for place, label in enumerate(laid.labels):
        assert label in (IGNORED, laid.ids[place + 1] if place + 1 < len(laid.ids) else IGNORED)


@pytest.mark.parametrize(("seed", "question", "answer"), [(0, "SU:a A:$", "b$"), (1, "SU:a A:b;U:c A:$", "d$")])
def test_an_encoder_decoder_learns_one_of_the_answers(seed: int, question: str, answer: str) -> None:
    laid = layout(encodes=True).learned(turns("a", "b", "c", "d"), images=0, seed=seed, where="x")
    assert read(laid.ids) == question
    assert read(laid.targets) == answer
    assert laid.labels == laid.targets


def test_a_question_reads_alike_whether_an_answer_follows_or_is_to_be_written() -> None:
    for encodes in (False, True):
        one = layout(encodes=encodes)
        asked = one.asked(turns("a", "b", "c"), images=2, where="x")
        whole = one.learned(turns("a", "b", "c", "answer"), images=2, seed=1, where="x")
        scored = one.answered(turns("a", "b", "c"), "answer", images=2, where="x")
        assert whole.ids[: len(asked.ids)] == asked.ids == scored.ids[: len(asked.ids)]
        assert [token for token in scored.labels if token != IGNORED] == [*TOKENIZER("answer").input_ids[:-1], END]


def test_images_stand_where_the_text_says() -> None:
    laid = layout(image_tokens=2).learned(turns("is <image> or <image> it?", "no"), images=2, seed=0, where="x")
    assert read(laid.ids) == "SU:is .. or .. it? A:no$;"
    assert layout().learned(turns("a", "say <image>"), images=0, seed=0, where="x").slots.count(True) == 0


def test_an_end_of_ones_own() -> None:
    laid = layout(spec=DialogueSpec(user="{text}", end="###")).learned(turns("a", "b"), images=0, seed=0, where="x")
    assert read(laid.ids) == "ab###"
    assert learned(laid) == "b###_"


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match=r"^x: its text has 1 places for images \(<image>\) and it has 2 images$"):
        layout().learned(turns("<image>", "b"), images=2, seed=0, where="x")
    with pytest.raises(DataError, match=r"^x: it has no turn of the role assistant, so there is nothing to learn$"):
        layout().learned(turns("a"), images=0, seed=0, where="x")
    with pytest.raises(DataError, match=r"^x: its question takes 34 tokens, images included; the context has 20 "):
        layout(room=20).asked(turns("word " * 5), images=1, where="x")
    cut = layout(room=12).learned(turns("a", "a long answer"), images=0, seed=0, where="x")
    assert read(cut.ids) == "SU:a A:a lon"
    assert cut.labels[-1] == IGNORED


def test_a_tokenizer_that_ends_nothing_needs_an_end_of_the_spec() -> None:
    class Endless:
        eos_token_id, pad_token_id = None, 0

        def __call__(self, text: str, **more: object) -> dict[str, list[int]]:
            return {"input_ids": list(text.encode())}

    with pytest.raises(VlkitError, match=r"^the tokenizer has no end token, .* set model.dialogue.end to a text"):
        Layout(Endless(), DialogueSpec(), False, 1, 99).learned(turns("a", "b"), images=0, seed=0, where="x")
