"""What is told of an image tokenizer before it is used; its weights may be on the meta device."""

from __future__ import annotations

import math

from vlkit.models.image_tokenizer.model import ImageTokenizerModel


def facts(model: ImageTokenizerModel) -> dict[str, int | str]:
    """Its codes: how many there are, how many an image has, and what an image takes in bits."""
    rows, columns = model.tokenizer.grid
    size = model.tokenizer.codebook_size
    return {
        "codes": size,
        "code grid": f"{rows}x{columns}",
        "codes per image": rows * columns,
        "bits per image": round(rows * columns * math.log2(size)),
    }
