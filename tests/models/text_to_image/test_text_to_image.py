"""The kind of model that makes images: what every body keeps to, whatever the language model is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import vlkit
from tests.helpers.painters import BODIES, TOKENIZER, enliven, painter
from vlkit.adapt.inject import merge
from vlkit.errors import ShapeError, UnknownName, VlkitError
from vlkit.models.inspection import inspect_folder
from vlkit.models.registry import build, build_meta
from vlkit.models.text_to_image.bodies import TowerBody
from vlkit.models.text_to_image.model import TextToImageModel
from vlkit.nn.code_attention import added, text_then_image
from vlkit.nn.code_head import CodeHead
from vlkit.spec.adapt import LoRA
from vlkit.spec.language import TinyLanguage
from vlkit.spec.model import SavedSpec, TextToImageSpec
from vlkit.spec.text_to_image import CodeHeadSpec, LanguageModelBodySpec, TowerBodySpec
from vlkit.types import Model, Painter, TextBatch

DECODERS = ("llama", "qwen3", "gemma2", "gemma3")


def prompts(model: Any, *texts: str) -> TextBatch:
    return model.layout.batch([model.layout.laid(text, language=None).ids for text in texts])


def some_codes(model: Any, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.codebook_size + 1, (count, model.num_codes), generator=generator)


@pytest.mark.parametrize("body", BODIES)
def test_it_is_a_model_that_is_saved_and_built_again(body: str, tmp_path: Path) -> None:
    model = painter(body)
    assert isinstance(model, Model) and isinstance(model, Painter)
    images = model.generate(["a", "bcd"], seed=3, num_images=2, steps=3)
    vlkit.save(model, tmp_path / "saved")
    again: Any = vlkit.load(tmp_path / "saved")
    assert again.spec == model.spec
    assert [one.tobytes() for one in again.generate(["a", "bcd"], seed=3, num_images=2, steps=3)] == [
        one.tobytes() for one in images
    ]
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    assert {name: tensor.shape for name, tensor in build_meta(model.spec).named_parameters()} == shapes
    told = inspect_folder(str(tmp_path / "saved")).facts
    assert told["codes per image"] == 16 and told["codes"] == 45 and told["body"] == model.body.spec.kind
    assert "painter.generate" in (tmp_path / "saved" / "README.md").read_text()


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("body", BODIES)
def test_codes_behind_a_kept_prompt_are_those_of_the_whole_pass(body: str, architecture: str) -> None:
    model = painter(body, architecture=architecture)
    read = prompts(model, "a longer prompt than the other, and than a window of sixteen", "short")
    codes = some_codes(model, 2)
    with torch.no_grad():
        whole = model(read, codes)
        prefix = model.read(read)
        torch.testing.assert_close(model.behind(codes, prefix), whole, atol=2e-5, rtol=0)
        torch.testing.assert_close(model.behind(codes, prefix), whole, atol=2e-5, rtol=0)  # nothing was left behind
        alone = model.behind(codes[1:], model.read(prompts(model, "short")))  # no padding at all
        torch.testing.assert_close(alone, whole[1:], atol=2e-5, rtol=0)
        swapped = model.behind(codes, prefix.rows(torch.tensor([1, 0])))
        assert not torch.allclose(swapped, whole, atol=1e-2)  # prompts matter
        other = codes.clone()
        other[:, -1] = (other[:, -1] + 1) % model.codebook_size
        assert not torch.allclose(model.behind(other, prefix)[:, 0], whole[:, 0], atol=1e-4)  # the first sees the last


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_any_side_changes_nothing(side: str) -> None:
    model = painter("adapted")
    ids, mask = prompts(model, "short one")
    pad = (7, 0) if side == "left" else (0, 7)
    padded = TextBatch(*(torch.nn.functional.pad(one, pad) for one in (ids, mask)))
    codes = some_codes(model, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(padded, codes), model(TextBatch(ids, mask), codes), atol=2e-5, rtol=0)


@pytest.mark.parametrize("body", ["frozen", "own_layers", "tower"])
def test_the_language_model_reads_and_writes_as_before(body: str) -> None:
    plain: Any = build(TinyLanguageModelOnly(body)).language_model
    model = painter(body, adapters={"language_model": LoRA(rank=2, targets="all")} if body == "frozen" else {})
    read = prompts(model, "some text")
    plain.load_state_dict(
        {
            name.replace(".base_layer", ""): one
            for name, one in model.language_model.state_dict().items()
            if "lora" not in name
        }
    )
    with torch.no_grad():
        expected = plain.read_prefix(plain.embed(read.ids_BL), read.mask_BL)
        if body == "frozen":
            found = model.read(read)
            changed = model.language_model.read_prefix(model.language_model.embed(read.ids_BL), read.mask_BL)
            assert not torch.equal(changed.layers[1][0], expected.layers[1][0])  # the adapter does something
            for mine, theirs in zip(found.layers, expected.layers, strict=True):
                assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))
        states = plain(plain.embed(read.ids_BL), read.mask_BL)
        if body != "frozen":
            again = model.language_model(model.language_model.embed(read.ids_BL), read.mask_BL)
            assert torch.equal(plain.logits(states[0]), model.language_model.logits(again[0]))


def TinyLanguageModelOnly(body: str) -> TextToImageSpec:  # noqa: N802 - reads as what it makes
    return TextToImageSpec(language_model=TinyLanguage(architecture="gemma3"), tokenizer=TOKENIZER, body=BODIES[body])


def test_what_a_text_says_does_not_hang_on_the_image() -> None:
    model = painter("adapted")
    read = prompts(model, "some text")
    base = model.language_model.whole.base_model
    text = model.language_model.embed(read.ids_BL)
    layout = text_then_image(read.mask_BL, 5)
    mask = added(layout, torch.float32)
    with torch.no_grad():
        first, second = (
            base(
                inputs_embeds=torch.cat([text, torch.randn(1, 5, text.shape[2])], dim=1),
                attention_mask={"full_attention": mask, "sliding_attention": mask},
                position_ids=layout.positions(),
                use_cache=False,
            ).last_hidden_state[:, : text.shape[1]]
            for _ in range(2)
        )
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_a_new_head_gives_each_code_the_same_chance(body: str, tied: bool) -> None:
    model = painter(body, lively=False, head=CodeHeadSpec(tied=tied))
    with torch.no_grad():
        logits = model.logits(model(prompts(model, "x"), some_codes(model, 1)))
    assert logits.shape == (1, 16, 45)
    loss = torch.nn.functional.cross_entropy(logits[0], torch.arange(16))
    assert math.isclose(float(loss), math.log(45), rel_tol=1e-6)


def test_logits_are_held_within_the_cap() -> None:
    model = painter(head=CodeHeadSpec(cap=2.0))
    with torch.no_grad():
        logits = model.logits(torch.randn(4, 32) * 100)
    assert float(logits.abs().max()) <= 2.0


def test_one_seed_is_one_image_in_any_batch_and_language() -> None:
    model = painter()
    alone = [model.generate(text, language="fa", seed=5, steps=4)[0].tobytes() for text in ("قارچ", "a mushroom")]
    batch = model.generate(["a mushroom", "x", "قارچ"], language="en", seed=4, num_images=2, batch_size=5, steps=4)
    assert [batch[5].tobytes(), batch[1].tobytes()] == alone
    assert batch[0].tobytes() != batch[1].tobytes()


def test_no_guidance_runs_the_model_once_and_is_the_prompts_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = painter(), list[int]()
    behind = TextToImageModel.behind
    monkeypatch.setattr(
        TextToImageModel, "behind", lambda self, codes, prefix: rows.append(len(codes)) or behind(self, codes, prefix)
    )
    model.generate("x", guidance=1, steps=2)
    assert rows == [1, 1]
    scale = model.generate("x", guidance=6, steps=3)
    assert rows[2:] == [2, 2, 2]
    assert scale[0].tobytes() == model.generate("x", guidance=5, guidance_as="weight", steps=3)[0].tobytes()


def test_a_negative_prompt_stands_for_none() -> None:
    model = painter()
    plain, other = (model.generate("x", negative=text, steps=4, temperature=0)[0].tobytes() for text in (None, "zzz"))
    assert plain != other
    same = model.generate("x", negative="x", steps=4, guidance=9)  # moved away from itself: nowhere
    assert same[0].tobytes() == model.generate("x", steps=4, guidance=1)[0].tobytes()


def test_previews_are_told_step_by_step() -> None:
    model, seen = painter(), list[Any]()
    final = model.generate("x", steps=3, watch=seen.append)
    assert [done.step for done in seen] == [0, 1, 2] and seen[0].steps == 3
    assert model.images_of(seen[-1].drawn_BN)[0].tobytes() == final[0].tobytes()


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "a prompt is empty"), (" \n\t", "a prompt is empty"), ([], "there is no prompt")]
)
def test_prompts_that_are_none_are_refused(prompt: Any, message: str) -> None:
    with pytest.raises(VlkitError, match=message):
        painter().generate(prompt)


def test_settings_that_are_none_are_refused_by_name() -> None:
    model = painter()
    for options, message in (
        ({"stepps": 3}, "stepps = 3: Extra inputs"),
        ({"steps": 0}, "steps = 0: Input should be greater"),
        ({"num_images": 0}, "num_images = 0 makes no image"),
        ({"seed": -1}, "seed = -1: Input should be greater"),
    ):
        with pytest.raises(VlkitError, match=message):
            model.generate("x", **options)
    with pytest.raises(UnknownName, match="no language 'xx-yy'"):
        painter(prompt={"template": "{language}: {text}"}).generate("x", language="xx-yy")
    with pytest.raises(VlkitError, match="name their language"):
        painter(prompt={"template": "{language}: {text}"}).generate("x")


@pytest.mark.parametrize("text", ["قارچ و گل", "mushroom گل 蘑菇 మొక్క", "می‌خواهم", "e\u0301", "<eos> <pad> </s>"])
def test_any_script_is_read_as_it_is(text: str) -> None:
    model = painter()
    ids = model.layout.laid(text, language=None).ids
    bare = model.language_model.tokenizer.decode(ids[1:-1])
    assert bare == ("é" if text == "e\u0301" else text)  # composed; joiners and marks of the tokenizer stay letters
    assert len(model.generate(text, steps=2)) == 1


def test_endless_prompts_are_cut_and_keep_their_end(caplog: pytest.LogCaptureFixture) -> None:
    model = painter()
    laid = model.layout.laid("x" * 10_000, language=None)
    assert len(laid.ids) == 256 and laid.ids[-1] == model.language_model.tokenizer.eos_token_id
    assert laid.cut == 10_000 - 254
    assert len(model.generate("x" * 10_000, steps=1)) == 1
    assert caplog.text.count("9746 tokens too long") == 1


def test_what_does_not_fit_is_refused() -> None:
    model = painter()
    for tokens, width, message in (
        ((44, (4, 4)), 32, "for 44 codes"),
        ((45, (2, 8)), 32, "in 2x8"),
        ((45, (4, 4)), 8, "8 wide"),
    ):
        head = CodeHead(*tokens, width, scale=1.0, places=False, tied=False, cap=None)
        with pytest.raises(ShapeError, match=message):
            TextToImageModel(model.language_model, model.tokenizer, head, model.body)
    with pytest.raises(VlkitError, match=r"give 3 numbers in 1\.\.2, or null"):
        TowerBody(TowerBodySpec(width=32, layers=3, heads=2, reads=(1, 2, 3)), model.language_model)
    for architecture, reason in (("mt5", "encoder-decoder"), ("bloom", "cannot read blocks")):
        with pytest.raises(VlkitError, match=reason):
            painter("adapted", architecture=architecture).generate("x")


def test_a_tower_stands_on_any_language_model() -> None:
    assert len(painter("tower", architecture="bloom").generate("x", steps=2)) == 1


def test_an_adapter_for_codes_alone_is_not_folded_in() -> None:
    with pytest.raises(VlkitError, match="acts on codes alone"):
        merge(painter("frozen", adapters={"language_model": LoRA(rank=2)}))
    model = painter("adapted", adapters={"language_model": LoRA(rank=2, targets="all")})
    enliven(model)
    read, codes = prompts(model, "some text"), some_codes(model, 1)
    with torch.no_grad():
        before = model(read, codes)
        torch.testing.assert_close(merge(model)(read, codes), before, atol=2e-5, rtol=0)


def test_text_that_is_to_stay_is_not_trained() -> None:
    model = painter("frozen", adapters={"language_model": LoRA(rank=2)})
    assert isinstance(model.body.spec, LanguageModelBodySpec)
    vlkit.unfreeze(model, "language_model")
    with pytest.raises(VlkitError, match="train language_model_adapter instead"):
        model(prompts(model, "x"), some_codes(model, 1))


def test_it_goes_on_with_larger_images(tmp_path: Path) -> None:
    model = painter("adapted")
    vlkit.save(model, tmp_path / "small")
    large: Any = build(SavedSpec(path=str(tmp_path / "small"), image_size=32)).eval()
    assert large.num_codes == 64 and large.generate("x", steps=2)[0].size == (32, 32)
    for (name, one), (_, other) in zip(model.named_parameters(), large.named_parameters(), strict=True):
        assert torch.equal(one, other) or name in ("head.rows.weight", "head.columns.weight")
    vlkit.save(large, tmp_path / "large")
    assert vlkit.load(tmp_path / "large").spec.tokenizer.image_size == 32  # type: ignore[attr-defined]
    with pytest.raises(VlkitError, match="image_size = 33 is no multiple of 4"):
        build(SavedSpec(path=str(tmp_path / "small"), image_size=33))


class Own(torch.nn.Module):
    """Somebody's language model: what the protocol names, and nothing of vlkit's."""

    width, vocab_size, max_length, encodes = 8, 260, 64, False

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer, self.table = tokenizer, torch.nn.Embedding(260, 8)

    def embed(self, ids_BL: torch.Tensor) -> torch.Tensor:
        return self.table(ids_BL)

    def forward(self, embeddings_BLE: torch.Tensor, mask_BL: torch.Tensor, **more: Any) -> torch.Tensor:
        return (embeddings_BLE * mask_BL.unsqueeze(-1)).cumsum(dim=1)

    def logits(self, states_RE: torch.Tensor) -> torch.Tensor:
        return states_RE @ self.table.weight.T

    def generate(self, *inputs: Any, **more: Any) -> list[str]:
        return []

    def save_config(self, folder: Path) -> None:
        pass


def test_a_language_model_of_ones_own_works_by_the_protocol_alone() -> None:
    ready = painter()
    own = Own(ready.language_model.tokenizer)
    body = TowerBody(TowerBodySpec(width=32, layers=2, heads=2, ffn=64), own)
    head = CodeHead(45, (4, 4), 32, scale=1.0, places=True, tied=False, cap=None)
    model = TextToImageModel(own, ready.tokenizer, head, body).eval()
    enliven(model)
    one, other = (model.generate(text, seed=1, steps=3)[0].tobytes() for text in ("a", "zebra"))
    assert one != other == model.generate("zebra", seed=1, steps=3)[0].tobytes()
    with pytest.raises(VlkitError, match="codes cannot go through the layers of Own: it lacks read_prefix"):
        TextToImageModel(own, ready.tokenizer, CodeHead(45, (4, 4), 8, scale=1.0, places=True, tied=False, cap=None))
    with pytest.raises(VlkitError, match=r"has no \.spec"):
        _ = model.spec
