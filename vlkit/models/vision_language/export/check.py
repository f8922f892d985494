"""Exported vision-language models loaded with transformers alone, and compared with what they came from.

Shapes: B rows, L read tokens, R places, V vocabulary, C channels, H height, W width, N images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vlkit.models.vision_language.batch import DialogueRow, collate
from vlkit.models.vision_language.dialogue import Laid
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.parts.configs import check_settings
from vlkit.parts.hf_common import never_asking
from vlkit.types import Turn

_QUESTIONS = ("What is this?", "这是什么？", "ما هذا؟", "Wie viele Hunde sind es, und wo?")
_ANSWER = "a cat"
IMAGE_TOKEN = "<image>"


class LogitDifferences(NamedTuple):
    """Largest absolute differences between the logits of a model and of its export.

    ``logits``: of equal ids and pixels; ``prompts``: of equal questions and pictures, through the library's own
    tokenizer and preprocessing.
    """

    logits: float
    prompts: float


class ProbeQuestion(NamedTuple):
    """One question about a picture as the model reads it, and the logits that it gives."""

    text: str
    picture: Image.Image
    pixels_CHW: Tensor
    laid: Laid
    logits_RV: Tensor


@torch.no_grad()
def probe(model: VisionLanguageModel) -> list[ProbeQuestion]:
    """Asks the questions of the comparison; made before anything of the model is rewritten for an export."""
    layout, found = model.layout, []
    for number, question in enumerate(_QUESTIONS):
        turns = [Turn("user", question, "und")]
        laid = layout.asked(turns, images=1, where="export")
        if layout.encodes:
            written = layout.prefix(_ANSWER)
            laid = laid._replace(targets=written, labels=written)
        picture = _noise(number)
        pixels_CHW = model.transform(picture)
        batch = collate([DialogueRow((pixels_CHW,), laid)], layout, looked_up=False)
        states_BLE = model.language_model(model.read(batch), batch.mask_BL, targets=batch.targets)
        text = layout.written_out(turns, images=1, mark=IMAGE_TOKEN)
        found.append(ProbeQuestion(text, picture, pixels_CHW, laid, model.logits(states_BLE[0])))
    return found


@torch.no_grad()
def compare(model: VisionLanguageModel, folder: Path, *, own: list[ProbeQuestion], format: str) -> LogitDifferences:
    """Loads an export with transformers and asks it the same."""
    import transformers

    check_settings(folder)
    kind = {"blip2": "Blip2ForConditionalGeneration", "llava": "LlavaForConditionalGeneration"}[format]
    with never_asking():
        whole = getattr(transformers, kind).from_pretrained(str(folder)).eval()
        processor = transformers.AutoProcessor.from_pretrained(str(folder))
    tokenizer = processor.tokenizer
    equal, through = 0.0, 0.0
    start = model.language_model.start_id if model.layout.encodes else None  # type: ignore[attr-defined]
    for one in own:
        written = None if start is None else torch.tensor([[start, *(one.laid.targets or ())[:-1]]])
        ids = [
            whole.config.image_token_index if slot else token
            for token, slot in zip(one.laid.ids, one.laid.slots, strict=True)
        ]
        equal = max(equal, _distance(_logits(whole, ids, one.pixels_CHW, written), one.logits_RV))
        ids = tokenizer(one.text, add_special_tokens=False)["input_ids"]
        pixels_CHW = processor.image_processor(images=one.picture, return_tensors="pt")["pixel_values"][0]
        through = max(through, _distance(_logits(whole, ids, pixels_CHW, written), one.logits_RV))
    return LogitDifferences(equal, through)


def _logits(whole: Any, ids: list[int], pixels_CHW: Tensor, written_BL: Tensor | None) -> Tensor:
    ids_BL = torch.tensor([ids])
    options = {} if written_BL is None else {"decoder_input_ids": written_BL}
    output = whole(
        pixel_values=pixels_CHW.unsqueeze(0), input_ids=ids_BL, attention_mask=torch.ones_like(ids_BL), **options
    )
    logits_RV: Tensor = output.logits[0]
    return logits_RV


def _distance(theirs_RV: Tensor, ours_RV: Tensor) -> float:
    """Of the tokens that both know: an export may have rows of its own for images."""
    if len(theirs_RV) != len(ours_RV):
        return float("inf")
    return float((theirs_RV.float()[:, : ours_RV.shape[1]] - ours_RV).abs().max())


def _noise(seed: int) -> Image.Image:
    draw = torch.Generator().manual_seed(seed)
    pixels_HWC = torch.randint(0, 256, (25, 35, 3), generator=draw, dtype=torch.uint8)
    return Image.fromarray(pixels_HWC.numpy()).resize((140, 100))  # smooth, as pictures are
