"""Laws of language models: equal to the library's, whatever the padding, packed or not; saved and built again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vlkit.adapt.inject import add_lora, merge
from vlkit.errors import VlkitError
from vlkit.parts.language_models import LANGUAGE_MODELS, build_language_model, language_model
from vlkit.parts.tokenizers import pad_rows
from vlkit.spec.adapt import LoRA
from vlkit.spec.language import HfLanguage, TinyLanguage
from vlkit.types import LanguageModel, TextBatch

DECODERS = ["llama", "qwen3", "gemma2", "gemma3", "bloom"]
ENCODERS = ["t5", "mt5"]
ALL = [*DECODERS, *ENCODERS]
_ROWS = [
    [72, 101, 33, 108, 111, 35, 200, 90, 77, 81, 4, 9, 150, 99, 31, 64, 65, 66, 67, 68],
    [88, 90, 91, 92, 55, 21, 8],
]
_TARGETS = [[44, 45, 46], [50, 51, 52, 53, 1]]


def _model(architecture: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    return build_language_model(TinyLanguage(architecture=architecture, **fields))


def _left(batch: TextBatch) -> TextBatch:
    return TextBatch(
        *(torch.stack([row.roll(-int(m.sum())) for row, m in zip(x, batch.mask_BL, strict=True)]) for x in batch)
    )


def _states(model: Any, rows: list[list[int]], targets: list[list[int]] | None = None) -> list[torch.Tensor]:
    """Of each row alone: no padding anywhere."""
    found = []
    for index, row in enumerate(rows):
        ids_BL, mask_BL = pad_rows([row], pad_id=0)
        written = pad_rows([targets[index]], pad_id=0) if targets else None
        found.append(model(model.embed(ids_BL), mask_BL, targets=written)[0])
    return found


@torch.no_grad()
def _library(model: Any, row: list[int], target: list[int]) -> torch.Tensor:
    ids_BL = torch.tensor([row])
    if model.encodes:
        return model.whole(input_ids=ids_BL, labels=torch.tensor([target])).logits[0]
    return model.whole(input_ids=ids_BL).logits[0]


def test_every_kind_is_registered_and_named() -> None:
    assert set(LANGUAGE_MODELS) == {"hf", "joined", "tiny"}
    model: Any = language_model("tiny", max_length=99)
    assert isinstance(model, LanguageModel) and model.max_length == 99 and not model.training


@pytest.mark.parametrize("architecture", ALL)
def test_states_and_logits_are_the_library_s_own(architecture: str) -> None:
    model = _model(architecture)
    assert model.encodes == (architecture in ENCODERS)
    assert (model.width, model.vocab_size) == (32, len(model.tokenizer))
    for row, target in zip(_ROWS, _TARGETS, strict=True):
        (states_LE,) = _states(model, [row], [target] if model.encodes else None)
        torch.testing.assert_close(model.logits(states_LE), _library(model, row, target), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("place", ["left", "right", "inside"])
def test_states_of_real_places_do_not_depend_on_padding(architecture: str, place: str) -> None:
    model = _model(architecture)
    read, written = pad_rows(_ROWS, pad_id=5), pad_rows(_TARGETS, pad_id=5)
    if place == "left":
        read, written = _left(read), _left(written)
    elif place == "inside":
        order = [*range(4), *range(10, 20), *range(4, 10)]  # the second row's last places after its padding
        read = TextBatch(read.ids_BL[:, order], read.mask_BL[:, order])
    rows = [ids[mask > 0].tolist() for ids, mask in zip(*read, strict=True)]
    together_BLE = model(model.embed(read.ids_BL), read.mask_BL, targets=written if model.encodes else None)
    mask_BL = written.mask_BL if model.encodes else read.mask_BL
    alone = _states(model, rows, _TARGETS if model.encodes else None)
    for states_LE, mask_L, want_LE in zip(together_BLE, mask_BL, alone, strict=True):
        torch.testing.assert_close(states_LE[mask_L > 0], want_LE, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_what_an_encoder_read_is_given_without_targets(architecture: str) -> None:
    model = _model(architecture)
    want_BLE = model.whole.encoder(input_ids=torch.tensor(_ROWS[:1])).last_hidden_state
    torch.testing.assert_close(_states(model, _ROWS[:1])[0], want_BLE[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in DECODERS if name != "bloom"])
def test_packed_samples_are_as_if_alone(architecture: str) -> None:
    model = _model(architecture).train()
    ids_BL = torch.tensor([[*_ROWS[1], 9, *_ROWS[0], 0, 0]])
    positions_BL = torch.tensor([[*range(7), 0, *range(20), 0, 0]])
    mask_BL = (ids_BL > 0).long()
    packed_LE = model(model.embed(ids_BL), mask_BL, positions_BL=positions_BL)[0]
    for got_LE, want_LE in zip((packed_LE[:7], packed_LE[8:28]), _states(model, [_ROWS[1], _ROWS[0]]), strict=True):
        torch.testing.assert_close(got_LE, want_LE, atol=1e-5, rtol=1e-5)
    assert model.training and model.whole.training


def test_a_model_that_cannot_keep_packed_samples_apart_says_so() -> None:
    model = _model("bloom")
    with pytest.raises(VlkitError) as caught:
        model(torch.zeros(1, 4, 32), torch.ones(1, 4), positions_BL=torch.tensor([[0, 1, 0, 1]]))
    assert str(caught.value) == (
        "tiny bloom: a model of model_type = 'bloom' cannot keep samples apart that lie end to end in a row; set "
        "model.pack_length to null"
    )


@pytest.mark.parametrize("architecture", ALL)
def test_gradients_reach_embeddings_through_frozen_weights_and_nothing_is_cached(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refuse(*inputs: Any, **options: Any) -> None:
        raise AssertionError("a cache was built")

    model = _model(architecture).requires_grad_(False).train()
    monkeypatch.setattr(transformers.cache_utils.DynamicCache, "__init__", refuse)
    grads = []
    for saving in (False, True):
        if saving:
            model.whole.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        read, written = _left(pad_rows(_ROWS, pad_id=0)), pad_rows(_TARGETS, pad_id=0)
        embeddings_BLE = model.embed(read.ids_BL).requires_grad_()
        states_BLE = model(embeddings_BLE, read.mask_BL, targets=written if model.encodes else None)
        mask_BL = written.mask_BL if model.encodes else read.mask_BL
        model.logits(states_BLE[mask_BL > 0]).logsumexp(dim=-1).sum().backward()
        grads.append(embeddings_BLE.grad)
        assert embeddings_BLE.grad[read.mask_BL > 0].abs().sum(dim=-1).gt(0).all()
        assert not embeddings_BLE.grad[read.mask_BL == 0].any()
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("architecture", ALL)
def test_saved_and_built_again(architecture: str, tmp_path: Path) -> None:
    first = _model(architecture)
    first.save_config(tmp_path)
    second: Any = build_language_model(first.spec, saved=tmp_path)
    second.load_state_dict(first.state_dict())
    targets = _TARGETS if first.encodes else None
    for one, other in zip(_states(first, _ROWS, targets), _states(second, _ROWS, targets), strict=True):
        assert torch.equal(one, other)
    assert second.end_ids == first.end_ids == (1,)
    empty: Any = build_language_model(first.spec, empty=True)
    assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in first.named_parameters()}
    assert all(parameter.is_meta for parameter in empty.parameters())


@pytest.mark.parametrize("architecture", ALL)
def test_a_folder_of_the_library_is_the_same_model(architecture: str, tmp_path: Path) -> None:
    tiny = _model(architecture)
    tiny.whole.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    model: Any = language_model(f"hf:{tmp_path}")
    targets = _TARGETS if tiny.encodes else None
    for one, other in zip(_states(tiny, _ROWS, targets), _states(model, _ROWS, targets), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert model.end_ids == (1,) and model.spec == HfLanguage(name=str(tmp_path))


@pytest.mark.parametrize("architecture", ALL)
def test_weights_of_16_bits_give_states_of_32(architecture: str) -> None:
    exact, short = _model(architecture), _model(architecture, dtype="bfloat16")
    assert {p.dtype for p in short.parameters()} == {torch.bfloat16}
    targets = _TARGETS if exact.encodes else None
    for one, other in zip(_states(exact, _ROWS, targets), _states(short, _ROWS, targets), strict=True):
        assert other.dtype == short.logits(other).dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(one, other, dim=-1).min() > 0.98


@pytest.mark.parametrize("architecture", ALL)
def test_lora_starts_as_the_base_and_merges_into_it(architecture: str) -> None:
    model = _model(architecture).requires_grad_(False)  # torch's attention may round otherwise where its bias trains
    targets = _TARGETS if model.encodes else None
    before = _states(model, _ROWS, targets)
    add_lora(model, LoRA(rank=2, targets="all"))
    for one, other in zip(before, _states(model, _ROWS, targets), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted = _states(model, _ROWS, targets)
    assert not torch.allclose(adapted[0], before[0], atol=1e-2)
    merge(model)
    for one, other in zip(adapted, _states(model, _ROWS, targets), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def _folder(folder: Path, *, config: dict[str, Any] | None = None, architecture: str = "llama") -> Path:
    tiny = _model(architecture)
    tiny.whole.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    return folder


def test_folders_that_are_no_language_model(tmp_path: Path) -> None:
    from tests.helpers import encoder_factory as factory

    cases = {
        str(
            factory.clip(tmp_path / "clip")
        ): "model_type = 'clip' is no language model; take a decoder-only model (Llama, "
        "Qwen, Gemma, BLOOM, ...) or an encoder-decoder (mT5, mT0, ...)",
        str(_folder(tmp_path / "ahead", config={"use_bidirectional_attention": True}, architecture="gemma3")): "its "
        "attention looks ahead, so it cannot write; take a causal language model",
    }
    for name, message in cases.items():
        with pytest.raises(VlkitError) as caught:
            language_model(f"hf:{name}")
        assert str(caught.value) == f"{name}: {message}"


def test_files_from_elsewhere_are_judged_before_anything_is_built(tmp_path: Path) -> None:
    layers = _folder(tmp_path / "layers", config={"num_hidden_layers": 900})
    rows = _folder(tmp_path / "rows", config={"vocab_size": 10**9})
    code = _folder(tmp_path / "code", config={"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"})
    pickled = _folder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    other = _folder(tmp_path / "other", config={"intermediate_size": 96})
    for folder, message in (
        (layers, "num_hidden_layers = 900 in its configuration, and its weights hold"),
        (rows, "describes a model much larger than its weights"),
        (code, "is no transformers model that can be read"),
        (pickled, "has weights only as pytorch_model.bin, a pickle"),
        (other, "its configuration and its weights do not belong together"),
    ):
        with pytest.raises(VlkitError, match=message):
            language_model(f"hf:{folder}")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    language_model(f"hf:{folder}").tokenizer.save_pretrained(tmp_path / "other")
    more: Any = language_model(f"hf:{folder}").tokenizer
    more.add_tokens(["<2de>"])
    more.save_pretrained(folder)
    with pytest.raises(VlkitError) as caught:
        language_model(f"hf:{folder}")
    assert str(caught.value) == (
        f"{folder}: the tokenizer has 261 tokens but the text model's embedding has 260 rows; the tokenizer belongs to "
        f"another model, put the model's own tokenizer files in its folder"
    )


def test_all_tokens_that_the_files_name_end_a_text_and_padding_needs_none(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7], "top_k": 64, "do_sample": True}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    model: Any = language_model(f"hf:{folder}")
    assert model.end_ids == (1, 7) and config["pad_token"] == "<pad>"
    model.save_config(tmp_path / "saved")
    again: Any = build_language_model(model.spec, saved=tmp_path / "saved")
    assert again.end_ids == (1, 7)


def test_this_library_multiplies_embeddings_where_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("gemma2")
    with torch.no_grad():
        ids_BL = torch.tensor([[5, 6]])
        plain_BLE = torch.nn.functional.embedding(ids_BL, model.whole.get_input_embeddings().weight)
        torch.testing.assert_close(model.embed(ids_BL), plain_BLE * 32**0.5)
    table = torch.nn.Embedding(260, 32)
    monkeypatch.setattr(type(model.whole), "get_input_embeddings", lambda self: table)
    with pytest.raises(VlkitError) as caught:
        type(model)(model.whole, model.config, tokenizer=model.tokenizer, spec=model.spec, where="g")
    assert str(caught.value) == (
        "g: this transformers multiplies all that a gemma2 model reads, images' tokens too; install a newer "
        "transformers"
    )


@pytest.mark.parametrize("architecture", ["gemma3", "bloom", "mt5"])
def test_a_run_finds_its_blocks_and_computes_them_twice(architecture: str) -> None:
    from vlkit.training.switches import blocks, memory_saved

    class Whole:
        def parts(self) -> dict[str, Any]:
            return {"language_model": model}

    model = _model(architecture).train()
    assert len(blocks(model)) == (4 if model.encodes else 2)
    with memory_saved(Whole(), wanted=True):  # type: ignore[arg-type]
        assert model.whole.is_gradient_checkpointing
    assert not model.whole.is_gradient_checkpointing
