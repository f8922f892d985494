"""What a sample teaches a model that answers: its own conversation, or a prompt about its image and the caption."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from itertools import pairwise

from vlkit.image_prompts import ImagePrompts
from vlkit.spec.dataset import PromptsSpec
from vlkit.types import IMAGE_MARK, Pick, Sample, Turn

_LEADING_MARKS = re.compile(rf"(?:\s*{re.escape(IMAGE_MARK)})*\s*")


def prompts_of(spec: PromptsSpec) -> ImagePrompts:
    """What captioned images are asked with.

    Raises:
        UnknownName: No such task.
        DataError: A file of prompts that cannot be used.
    """
    return ImagePrompts(spec.task, spec.wording, spec.templates)


def turns_of(sample: Sample, pick: Pick, prompts: ImagePrompts) -> tuple[Turn, ...]:
    """The conversation that a pick of a sample teaches.

    Of a captioned image it is a prompt and the picked caption. A sample's own turns stay as they are, except that the
    questions of a task with prompts for them (``vqa``) are put into one that names the language of the answer; images
    that stood before a question stay before it. Which prompt it is depends on the pick's random number alone.

    Raises:
        DataError: The sample has neither turns nor a caption in the picked language.
    """
    number = int.from_bytes(hashlib.blake2b(b"%d" % pick.view_seed, digest_size=8).digest(), "big")
    if not sample.turns:
        caption = pick.caption(sample)
        prompt = prompts.choose(pick.language, task=sample.task, number=number)
        return Turn("user", prompt, pick.language), Turn("assistant", caption, pick.language)
    if not prompts.asks(sample.task):
        return sample.turns
    turns = list(sample.turns)
    for place, (question, answer) in enumerate(pairwise(sample.turns)):
        if (question.role, answer.role) == ("user", "assistant"):
            marks = _LEADING_MARKS.match(question.text)
            before = marks[0] if marks else ""
            text = prompts.choose(
                answer.language, task=sample.task, number=number + place, question=question.text[len(before) :]
            )
            turns[place] = replace(question, text=before + text)
    return tuple(turns)
