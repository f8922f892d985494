"""Heads, bridges and decoders from their specs."""

from __future__ import annotations

import pytest
import torch

import vlkit
from vlkit.errors import UnknownName, VlkitError
from vlkit.nn import heads
from vlkit.nn.decoders import TextDecoder
from vlkit.nn.projections import LinearBridge, MlpBridge, PixelShuffleBridge
from vlkit.nn.qformer import QueryTransformer
from vlkit.nn.resampler import Resampler
from vlkit.parts.bridges import build_bridge, build_decoder, build_head
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.bridges import (
    LinearBridgeSpec,
    MlpBridgeSpec,
    PixelShuffleBridgeSpec,
    QFormerBridgeSpec,
    ResamplerBridgeSpec,
)
from vlkit.spec.parts import (
    DecoderSpec,
    IdentityHeadSpec,
    LinearHeadSpec,
    MlpHeadSpec,
    PrototypeHeadSpec,
    TinyImage,
    TinyText,
)
from vlkit.types import Bridge


def test_a_spec_of_something_else_is_no_head() -> None:
    with pytest.raises(UnknownName, match="no head 'TinyText'; there are: identity, linear, mlp"):
        build_head(TinyText(), 16, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "by_hand"),
    [
        (IdentityHeadSpec(), lambda: heads.IdentityHead(16, 16)),
        (LinearHeadSpec(bias=True), lambda: heads.LinearHead(16, 16, bias=True, center=False)),
        (MlpHeadSpec(hidden=8), lambda: heads.MlpHead(16, 16, hidden=8, dropout=0.0, center=False)),
        (
            PrototypeHeadSpec(hidden=8, known_dim=4, num_classes=5),
            lambda: heads.PrototypeHead(
                16, 16, known_dim=4, num_classes=5, gain=2.0, temperature=1.0, hidden=8, dropout=0.0, center=True
            ),
        ),
    ],
)
def test_a_spec_builds_what_plain_arguments_build(spec, by_hand) -> None:
    torch.manual_seed(5)
    built = build_head(spec, 16, 16)
    torch.manual_seed(5)
    plain = by_hand()
    assert type(built) is type(plain) and built.spec == spec and built.kind == spec.kind
    assert built.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in built.state_dict().items())
    assert not hasattr(plain, "spec")  # so that saving a model with it says what it lacks


QFORMER = {"num_queries": 3, "width": 8, "layers": 2, "heads": 2, "ffn": 8}
BRIDGES = [
    (LinearBridgeSpec(), lambda: LinearBridge(12, 16, bias=True)),
    (MlpBridgeSpec(norm=True), lambda: MlpBridge(12, 16, layers=2, norm=True)),
    (PixelShuffleBridgeSpec(), lambda: PixelShuffleBridge(12, 16, factor=2, bias=False)),
    (
        QFormerBridgeSpec(**QFORMER),
        lambda: QueryTransformer(12, 16, **QFORMER, cross_every=2, dropout=0.1, norm_image=False),
    ),
    (
        ResamplerBridgeSpec(num_queries=3, heads=2),
        lambda: Resampler(12, 16, num_queries=3, width=None, layers=2, heads=2, ffn_factor=4),
    ),
]


@pytest.mark.parametrize(("spec", "by_hand"), BRIDGES)
def test_a_bridge_of_a_spec_is_that_of_plain_arguments(spec, by_hand) -> None:
    torch.manual_seed(5)
    built = build_bridge(spec, 12, 16)
    torch.manual_seed(5)
    plain = by_hand()
    assert type(built) is type(plain) and built.spec == spec and built.kind == spec.kind
    assert built.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in built.state_dict().items())
    assert not hasattr(plain, "spec")


@pytest.mark.parametrize("spec", [spec for spec, _ in BRIDGES])
def test_a_bridge_gives_as_many_tokens_as_it_says_without_and_with_weights(spec) -> None:
    built = build_bridge(spec, 12, 16).eval()
    assert isinstance(built, Bridge) and (built.in_width, built.out_width) == (12, 16)
    for count in (9, 16):
        image = torch.randn(2, count, 12)
        assert built(image).shape == (2, built.num_tokens(count), 16)
        torch.testing.assert_close(torch.cat([built(image[:1]), built(image[1:])]), built(image), atol=1e-5, rtol=1e-5)
    empty = build_bridge(spec, 12, 16, empty=True)
    assert all(value.is_meta for value in empty.parameters())
    saved = build_bridge(spec, 12, 16, saved=True).eval()
    saved.load_state_dict(built.state_dict())
    torch.testing.assert_close(saved(image), built(image))


def test_bridges_by_name() -> None:
    bridge = vlkit.QFormer(12, 16, num_queries=3, width=8, layers=2, heads=2, ffn=8)
    assert isinstance(bridge, QueryTransformer) and bridge.spec == QFormerBridgeSpec(**QFORMER)
    assert vlkit.bridge("mlp", 12, 16, norm=True).spec == MlpBridgeSpec(norm=True)
    with pytest.raises(UnknownName, match=r"^no bridge 'mpl'; did you mean 'mlp'"):
        vlkit.bridge("mpl", 12, 16)
    with pytest.raises(UnknownName, match="no bridge 'TinyText'; there are: linear, mlp"):
        build_bridge(TinyText(), 12, 16)  # type: ignore[arg-type]


def test_a_decoder_holds_what_its_spec_asks_for() -> None:
    spec = DecoderSpec(width=16, heads=2, ffn=32, text_layers=2, image_layers=0, patch_size=4)
    image, text = build_image_encoder(TinyImage(width=8)), build_text_encoder(TinyText(width=12))
    decoder = build_decoder(spec, image, text)
    assert isinstance(decoder.text, TextDecoder) and decoder.image is None and decoder.spec == spec
    assert decoder.text.output_map.shape == (258, 16) and decoder.text.embedding.num_embeddings == 260
    assert decoder.text.stack.source_norm.weight.shape == (8,)


@pytest.mark.parametrize("lost", ["vocab_size", "vocabulary"])
def test_a_decoder_beside_a_text_encoder_that_tells_no_tokens(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text = build_image_encoder(TinyImage()), build_text_encoder(TinyText())
    monkeypatch.delattr(type(text), lost)
    with pytest.raises(VlkitError) as error:
        build_decoder(DecoderSpec(), image, text)
    assert str(error.value) == (
        f"model.decoder: the text encoder TinyTextEncoder has no {lost}, so no decoder can be built beside it; choose "
        f"another one, or leave the decoder out"
    )
