"""Heads and decoders from their specs."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import UnknownName, VlkitError
from vlkit.nn import heads
from vlkit.nn.decoders import TextDecoder
from vlkit.parts.bridges import build_decoder, build_head
from vlkit.parts.encoders import build_image_encoder, build_text_encoder
from vlkit.spec.parts import (
    DecoderSpec,
    IdentityHeadSpec,
    LinearHeadSpec,
    MlpHeadSpec,
    PrototypeHeadSpec,
    TinyImage,
    TinyText,
)


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
