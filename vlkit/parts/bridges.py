"""Builds what stands between and beside parts: heads, bridges to language models, decoders for training."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from vlkit.errors import UnknownName, VlkitError
from vlkit.nn import heads
from vlkit.nn.condition_bridges import ConditionBridge, MulanBridge, PeaBridge
from vlkit.nn.decoders import Decoder, PatchDecoder, TextDecoder
from vlkit.nn.projections import BaseBridge, LinearBridge, MlpBridge, PixelShuffleBridge
from vlkit.nn.qformer import QueryTransformer
from vlkit.nn.resampler import Resampler
from vlkit.parts.building import weightless
from vlkit.parts.qformer_weights import load_qformer
from vlkit.paths import local_path
from vlkit.spec import bridges as specs
from vlkit.spec.diffusion import ConditionBridgeSpec
from vlkit.spec.parts import DecoderSpec, HeadSpec
from vlkit.types import GivesStates, ImageEncoder, KnowsVocabulary, TextEncoder, lacking

_HEADS: dict[str, type[heads.Head]] = {
    head.kind: head for head in (heads.IdentityHead, heads.LinearHead, heads.MlpHead, heads.PrototypeHead)
}
_BRIDGES: dict[str, type[BaseBridge]] = {
    kind.kind: kind for kind in (LinearBridge, MlpBridge, PixelShuffleBridge, QueryTransformer, Resampler)
}
_CONDITIONS: dict[str, type[ConditionBridge]] = {kind.kind: kind for kind in (PeaBridge, MulanBridge)}
_ANY_BRIDGE: TypeAdapter[specs.BridgeSpec] = TypeAdapter(specs.BridgeSpec)


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


def build_bridge(
    spec: specs.BridgeSpec, in_width: int, out_width: int, *, saved: bool = False, empty: bool = False
) -> BaseBridge:
    """The bridge that ``spec`` describes: a torch module that has ``spec``, too.

    Args:
        spec: What to build.
        in_width: T of the image tokens.
        out_width: E of the model tokens.
        saved: Weights stay unset until a state dict is loaded; those that the spec names are not read.
        empty: No weights at all: parameters on the meta device.

    Raises:
        ShapeError: Sizes that do not go together.
        AssetError: Weights that the spec names cannot be read.
        VlkitError: They are of no such Q-Former.
    """
    if spec.kind not in _BRIDGES:
        raise UnknownName("bridge", type(spec).__name__, allowed=_BRIDGES)
    with weightless(saved=saved, empty=empty):
        built = _BRIDGES[spec.kind](in_width, out_width, **spec.model_dump(exclude={"kind", "weights"}))
    built.spec = spec
    weights = None if saved or empty else getattr(spec, "weights", None)
    if isinstance(built, QueryTransformer) and weights is not None:
        load_qformer(built, local_path(weights))
    return built


def build_condition_bridge(
    spec: ConditionBridgeSpec, in_width: int, out_width: int, *, count: int, saved: bool = False, empty: bool = False
) -> ConditionBridge:
    """The bridge from a text encoder to a denoiser that ``spec`` describes: a torch module that has ``spec``, too.

    Args:
        spec: What to build.
        in_width: T of the text encoder's states.
        out_width: E of the states that the denoiser reads.
        count: How many of them it reads.
        saved: Weights stay unset until a state dict is loaded.
        empty: No weights at all: parameters on the meta device.

    Raises:
        ShapeError: Sizes that do not go together.
    """
    if spec.kind not in _CONDITIONS:
        raise UnknownName("bridge", type(spec).__name__, allowed=_CONDITIONS)
    with weightless(saved=saved, empty=empty):
        built = _CONDITIONS[spec.kind](in_width, out_width, count=count, **spec.model_dump(exclude={"kind"}))
    built.spec = spec
    return built


def bridge(kind: str, in_width: int, out_width: int, **fields: Any) -> BaseBridge:
    """A bridge by its kind, with fresh weights: ``bridge("mlp", encoder.token_width, llm.width, layers=2)``.

    Args:
        kind: ``linear``, ``mlp``, ``pixel_shuffle``, ``qformer`` or ``resampler``.
        in_width: T of the image tokens.
        out_width: E of the model tokens.
        fields: Those of its spec (``vlkit.spec.bridges``); what is left out is as it says there.

    Raises:
        UnknownName: There is no such kind.
    """
    if kind not in _BRIDGES:
        raise UnknownName("bridge", kind, allowed=_BRIDGES)
    return build_bridge(_ANY_BRIDGE.validate_python({"kind": kind, **fields}), in_width, out_width)


def QFormer(in_width: int, out_width: int, **fields: Any) -> BaseBridge:  # noqa: N802 - reads as the thing it makes
    """A Q-Former (BLIP-2) between image tokens and a language model: ``QFormer(768, 640, num_queries=32)``.

    Args:
        in_width: T of the image tokens.
        out_width: E of the model tokens.
        fields: Those of ``vlkit.spec.bridges.QFormerBridgeSpec``; what is left out is as it says there.
    """
    return bridge("qformer", in_width, out_width, **fields)


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
