"""How published evaluations ask: prompts and decoding of mBLIP, Centurio and M5, beside vlkit's own.

Slots: ``{question}`` (or the statement), ``{language}`` and ``{autonym}`` of the answer, ``{options}`` in lines
"A. ...", ``{images}`` for the places of images, ``{count}`` of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Literal

from vlkit import languages as language_table
from vlkit.data.questions.question_records import ImageQuestion
from vlkit.image_prompts import question_prompts
from vlkit.spec.language import GenerationSpec
from vlkit.spec.question_sets import QuestionForm
from vlkit.types import IMAGE_MARK

Preset = Literal["vlkit", "mblip", "centurio", "m5"]
_SLOT = re.compile(r"\{(\w+)\}")
_SHORT = "{question}\nAnswer the question using a single word or phrase."


@dataclass(frozen=True)
class PublishedPrompts:
    """How one paper asks.

    Attributes:
        templates: By what the questions are.
        generation: How answers are written.
        cleaned: Answers go through VQAv2's processing before they are compared.
    """

    templates: Mapping[QuestionForm, str]
    generation: GenerationSpec = field(default_factory=lambda: GenerationSpec(max_tokens=10))
    cleaned: bool = False


PRESETS: Mapping[Preset, PublishedPrompts] = {
    "vlkit": PublishedPrompts(
        {
            "open": "",  # of data/image_prompts.yaml
            "entailment": 'Look at the image: is it true that "{question}"? Answer yes, no or maybe.',
            "pair": "{images}Is this true of the two images? {question} Answer yes or no.",
            "outlier": "{images}Five pictures, A to E: of which one is this not true? {question} Answer by its letter.",
            "choice": "{question}\n{options}\nAnswer with the letter of the right option.",
        },
        GenerationSpec(max_tokens=24),
    ),
    "mblip": PublishedPrompts(  # arXiv 2307.06930, appendix; 5 beams that favour short answers
        {
            "open": "Question: {question} Short answer in {language}:",
            "entailment": 'Is it guaranteed true that "{question}"? Yes, no, or maybe? Answer in English:',
            "pair": 'Based on the two images, is it correct to say "{question}"? Yes or no? Answer in English:',
        },
        GenerationSpec(max_tokens=10, beams=5, length_penalty=-1.0),
        cleaned=True,
    ),
    "centurio": PublishedPrompts(  # arXiv 2501.05122, appendix C
        {
            "open": f"{_SHORT}\nAnswer in {{language}}.",
            "entailment": 'Is it guaranteed true that "{question}"? Yes, no, or maybe? Answer in English.',
            "pair": 'Given the two images {images}, is it correct to say "{question}"? Answer yes or no.',
            "outlier": "Based on the 5 images {images}, which image does not match the hypothesis "
            '"{question}"? Choose one from [A, B, C, D, E] and only output a single letter:',
            "choice": "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
        }
    ),
    "m5": PublishedPrompts(  # arXiv 2407.03791; its images stand in one picture
        {
            "pair": "Based on the two images, is it correct to say \u201d{question}\u201d? Yes or no? "
            "One word answer in English:",
            "outlier": "Based on the 5 images ordered from top-left to bottom-right, which image does not match the "
            "hypothesis \u201d{question}\u201d? Choose one from [A, B, C, D, E]:",
        }
    ),
}
"""Name of a preset to how it asks."""
SHORT_OPEN = _SHORT
"""Centurio's prompt for SMPQA, which says no language."""


def template_of(
    preset: Preset, form: QuestionForm, language: str, *, wording: Literal["english", "native"] = "english"
) -> str:
    """The template of a preset; its slots are still there.

    Args:
        preset: One that has templates for ``form``.
        form: What the questions are.
        language: BCP 47 tag that is to be answered in.
        wording: ``native`` takes vlkit's own prompt in that language for open questions and statements about pairs,
            where there is one.
    """
    if wording == "native" and form in ("open", "pair"):
        return question_prompts("vqa" if form == "open" else "yes_no", language, wording="native")[0]
    return PRESETS[preset].templates[form] or question_prompts("vqa", language, wording="english")[0]


def asked(template: str, question: ImageQuestion, *, seen: bool) -> str:
    """What a model reads: the template with a question in it, its images ``seen`` or not.

    Where they are not the marks for their places are taken out.
    """
    row = language_table.get(question.answer_language)
    named = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, question.options, strict=False)]
    slots = {
        "question": question.text,
        "language": row.name,
        "autonym": row.autonym,
        "options": "\n".join(named),
        "images": IMAGE_MARK * len(question.images),
        "count": str(len(question.images)),
    }
    text = _SLOT.sub(lambda slot: slots.get(slot[1], slot[0]), template)
    return text if seen and question.images else re.sub(f" ?{IMAGE_MARK}", "", text).strip()
