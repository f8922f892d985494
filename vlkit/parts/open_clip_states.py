"""What open_clip's towers tell beside their features (states, widths, vocabulary), and short texts without padding.

Shapes: B batch, C channels, H height, W width, h and w rows and columns of tokens, L text length, N image tokens,
D feature width, T width of the states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.parts.vocabulary import hf_vocabulary, marked_vocabulary
from vlkit.types import Vocabulary


def image_states(tower: Any, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """features_BD and the last block's tokens_BNT, the class token left out."""
    found = tower.forward_intermediates(pixels_BCHW, indices=1, normalize_intermediates=True)
    last_BThw: Tensor = found["image_intermediates"][-1]
    return found["image_features"], last_BThw.flatten(2).transpose(1, 2)


def block_states(tower: Any, pixels_BCHW: Tensor, *, blocks: list[int] | None) -> list[Tensor]:
    """tokens_BNT as they leave these blocks, which count from 0, or all; no later one is run."""
    found = tower.forward_intermediates(pixels_BCHW, indices=blocks, intermediates_only=True, stop_early=True)
    return [one_BThw.flatten(2).transpose(1, 2) for one_BThw in found["image_intermediates"]]


def image_token_width(tower: Any) -> int:
    """T of an image tower: a model of timm's, a vision transformer or a ResNet."""
    if hasattr(tower, "trunk"):
        return int(tower.trunk.num_features)
    return int(tower.transformer.width if hasattr(tower, "transformer") else tower.attnpool.k_proj.in_features)


def extra_image_tokens(tower: Any) -> int:
    """Tokens of an image tower beside those of places: a class token, or what a model of timm's has."""
    if hasattr(tower, "trunk"):
        return int(getattr(tower.trunk, "num_prefix_tokens", 0))
    return int(hasattr(tower, "class_embedding"))


def text_states(tower: Any, ids_BL: Tensor, *, where: str) -> tuple[Tensor, Tensor]:
    """features_BD and the last block's states_BLT.

    Raises:
        VlkitError: It is a tower of transformers, whose states open_clip does not give.
    """
    if not hasattr(tower, "forward_intermediates"):
        raise VlkitError(
            f"{where}: open_clip gives no states of a text tower of transformers; name that tower itself, with kind hf"
        )
    found = tower.forward_intermediates(ids_BL, indices=1, normalize_intermediates=True, output_fmt="NLC")
    return found["text_features"], found["text_intermediates"][-1]


def reads_left_to_right(tower: Any) -> bool:
    """Whether a text tower takes its feature at the end token, which sees what stands before it alone.

    Padding behind the end token then changes nothing.
    """
    plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
    return plain and getattr(tower, "pool_type", "") in ("argmax", "eos") and isinstance(tower.attn_mask, Tensor)


@contextmanager
def cut_to(tower: Any, length: int) -> Iterator[None]:
    """Lets a text tower that reads from left to right take texts of another length than its fixed one."""
    whole_LL = tower.attn_mask
    tower.attn_mask = whole_LL[:length, :length]
    try:
        yield
    finally:
        tower.attn_mask = whole_LL


def short_text(tower: Any, ids_BL: Tensor, mask_BL: Tensor) -> Any:
    """What a text tower gives; one that reads from left to right is spared the padding that all texts have."""
    if not reads_left_to_right(tower):
        return tower(ids_BL)
    length = max(1, int(mask_BL.sum(dim=1).max()))
    with cut_to(tower, length):
        return tower(ids_BL[:, :length])


def text_table(tower: Any) -> Any:
    """The token embedding of a text tower."""
    whole: Any = getattr(tower, "transformer", None)
    return whole.get_input_embeddings() if hasattr(whole, "get_input_embeddings") else tower.token_embedding


def text_vocabulary(tokenizer: Any, *, rows: int) -> Vocabulary:
    """What the ids of an open_clip tokenizer mean."""
    if (inner := getattr(tokenizer, "tokenizer", None)) is not None:
        return hf_vocabulary(inner, rows=rows)
    tokens = [tokenizer.decoder.get(index) for index in range(tokenizer.vocab_size)]
    return marked_vocabulary(tokens, special=tokenizer.all_special_ids, rows=rows)
