"""Laws of a joined language model: the decoder as it was at first, then one that looks at what was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit.errors import VlkitError
from vlkit.parts.language_models import build_language_model
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.language import GenerationSpec, HfLanguage, JoinedLanguage, TinyLanguage
from vlkit.types import LanguageModel, ReadsOtherTokens, TextBatch

_PAIRS = [("t5", "gemma2"), ("mt5", "llama"), ("t5", "bloom")]
_READ = [[72, 101, 33, 108, 111, 35, 200, 90, 77, 81], [88, 90, 91, 92]]
_TARGETS = [[44, 45, 46], [50, 51, 52, 53, 1]]


def _spec(encoder: str, decoder: str, /, **fields: Any) -> JoinedLanguage:
    sides = {"encoder": TinyLanguage(architecture=encoder), "decoder": TinyLanguage(architecture=decoder, width=48)}
    return JoinedLanguage(**{**sides, "heads": 4, **fields})  # type: ignore[arg-type]


def _model(encoder: str, decoder: str, *, gate: float = 2.0, **fields: Any) -> Any:
    torch.manual_seed(0)
    model: Any = build_language_model(_spec(encoder, decoder, **fields))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gate"):
                parameter.fill_(gate)
            elif ".attention.out." in name or ".attention.key_value." in name:
                parameter.normal_(std=0.3)
    return model


def _states(model: Any, rows: list[list[int]], targets: list[list[int]]) -> torch.Tensor:
    ids_BL, mask_BL = pad_rows(rows, pad_id=0)
    return model(model.embed(ids_BL), mask_BL, targets=pad_rows(targets, pad_id=0))


@pytest.mark.parametrize(("encoder", "decoder"), _PAIRS)
def test_at_first_the_decoder_is_as_it_was(encoder: str, decoder: str) -> None:
    model = _model(encoder, decoder, gate=0.0)
    assert isinstance(model, LanguageModel) and isinstance(model, ReadsOtherTokens) and model.encodes
    assert (model.width, model.vocab_size) == (32, len(model.tokenizer)) and model.reader is not model.tokenizer
    torch.manual_seed(0)
    build_language_model(TinyLanguage(architecture=encoder))
    plain: Any = build_language_model(TinyLanguage(architecture=decoder, width=48))
    start = model.tokenizer.bos_token_id
    want_LE = plain(plain.embed(torch.tensor([[start, *_TARGETS[1][:-1]]])), torch.ones(1, 5).long())[0]
    torch.testing.assert_close(_states(model, _READ, _TARGETS)[1], want_LE)
    torch.testing.assert_close(model.logits(want_LE), plain.logits(want_LE))


@pytest.mark.parametrize(("encoder", "decoder"), _PAIRS)
def test_what_is_read_counts_then_and_padding_does_not(encoder: str, decoder: str) -> None:
    model = _model(encoder, decoder)
    together_BLE = _states(model, _READ, _TARGETS)
    for row, (read, target) in enumerate(zip(_READ, _TARGETS, strict=True)):
        alone_LE = _states(model, [read], [target])[0]
        torch.testing.assert_close(together_BLE[row, : len(target)], alone_LE, atol=1e-5, rtol=1e-5)
        other_LE = _states(model, [[*read[:-1], 99]], [target])[0]
        assert (other_LE - alone_LE).abs().amax(dim=-1).gt(1e-3).all()
    ids_BL, mask_BL = pad_rows(_READ, pad_id=7)
    left = TextBatch(*(torch.stack([one[0], one[1].roll(-4)]) for one in (ids_BL, mask_BL)))
    assert left.mask_BL[1].tolist() == [0] * 6 + [1] * 4
    written = pad_rows(_TARGETS, pad_id=3)
    torch.testing.assert_close(
        model(model.embed(left.ids_BL), left.mask_BL, targets=written)[written.mask_BL > 0],
        together_BLE[written.mask_BL > 0], atol=1e-5, rtol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(("encoder", "decoder"), _PAIRS)
@torch.no_grad()
def test_cached_in_a_batch_is_uncached_row_by_row(encoder: str, decoder: str) -> None:
    model = _model(encoder, decoder)
    ids_BL, mask_BL = pad_rows(_READ, pad_id=0)
    prefix = pad_rows([[100], [101, 102]], pad_id=0)
    generation = GenerationSpec(max_tokens=12, min_tokens=12, repetition_penalty=3.0)
    lines: list[list[int]] = []
    plain = model.tokenizer.decode
    model.tokenizer.decode = lambda ids, **options: (lines.append(list(ids)), plain(ids, **options))[1]
    model.generate(model.embed(ids_BL), mask_BL, generation=generation, prefix=prefix)
    texts = [line for line in lines if len(line) > 2]
    for row, begun in enumerate(([100], [101, 102])):
        written: list[int] = []
        for _ in range(12):
            states_LE = _states(model, [_READ[row]], [[*begun, *written, 0]])[0]
            scores_V = model.logits(states_LE[-1:])[0]
            scores_V[written] = torch.where(scores_V[written] > 0, scores_V[written] / 3, scores_V[written] * 3)
            scores_V[1] = -torch.inf  # no end yet
            written.append(int(scores_V.argmax()))
        assert texts[row] == [*begun, *written]
    beams = GenerationSpec(max_tokens=6, beams=3)
    several = model.generate(model.embed(ids_BL), mask_BL, generation=beams)
    alone = []
    for row in _READ:
        ids_BL = torch.tensor([row])
        alone += model.generate(model.embed(ids_BL), torch.ones_like(ids_BL), generation=beams)
    assert several == alone


def test_all_of_it_trains_and_activations_may_be_computed_twice() -> None:
    model = _model("t5", "gemma2", every=2).train()
    grads = []
    for saving in (False, True):
        if saving:
            for side in (model.encoder.model, model.decoder.whole):
                side.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.zero_grad()
        model.logits(_states(model, _READ, _TARGETS)[0]).logsumexp(dim=-1).sum().backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)
    assert sum(name.endswith(".gate") for name in grads[0]) == 1  # each second layer of two


@pytest.mark.parametrize(("encoder", "decoder"), _PAIRS)
def test_saved_and_built_again(encoder: str, decoder: str, tmp_path: Path) -> None:
    first = _model(encoder, decoder)
    first.save_config(tmp_path)
    second: Any = build_language_model(first.spec, saved=tmp_path)
    second.load_state_dict(first.state_dict())
    assert torch.equal(_states(first, _READ, _TARGETS), _states(second, _READ, _TARGETS))
    empty: Any = build_language_model(first.spec, empty=True)
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in first.named_parameters()}
    assert all(parameter.is_meta for parameter in empty.parameters())


def test_folders_of_the_library_may_be_the_sides(tmp_path: Path) -> None:
    for name in ("mt5", "qwen3"):
        tiny: Any = build_language_model(TinyLanguage(architecture=name))
        tiny.whole.save_pretrained(tmp_path / name)
        tiny.tokenizer.save_pretrained(tmp_path / name)
        (tmp_path / name / "NOTICE").write_text(name)
    spec = JoinedLanguage(
        encoder=HfLanguage(name=str(tmp_path / "mt5")),
        decoder=HfLanguage(name=str(tmp_path / "qwen3"), dtype="bfloat16"),
    )  # fmt: skip
    model: Any = build_language_model(spec.model_copy(update={"heads": 2}))
    assert _states(model, _READ, _TARGETS).dtype == torch.float32
    assert {p.dtype for n, p in model.named_parameters() if n.endswith("gate")} == {torch.float32}
    model.save_config(tmp_path / "saved")
    assert [(tmp_path / "saved" / side / "NOTICE").read_text() for side in ("encoder", "decoder")] == ["mt5", "qwen3"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": TinyLanguage()},
         "tiny llama: language_model.encoder is to read, and this is a decoder-only model; take an encoder-decoder "
         "(T5, mT5, BART, Florence-2), whose encoder is taken"),
        ({"decoder": TinyLanguage(architecture="t5")},
         "tiny t5: language_model.decoder is to write by itself, and this is an encoder-decoder; take a decoder-only "
         "model"),
        ({"dtype": "bfloat16"},
         "language_model.dtype = 'bfloat16': each side of a joined model has its own; set those of encoder "
         "and decoder"),
        ({"encoder": HfLanguage(name="org/m", tokens=("<x>",))},
         "org/m: language_model.encoder keeps its vocabulary and its precision; leave vocabulary, tokens and quantize "
         "out"),
        ({"heads": 5}, "width = 48 is no multiple of heads = 5"),
    ],
)  # fmt: skip
def test_sides_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(VlkitError) as caught:
        build_language_model(_spec("t5", "gemma2", **fields))
    assert str(caught.value) == message


def test_florence_s_text_encoder_reads_and_its_images_are_left_away(tmp_path: Path) -> None:
    from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration
    from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

    reader = build_language_model(TinyLanguage(architecture="t5")).tokenizer
    text = BartConfig(
        vocab_size=300, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0,
    )  # fmt: skip
    vision = Florence2VisionConfig(
        depths=[1, 1], embed_dim=[16, 32], num_heads=[2, 2], num_groups=[2, 2], patch_size=[7, 3], patch_stride=[4, 2],
        patch_padding=[3, 1], patch_prenorm=[False, True], window_size=4, projection_dim=32,
    )  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=299)
    whole = Florence2ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    reader.save_pretrained(tmp_path)
    spec = JoinedLanguage(encoder=HfLanguage(name=str(tmp_path)), decoder=TinyLanguage(architecture="gemma2"), heads=2)
    model: Any = build_language_model(spec)
    ids_BL = torch.tensor(_READ[:1])
    want_BLC = whole.model.language_model.encoder(input_ids=ids_BL).last_hidden_state
    torch.testing.assert_close(model(model.embed(ids_BL), torch.ones_like(ids_BL)), want_BLC, atol=1e-6, rtol=1e-6)
    assert not any("vision" in name for name, _ in model.named_parameters())
