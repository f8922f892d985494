"""Laws of writing: cached equals uncached, a batch equals its rows, what the spec asks for is done."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlkit.errors import VlkitError
from vlkit.parts.language_models import build_language_model
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.language import GenerationSpec, TinyLanguage
from vlkit.types import TextBatch

_ALL = ["llama", "qwen3", "gemma2", "gemma3", "bloom", "t5", "mt5"]
_ROWS = [
    [72, 101, 33, 108, 111, 35, 200, 90, 77, 81, 4, 9, 150, 99, 31, 64, 65, 66, 67, 68],
    [88, 90, 91, 92, 55, 21, 8],
]
_PREFIXES = [[100, 101, 102], [103]]


def _model(architecture: str) -> Any:
    torch.manual_seed(1)
    model: Any = build_language_model(TinyLanguage(architecture=architecture))
    with torch.no_grad():  # bytes of ASCII alone, and no end: all that is written can be read back
        keep_V = torch.zeros(model.vocab_size)
        keep_V[35:130] = 1
    head, plain = model.whole.get_output_embeddings(), type(model.whole.get_output_embeddings()).forward
    head.forward = lambda states: plain(head, states).masked_fill(keep_V == 0, -1e4)
    return model


def _write(model: Any, rows: list[list[int]], *, prefix: list[list[int]] | None = None, **options: Any) -> list[str]:
    ids_BL, mask_BL = pad_rows(rows, pad_id=0)
    begun = None if prefix is None else pad_rows(prefix, pad_id=0)
    more = {name: options.pop(name) for name in ("language", "stream") if name in options}
    return model.generate(model.embed(ids_BL), mask_BL, generation=GenerationSpec(**options), prefix=begun, **more)


@torch.no_grad()
def _greedy(model: Any, row: list[int], begun: list[int], *, penalty: float, count: int) -> str:
    """Token by token through the whole model, nothing kept."""
    written: list[int] = []
    for _ in range(count):
        if model.encodes:
            read, target = row, [*begun, *written, 0]
            states_LE = model(model.embed(torch.tensor([read])), torch.ones(1, len(read)), targets=_batch(target))[0]
        else:
            read = [*row, *begun, *written]
            states_LE = model(model.embed(torch.tensor([read])), torch.ones(1, len(read)))[0]
        scores_V = model.logits(states_LE[-1:])[0]
        seen = list(set(written))
        scores_V[seen] = torch.where(scores_V[seen] > 0, scores_V[seen] / penalty, scores_V[seen] * penalty)
        written.append(int(scores_V.argmax()))
    return str(model.tokenizer.decode([*begun, *written]))


def _batch(row: list[int]) -> TextBatch:
    return pad_rows([row], pad_id=0)


@pytest.mark.parametrize("architecture", _ALL)
def test_cached_in_a_batch_is_uncached_row_by_row(architecture: str) -> None:
    model = _model(architecture)
    for prefix in (None, _PREFIXES):
        texts = _write(model, _ROWS, prefix=prefix, max_tokens=24, repetition_penalty=5.0)
        begun = prefix or [[], []]
        want = [_greedy(model, r, b, penalty=5.0, count=24) for r, b in zip(_ROWS, begun, strict=True)]
        assert texts == want
    assert len(set(want[0])) > 4  # else it would show nothing


@pytest.mark.parametrize("architecture", _ALL)
def test_drawn_texts_follow_the_seed_and_leave_torch_s_alone(architecture: str) -> None:
    model = _model(architecture)
    before = torch.random.get_rng_state()
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 6.0, "top_p": 0.95}
    one, again, other = (_write(model, _ROWS, seed=seed, **options) for seed in (3, 3, 4))
    assert one == again and one != other
    assert [_write(model, [row], seed=3, **options)[0] for row in _ROWS] == one
    assert torch.equal(torch.random.get_rng_state(), before)
    nearly_none = _write(model, _ROWS, seed=3, max_tokens=12, temperature=6.0, top_p=1e-6)
    assert nearly_none == _write(model, _ROWS, max_tokens=12)


def test_draws_have_the_shares_that_the_temperature_gives() -> None:
    from vlkit.parts.hf_generation import Draws

    scores_BV = torch.tensor([[1.0, 0.0, -1.0, -9.0]])
    draws = Draws(GenerationSpec(temperature=2.0, top_p=0.9))
    counts = torch.bincount(torch.tensor([int(draws(None, scores_BV).argmax()) for _ in range(4000)]), minlength=4)
    want_V = (scores_BV[0, :3] / 2).softmax(dim=-1)
    torch.testing.assert_close(counts[:3] / 4000, want_V, atol=0.03, rtol=0)
    assert counts[3] == 0


@pytest.mark.parametrize("architecture", ["llama", "mt5"])
def test_several_answers_followed_are_the_library_s(architecture: str) -> None:
    model = _model(architecture)
    ids_BL, mask_BL = pad_rows(_ROWS[:1], pad_id=0)
    for penalty in (-1.0, 1.0):
        got = _write(model, _ROWS, max_tokens=8, beams=3, length_penalty=penalty)
        want = model.whole.generate(
            input_ids=ids_BL, attention_mask=mask_BL, max_new_tokens=8, min_new_tokens=1, num_beams=3,
            length_penalty=penalty, do_sample=False,
        )  # fmt: skip
        skip = 0 if model.encodes else ids_BL.shape[1]
        assert got[0] == model.tokenizer.decode(want[0, skip:], skip_special_tokens=True)
        assert got[1] == _write(model, _ROWS[1:], max_tokens=8, beams=3, length_penalty=penalty)[0]


@pytest.mark.parametrize("architecture", ["gemma3", "t5"])
def test_a_stop_text_ends_its_row_alone(architecture: str) -> None:
    model = _model(architecture)
    whole = _write(model, _ROWS, prefix=_PREFIXES, max_tokens=16, repetition_penalty=5.0)
    stop = whole[0][8:10]
    want = [
        text[: place if (place := text.find(stop, len(p))) >= 0 else None]
        for text, p in zip(whole, _PREFIXES, strict=True)
    ]
    pieces: list[str] = []
    assert _write(model, _ROWS, prefix=_PREFIXES, max_tokens=16, repetition_penalty=5.0, stop=(stop, "never")) == want
    options: dict[str, Any] = {"max_tokens": 16, "repetition_penalty": 5.0, "stop": (stop,)}
    _write(model, _ROWS[:1], prefix=_PREFIXES[:1], stream=pieces.append, **options)
    assert "".join(pieces) == want[0] and len(want[0]) < len(whole[0])


class _Says:
    """Makes a model write given bytes and end."""

    def __init__(self, model: Any, text: str) -> None:
        self.ids, self.head = [*(byte + 3 for byte in text.encode()), 1], model.whole.get_output_embeddings()
        self.step, self.plain = 0, self.head.forward
        self.head.forward = self

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        scores = self.plain(states) * 0
        scores[..., self.ids[self.step]] = 9.0
        self.step += 1
        return scores


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_streamed_pieces_are_whole_characters_and_make_the_text(architecture: str) -> None:
    text, pieces = "Füchse 狐狸 🦊 كلب", list[str]()
    model: Any = build_language_model(TinyLanguage(architecture=architecture))
    _Says(model, text)
    assert _write(model, _ROWS[:1], prefix=[[ord("A") + 3]], stream=pieces.append) == [f"A{text}"]
    assert "".join(pieces) == f"A{text}" and len(pieces) == len(text)  # the prefix comes with the first
    assert all("\ufffd" not in piece for piece in pieces)


def test_an_end_is_not_written_before_its_time() -> None:
    model: Any = build_language_model(TinyLanguage())
    bias_V = torch.zeros(model.vocab_size)
    bias_V[1] = 50.0  # wants to end at once
    head, plain = model.whole.get_output_embeddings(), model.whole.get_output_embeddings().forward
    head.forward = lambda states: plain(states) + bias_V
    ids_BL, mask_BL = pad_rows(_ROWS, pad_id=0)
    lengths: list[int] = []
    kept = model.tokenizer.decode
    model.tokenizer.decode = lambda ids, **options: (lengths.append(len(ids)), kept(ids, **options))[1]
    model.generate(model.embed(ids_BL), mask_BL, generation=GenerationSpec(min_tokens=5, max_tokens=9))
    assert lengths == [5, 5]


@pytest.mark.parametrize("architecture", ["qwen3", "mt5"])
def test_a_language_token_comes_first_and_is_no_text(architecture: str) -> None:
    model = _model(architecture)
    mark = model.tokenizer.convert_tokens_to_ids("x")
    options: dict[str, Any] = {"max_tokens": 8, "repetition_penalty": 5.0}
    vocabulary = model.tokenizer.get_vocab()
    model.tokenizer.get_vocab = lambda: {**vocabulary, "<2de>": mark}
    texts = _write(model, _ROWS, prefix=_PREFIXES, language="de", language_token="<2{language}>", **options)
    want = _write(model, _ROWS, prefix=[[mark, *row] for row in _PREFIXES], **options)
    assert texts == [text[1:] for text in want]
    assert _write(model, _ROWS, language="deu", language_token="<2{language}>", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 2, "temperature": 0.5},
         "generation.beams = 2 follows the likeliest answers and generation.temperature = 0.5 draws one; set beams to "
         "1 or temperature to 0"),
        ({"stream": print}, "only one text can be streamed at a time, not 2; leave stream out"),
        ({"language_token": "<2{language}>"},
         "generation.language_token = '<2{language}>' needs a language; pass language=, such as 'de'"),
        ({"language_token": "<2{language}>", "language": "sw"},
         "tiny llama: the tokenizer has no token '<2sw>' (generation.language_token = '<2{language}>'); set it to the "
         "pattern of the model's language tokens, or to null"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlkitError) as caught:
        _write(_model("llama"), _ROWS, **options)
    assert str(caught.value) == message


def test_a_full_context_says_so() -> None:
    model = _model("llama")
    model.context = 20
    with pytest.raises(VlkitError) as caught:
        _write(model, _ROWS)
    assert str(caught.value) == "tiny llama: 20 tokens are read and its context has 20; shorten them"
    model.context = 24
    assert len(_write(model, _ROWS[:1], max_tokens=9)[0]) == 4


def test_a_model_without_an_end_says_so() -> None:
    model = _model("llama")
    model.end_ids = ()
    with pytest.raises(VlkitError) as caught:
        _write(model, _ROWS)
    assert str(caught.value) == (
        "tiny llama: neither its tokenizer nor its configuration has an end token, so no text would end; add eos_token "
        "to tokenizer_config.json"
    )
