"""What a sample teaches a model that answers: laws of its turns."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from vlkit.errors import DataError
from vlkit.image_prompts import question_prompts
from vlkit.models.turns import prompts_of, turns_of
from vlkit.spec.dataset import PromptsSpec
from vlkit.types import Pick, Sample, Turn

DOG = Sample("dog", (), {"de": ("Hund", "ein Hund"), "fr": ("chien",)})
ASKED = (Turn("user", "<image>\n <image> Was ist das?", "de"), Turn("assistant", "un chien", "fr"))


def test_a_caption_answers_a_prompt_in_its_language_and_the_pick_alone_decides_which() -> None:
    prompts = prompts_of(PromptsSpec())
    seen = Counter()
    for seed in range(600):
        pick = Pick(0, "de", seed, seed)
        question, answer = turns_of(DOG, pick, prompts)
        assert turns_of(DOG, replace(pick, index=7), prompts)[0] == question
        assert question.role == "user" and question.text in question_prompts("caption", "de")
        assert answer == Turn("assistant", DOG.captions["de"][seed % 2], "de")
        seen[question.text] += 1
    assert set(seen) == set(question_prompts("caption", "de"))
    native = sum(seen[one] for one in question_prompts("caption", "de", wording="native"))
    assert 250 < native < 350


def test_a_conversation_stays_as_it_is() -> None:
    sample = replace(DOG, turns=ASKED, captions={})
    assert turns_of(sample, Pick(0, "fr", 0, 0), prompts_of(PromptsSpec())) == ASKED
    assert turns_of(replace(sample, task="caption"), Pick(0, "fr", 0, 0), prompts_of(PromptsSpec())) == ASKED


def test_a_question_is_put_into_a_prompt_that_names_the_language_of_its_answer() -> None:
    turns = (Turn("system", "Be kind.", "en"), *ASKED, Turn("user", "And now?", "en"), Turn("assistant", "ja", "de"))
    found = turns_of(replace(DOG, turns=turns, task="vqa"), Pick(0, "fr", 0, 3), prompts_of(PromptsSpec()))
    assert [turn.role for turn in found] == [turn.role for turn in turns]
    assert [found[number] for number in (0, 2, 4)] == [turns[number] for number in (0, 2, 4)]
    assert found[1].text.startswith("<image>\n <image> ")
    assert found[1].text.removeprefix("<image>\n <image> ") in {
        one.replace("{question}", "Was ist das?") for one in question_prompts("vqa", "fr")
    }
    assert found[3].text in {one.replace("{question}", "And now?") for one in question_prompts("vqa", "de")}


def test_a_sample_with_nothing_to_say_in_the_language_is_told() -> None:
    with pytest.raises(DataError) as caught:
        turns_of(DOG, Pick(0, "sw", 0, 0), prompts_of(PromptsSpec()))
    assert str(caught.value).startswith("sample 'dog' has no caption in sw; ")
    with pytest.raises(DataError, match="sample 'dog' has turns of a conversation, no captions in fr"):
        Pick(0, "fr", 0, 0).caption(replace(DOG, turns=ASKED, captions={}))
