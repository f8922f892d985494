"""What is told of a text-to-image model before it is used; its weights may be on the meta device."""

from __future__ import annotations

from vlkit.models.text_to_image.model import TextToImageModel
from vlkit.nn.code_head import CodeHead


def facts(model: TextToImageModel) -> dict[str, int | str]:
    """Sizes of its codes, what they pass through, and how long prompts can be."""
    head: CodeHead = model.head
    return {
        "codes": head.codebook_size,
        "code grid": f"{head.grid[0]}x{head.grid[1]}",
        "codes per image": model.num_codes,
        "body": model.body.spec.kind,
        "body width": model.body.width,
        "longest prompt": model.layout.max_length,
        "vocabulary": model.language_model.vocab_size,
    }
