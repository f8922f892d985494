"""Captioning, masked text, masked image: what they predict and from what; slices and micro-batches change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from vlkit.errors import ShapeError, VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.registry import build
from vlkit.objectives.pairs.captioning import decoder_terms
from vlkit.objectives.pairs.captioning.masks import hide_patches, hide_words, on_grid, words
from vlkit.objectives.pairs.captioning.sliced import sliced_cross_entropy
from vlkit.objectives.weighted_sum import build_objective
from vlkit.parts.vocabulary import byte_vocabulary
from vlkit.spec.load import load_recipe
from vlkit.spec.model import DualEncoderSpec
from vlkit.spec.objectives import CaptioningObjective, MaskedImageObjective, MaskedTextObjective
from vlkit.spec.parts import DecoderSpec, LinearHeadSpec, MultiwayImage, MultiwayText, TinyImage, TinyText
from vlkit.training.loop import train
from vlkit.training.switches import memory_saved

DECODER = DecoderSpec(width=16, heads=2, ffn=32, text_layers=1, image_layers=1, patch_size=4)
TEXTS = ("a red house", "ein Haus", "the sea", "x", "猫と犬", "two small birds")
ALL = (CaptioningObjective(), MaskedTextObjective(), MaskedImageObjective())
KINDS = {spec.kind: spec for spec in ALL}


def model(kind: str = "tiny", **more: Any) -> DualEncoder:
    torch.manual_seed(0)
    sides: dict[str, Any] = {"image": TinyImage(image_size=16, width=16), "text": TinyText(width=16)}
    if kind == "multiway":
        shape: Any = {"width": 16, "heads": 2, "ffn": 32, "layers": 1, "vl_layers": 1}
        sides = {"image": MultiwayImage(**shape, image_size=16, patch_size=8), "text": MultiwayText(**shape)}
    heads = {"image_head": LinearHeadSpec(), "text_head": LinearHeadSpec()}
    return build(DualEncoderSpec(**{**sides, **heads, "embed_dim": 8, "decoder": DECODER, **more}))


def batch(of: DualEncoder, texts: tuple[str, ...] = TEXTS) -> PairBatch:
    names = tuple(map(str, range(len(texts))))
    pixels = torch.randn(len(texts), 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return PairBatch(pixels, None, of.tokenize(texts), None, ("en",) * len(texts), names)


def per_pair(of: DualEncoder, given: PairBatch, spec: Any) -> Tensor:
    term = build_objective([spec], of).members[0][1].terms[0][1]
    found: Mapping[str, Tensor] = term.per_pair(of, given, of.encode(given, states=True))
    return found[term.name]


# ---- cross entropy in slices


@pytest.mark.parametrize("slice_size", [1, 7, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_slices_it_is_the_dense_cross_entropy_with_its_gradients(slice_size: int, dtype: torch.dtype) -> None:
    states_TD, weight_VD = torch.randn(64, 12, dtype=dtype), 3 * torch.randn(50, 12, dtype=dtype)
    targets_T, scale_T = torch.randint(50, (64,)), torch.randn(64, dtype=dtype)
    found = []
    for sliced in (True, False):
        leaves = [x.clone().requires_grad_() for x in (states_TD, weight_VD)]
        if sliced:
            losses_T = sliced_cross_entropy(*leaves, targets_T, slice_size=slice_size)
        else:
            losses_T = functional.cross_entropy(leaves[0] @ leaves[1].T, targets_T, reduction="none")
        (losses_T * scale_T).sum().backward()
        found.append([losses_T, *(leaf.grad for leaf in leaves)])
    tight = 1e-6 if dtype == torch.float32 else 1e-13
    for one, other in zip(*found, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, atol=tight * other.abs().max().item() * 2, rtol=tight)


def test_slices_pass_the_numerical_check_of_gradients() -> None:
    states_TD, weight_VD = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    targets_T = torch.tensor([0, 3, 1, 1, 2])
    assert torch.autograd.gradcheck(
        lambda a, b: sliced_cross_entropy(a, b, targets_T, slice_size=2), (states_TD, weight_VD)
    )


def kept_bytes(run: Callable[[], Tensor]) -> int:
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel() * x.itemsize) or x, lambda x: x):
        run()
    return sum(sizes)


def test_what_is_kept_for_the_backward_pass_has_no_logits_in_it() -> None:
    def kept(tokens: int, vocabulary: int) -> int:
        leaves = [torch.randn(n, 8, requires_grad=True) for n in (tokens, vocabulary)]
        return kept_bytes(lambda: sliced_cross_entropy(*leaves, torch.zeros(tokens, dtype=torch.long), slice_size=16))

    for tokens, vocabulary in ((100, 500), (100, 1000), (200, 1000)):
        assert kept(tokens, vocabulary) == 4 * 8 * (tokens + vocabulary) + (8 + 4) * tokens


def test_under_autocast_products_are_bfloat16_and_sums_are_not() -> None:
    states_TD, weight_VD = torch.randn(6, 16, requires_grad=True), torch.randn(3000, 16, requires_grad=True)
    targets_T = torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses_T = sliced_cross_entropy(states_TD, weight_VD, targets_T, slice_size=4)
    rounded = states_TD.bfloat16() @ weight_VD.bfloat16().T
    assert losses_T.dtype == torch.float32
    torch.testing.assert_close(losses_T, functional.cross_entropy(rounded.float(), targets_T, reduction="none"))
    losses_T.sum().backward()
    assert states_TD.grad.dtype == weight_VD.grad.dtype == torch.float32 and weight_VD.grad.abs().sum() > 0


def test_nothing_to_predict_costs_nothing_and_widths_must_fit() -> None:
    empty = sliced_cross_entropy(torch.zeros(0, 4), torch.zeros(9, 4), torch.zeros(0, dtype=torch.long), slice_size=8)
    assert empty.shape == (0,)
    with pytest.raises(ShapeError, match=r"\[T, D\], \[V, D\] and \[T\]"):
        sliced_cross_entropy(torch.zeros(3, 4), torch.zeros(9, 5), torch.zeros(3, dtype=torch.long), slice_size=8)


# ---- what is hidden


def test_words_are_numbered_and_hidden_whole() -> None:
    vocabulary, of = byte_vocabulary(258), model()
    tokens = of.tokenize(["ab c  de", "猫と", "x"])
    words_BL = words(*tokens, vocabulary)
    assert words_BL[0].tolist() == [0, 0, 1, 1, 2, 3, 3, 3, -1]
    assert words_BL[1].tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1] and words_BL[2].tolist() == [0] + [-1] * 8
    for _ in range(20):
        hidden_BL = hide_words(words_BL, 0.5)
        for row, numbers in zip(hidden_BL.tolist(), words_BL.tolist(), strict=True):
            gone = {number for number, hidden in zip(numbers, row, strict=True) if hidden}
            stays = {number for number, hidden in zip(numbers, row, strict=True) if not hidden}
            assert gone.isdisjoint(stays) and -1 not in gone, "a word is hidden whole, a mark never"
            assert len(gone) == max(1, round(0.5 * (max(numbers) + 1)))
    assert not hide_words(torch.full((1, 4), -1), 0.5).any()


def test_every_word_is_hidden_as_often_as_the_others() -> None:
    words_BL = torch.arange(10).repeat(4000, 1)
    share_L = hide_words(words_BL, 0.3).float().mean(dim=0)
    torch.testing.assert_close(share_L, torch.full((10,), 0.3), atol=0.04, rtol=0)


def test_eighty_of_196_patches_are_hidden_at_random_or_by_likeness() -> None:
    options: Any = {"share": MaskedImageObjective().mask_share, "device": torch.device("cpu")}
    hidden_BK = hide_patches(50, 196, likeness_BN=None, **options)
    assert hidden_BK.shape == (50, 80) and all(len(set(row)) == 80 for row in hidden_BK.tolist())
    assert len({tuple(row) for row in hidden_BK.tolist()}) == 50
    likeness_BN = torch.rand(2, 196)
    chosen_BK = hide_patches(2, 196, likeness_BN=likeness_BN, **options)
    for row in range(2):
        assert likeness_BN[row, chosen_BK[row]].min() > likeness_BN[row].sort(descending=True).values[80] - 1e-9


def test_likeness_is_spread_over_the_grid_of_patches() -> None:
    square_BM = torch.arange(4.0).view(1, 4)
    assert torch.equal(on_grid(square_BM, 2, 2), square_BM)
    spread = on_grid(square_BM, 4, 4).view(4, 4)
    assert spread[0, 0] == 0 and spread[3, 3] == 3 and torch.equal(spread, spread.sort(dim=1).values)
    with pytest.raises(VlkitError, match="image tokens that form a square, and there are 3"):
        on_grid(torch.zeros(1, 3), 2, 2)


def test_attentive_masking_hides_what_is_most_like_the_text() -> None:
    of, seen = model(), []
    given = batch(of)

    def spy(*args: Any, **more: Any) -> Tensor:
        seen.append(more["likeness_BN"])
        return hide_patches(*args, **more)

    spec = MaskedImageObjective(masking="attentive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_terms, "hide_patches", spy)
        per_pair(of, given, spec)
    encoded = of.encode(given, states=True)
    place = functional.normalize(of.image_head(encoded.image_BND), dim=-1)  # 2 x 2 tokens over 4 x 4 patches
    assert encoded.image_BND.shape[1] == 4
    torch.testing.assert_close(seen[0], on_grid(torch.einsum("bne,be->bn", place, encoded.text_BE), 4, 4))


# ---- the losses


@pytest.mark.parametrize("slice_size", [1, 1024])
def test_captioning_is_the_mean_over_the_text_and_its_end_by_hand(slice_size: int) -> None:
    of = model("multiway").eval()
    given = batch(of)
    assert given.tokens is not None
    found_B = per_pair(of, given, CaptioningObjective(slice_size=slice_size))
    encoded, decoder = of.encode(given, states=True), of.decoder.text
    for row, caption in enumerate(TEXTS):
        bytes_L = [*caption.lower().encode(), 257]  # the end is predicted, the start (256) is not
        ids = torch.tensor([[decoder.start, 256, *bytes_L[:-1]]])
        states = decoder(ids, torch.ones_like(ids), encoded.image_BND[row : row + 1], causal=True)[0, 1:]
        nll = functional.cross_entropy(states @ decoder.output_map.T, torch.tensor(bytes_L))
        torch.testing.assert_close(found_B[row], nll, atol=1e-5, rtol=1e-5)


def test_masked_text_is_the_mean_over_hidden_tokens_by_hand() -> None:
    of = model().eval()
    given = batch(of)
    hidden: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_terms, "hide_words", lambda *args: hidden.append(hide_words(*args)) or hidden[0])
        found_B = per_pair(of, given, MaskedTextObjective())
    (ids_BL, mask_BL), decoder = given.tokens, of.decoder.text
    seen_BL = torch.where(hidden[0], decoder.mask, ids_BL)
    states_BLD = decoder(seen_BL, mask_BL, of.encode(given, states=True).image_BND, causal=False)
    for row in range(len(TEXTS)):
        chosen = hidden[0][row]
        logits = states_BLD[row, chosen] @ decoder.output_map.T
        torch.testing.assert_close(found_B[row], functional.cross_entropy(logits, ids_BL[row, chosen]))


def test_masked_image_is_the_mean_squared_error_of_hidden_patches_by_hand() -> None:
    of = model().eval()
    given = batch(of)
    hidden: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_terms, "hide_patches", lambda *a, **k: hidden.append(hide_patches(*a, **k)) or hidden[0])
        found_B = per_pair(of, given, MaskedImageObjective())
    encoded, decoder = of.encode(given, states=True), of.decoder.image
    cut = decoder.patches(given.pixels_BCHW)
    said = decoder(cut, hidden[0], encoded.text_BLD, given.tokens.mask_BL > 0, columns=4)
    assert hidden[0].shape == (len(TEXTS), round(16 * 80 / 196))
    for row in range(len(TEXTS)):
        target = cut[row, hidden[0][row]]
        target = (target - target.mean(dim=1, keepdim=True)) / target.std(dim=1, keepdim=True)
        torch.testing.assert_close(found_B[row], functional.mse_loss(said[row], target), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_side_helps_and_learns_and_this_side_is_read_by_the_decoder_alone(kind: str) -> None:
    of = model()
    spec, given = KINDS[kind], batch(of)
    torch.manual_seed(5)
    before = per_pair(of, given, spec)
    of.zero_grad()
    before.mean().backward()
    helper, own = ("text", "image") if kind == "masked_image" else ("image", "text")
    decoder = "image" if kind == "masked_image" else "text"
    moved = {name.partition(".")[0] for name, p in of.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {helper, "decoder"} and own not in moved
    assert all(p.grad is not None and p.grad.any() for p in getattr(of.decoder, decoder).parameters())
    other = batch(of, TEXTS[::-1]) if helper == "text" else replace(given, pixels_BCHW=given.pixels_BCHW.flip(0))
    torch.manual_seed(5)
    after = per_pair(of, other, spec)
    assert (before - after).abs().min() > 1e-7, "another image or text changes every pair's loss"


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_does_not_depend_on_the_pairs_beside_it(kind: str) -> None:
    of = model("multiway").eval()
    given = batch(of)
    with pytest.MonkeyPatch.context() as patch:
        still(patch)
        together = per_pair(of, given, KINDS[kind])
        for row, caption in enumerate(TEXTS):
            alone = replace(batch(of, (caption,)), pixels_BCHW=given.pixels_BCHW[row : row + 1])
            torch.testing.assert_close(per_pair(of, alone, KINDS[kind])[0], together[row], atol=2e-5, rtol=2e-5)


def still(patch: pytest.MonkeyPatch) -> None:
    """Masks that hang on the pair itself and not on chance."""
    patch.setattr(decoder_terms, "hide_words", lambda words_BL, share: words_BL % 2 == 0)
    patch.setattr(decoder_terms, "hide_patches", lambda size, *a, **k: torch.tensor([[1, 5, 6]]).repeat(size, 1))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_give_the_loss_and_the_gradients_of_the_whole_batch(size: int) -> None:
    of, found = model("multiway").eval(), []
    given = batch(of)
    with pytest.MonkeyPatch.context() as patch:
        still(patch)
        for micro_batch in (None, size):
            of.zero_grad()
            loss = build_objective(ALL, of, micro_batch=micro_batch)(of, given)
            loss.total.backward()
            grads = [p.grad for p in of.parameters() if p.grad is not None]
            found.append([loss.total.detach(), *loss.parts.values(), *(grad.clone() for grad in grads)])
    assert set(loss.parts) == set(KINDS)
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=1e-4)


def test_a_decoder_that_trains_can_do_without_its_activations() -> None:
    of, found = model("multiway").train(), []
    given = batch(of)
    with pytest.MonkeyPatch.context() as patch:
        still(patch)
        for wanted in (False, True):
            of.zero_grad()
            torch.manual_seed(3)
            with memory_saved(of, wanted=wanted):
                assert of.decoder.text.stack._recompute is of.decoder.image.stack._recompute is wanted
                build_objective(ALL, of)(of, given).total.backward()
            found.append({name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None})
    assert any(name.startswith("decoder.image.stack.blocks") for name in found[0])
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert torch.equal(grad, found[1][name]), name


def test_micro_batches_replay_the_masks_they_drew() -> None:
    of, drawn = model().train(), []
    given = batch(of)

    def spy(*args: Any) -> Tensor:
        drawn.append(hide_words(*args))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_terms, "hide_words", spy)
        build_objective([MaskedTextObjective()], of, micro_batch=3)(of, given).total.backward()
    assert len(drawn) == 4 and {tuple(map(tuple, x.tolist())) for x in drawn[:2]} == {
        tuple(map(tuple, x.tolist())) for x in drawn[2:]
    }


def test_the_total_weighs_the_terms_and_captioning_weighs_two() -> None:
    of = model().eval()
    with pytest.MonkeyPatch.context() as patch:
        still(patch)
        loss = build_objective([*ALL[:1], MaskedImageObjective(weight=0.5)], of)(of, batch(of))
    parts = loss.parts
    torch.testing.assert_close(loss.total.detach(), 2 * parts["captioning"] + 0.5 * parts["masked_image"])


def test_a_text_without_words_counts_as_nothing() -> None:
    of = model().eval()
    found = per_pair(of, batch(of, ("", "a b")), MaskedTextObjective())
    assert found[0] == 0 and found[1] > 0


# ---- what it refuses


def test_what_is_missing_is_named() -> None:
    with pytest.raises(VlkitError, match=r"captioning objective needs a decoder.*set model.decoder.text_layers=3"):
        build_objective([CaptioningObjective()], model(decoder=None))
    with pytest.raises(VlkitError, match=r"masked_image objective needs a decoder.*set model.decoder.image_layers=3"):
        build_objective([MaskedImageObjective()], model(decoder=DECODER.model_copy(update={"image_layers": 0})))
    of = model()
    cached = replace(batch(of), pixels_BCHW=None, image_BD=torch.randn(6, 16))
    with pytest.raises(VlkitError, match=r"no pixels_BCHW: .* set loop.cache_features=false"):
        build_objective([CaptioningObjective()], of)(of, cached)


class _Bare(torch.nn.Module):
    width, token_width, image_size, transform = 16, 16, 4, staticmethod(lambda image: torch.zeros(3, 4, 4))

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)[:, :16]

    def num_tokens(self, size: int) -> int:
        return 1

    def tokens(self, pixels: Tensor) -> Tensor:
        return pixels

    def save_config(self, folder: Path) -> None:
        pass


def test_an_encoder_without_states_is_named() -> None:
    whole = model()
    of = DualEncoder(_Bare(), whole.text, embed_dim=8, decoder=whole.decoder)
    with pytest.raises(VlkitError, match=r"the image encoder _Bare gives no states before pooling"):
        build_objective([CaptioningObjective()], of)
    with pytest.raises(VlkitError, match=r"the image encoder _Bare gives no states before pooling"):
        of.encode(batch(whole), states=True)


# ---- the recipe


def test_the_tiny_twin_trains_with_all_its_losses(tmp_path: Path) -> None:
    colours = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "white": (250, 250, 250)}
    rows = []
    for ground, back in colours.items():
        for disc, front in colours.items():
            image = Image.new("RGB", (32, 32), back)
            ImageDraw.Draw(image).ellipse((8, 8, 24, 24), fill=front)
            image.save(tmp_path / f"{disc}-{ground}.png")
            captions = {"en": f"{disc} on {ground}"}
            rows.append({"image": f"{disc}-{ground}.png", "captions": captions, "concept": disc + ground})
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = load_recipe(
        "contrastive/tiny/m2_encoder",
        [f"data.sources=[{{kind: folder, path: {table}}}]", "data.languages=[en]", "loop.batch_size=16",
         "loop.micro_batch=8", "loop.log_every=1", "stages.0.steps=24", f"run.folder={tmp_path / 'run'}"],
    )  # fmt: skip
    run = train(recipe)
    first, last = run.metrics()[:4], run.metrics()[-4:]
    for name in ("grouped_contrastive", *KINDS):
        before, after = (sum(line[name] for line in lines) / 4 for lines in (first, last))
        assert after < 0.85 * before, name
    again = run.model()
    assert again.decoder is not None and again.text.shared is again.image.shared
