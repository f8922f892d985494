"""Builds what stands between and beside encoders from its spec: heads into a shared space, decoders for training."""

from __future__ import annotations

from vlkit.errors import UnknownName, VlkitError
from vlkit.nn import heads
from vlkit.nn.decoders import Decoder, PatchDecoder, TextDecoder
from vlkit.spec.parts import DecoderSpec, HeadSpec
from vlkit.types import GivesStates, ImageEncoder, KnowsVocabulary, TextEncoder, lacking

_HEADS: dict[str, type[heads.Head]] = {
    head.kind: head for head in (heads.IdentityHead, heads.LinearHead, heads.MlpHead, heads.PrototypeHead)
}


def build_head(spec: HeadSpec, in_width: int, out_width: int) -> heads.Head:
    """The head that ``spec`` describes, with fresh weights.

    Raises:
        ShapeError: An identity head between unequal widths.
    """
    if spec.kind not in _HEADS:
        raise UnknownName("head", type(spec).__name__, allowed=_HEADS)
    head = _HEADS[spec.kind](in_width, out_width, **spec.model_dump(exclude={"kind"}))
    head.spec = spec
    return head


def build_decoder(spec: DecoderSpec, image: ImageEncoder, text: TextEncoder) -> Decoder:
    """The decoders of a model between these encoders, with fresh weights.

    Raises:
        VlkitError: The text encoder does not tell how many tokens it knows.
    """
    if not isinstance(text, KnowsVocabulary):
        raise VlkitError(
            f"model.decoder: the text encoder {type(text).__name__} has no {lacking(text, KnowsVocabulary)[0]}, so no "
            f"decoder can be built beside it; choose another one, or leave the decoder out"
        )
    size = {"width": spec.width, "heads": spec.heads, "hidden": spec.ffn}
    text_width = text.token_width if isinstance(text, GivesStates) else text.width
    sees_image = {"layers": spec.text_layers, "source_width": image.token_width}
    sees_text = {"layers": spec.image_layers, "source_width": text_width}
    decoder = Decoder(
        TextDecoder(**size, vocab_size=text.vocab_size, **sees_image) if spec.text_layers else None,
        PatchDecoder(**size, patch_size=spec.patch_size, **sees_text) if spec.image_layers else None,
    )
    decoder.spec = spec
    return decoder
