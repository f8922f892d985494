"""The loss of an image tokenizer: value and gradient by a few lines of plain torch, in one piece and in several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.image_tokenizer.batch import ImageBatch
from vlkit.models.registry import build
from vlkit.objectives.codes.reconstruction import Reconstruction
from vlkit.objectives.weighted_sum import build_objective
from vlkit.spec.bridges import QFormerBridgeSpec
from vlkit.spec.image_tokenizers import ConvTokenizerSpec
from vlkit.spec.model import ImageTokenizerModelSpec, QueryFormerSpec
from vlkit.spec.objectives import ReconstructionObjective
from vlkit.spec.parts import TinyImage

OTHER = QueryFormerSpec(
    encoder=TinyImage(image_size=16, width=16, depth=1),
    bridge=QFormerBridgeSpec(num_queries=3, width=16, layers=2, heads=2, ffn=24),
)
SIZES = {"image_size": 16, "patch": 2, "widths": (8,), "blocks": 1}


def model(**fields: Any) -> Any:
    torch.manual_seed(0)
    return build(ImageTokenizerModelSpec(tokenizer=ConvTokenizerSpec(**SIZES | {"levels": (5, 3)} | fields)))


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_errors_are_those_of_pixels_in_0_to_1_at_each_size() -> None:
    tokenizer, pixels = model(), images()
    spec = ReconstructionObjective(l1=0.5, l2=2.0, edges=0.25, scales=2)
    loss = build_objective([spec], tokenizer)(tokenizer, ImageBatch(pixels))
    with torch.no_grad():
        given = (tokenizer.tokenizer(pixels).pixels_BCHW + 1) / 2
    true = (pixels + 1) / 2
    small = [(one[..., ::2, ::2] + one[..., 1::2, ::2] + one[..., ::2, 1::2] + one[..., 1::2, 1::2]) / 4
             for one in (given, true)]  # fmt: skip
    pixel = [0.5 * (a - b).abs().mean() + 2 * ((a - b) ** 2).mean() for a, b in ((given, true), small)]
    across = ((given[..., 1:] - given[..., :-1]) - (true[..., 1:] - true[..., :-1])).abs().mean()
    down = ((given[..., 1:, :] - given[..., :-1, :]) - (true[..., 1:, :] - true[..., :-1, :])).abs().mean()
    torch.testing.assert_close(loss.total, sum(pixel) / 2 + 0.25 * (across + down))
    squares = ((given.clamp(0, 1) - true) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(loss.parts["psnr"], (10 * torch.log10(1 / squares)).mean())
    torch.testing.assert_close(loss.parts["l1"], (given - true).abs().mean())


def test_pieces_add_up_to_the_batch() -> None:
    tokenizer, batch = model(), ImageBatch(images(), sources=tuple("abcde"))
    objective = build_objective([ReconstructionObjective(edges=1.0, scales=3)], tokenizer)
    objective(tokenizer, batch).total.backward()
    whole = {name: one.grad.clone() for name, one in tokenizer.named_parameters()}
    tokenizer.zero_grad()
    pieces = objective.pieces(batch, 2)
    assert [piece.batch.sources for piece in pieces] == [("a", "b"), ("c", "d"), ("e",)]
    for piece in pieces:
        (piece.weight * objective(tokenizer, piece.batch).total).backward()
    for name, one in tokenizer.named_parameters():
        torch.testing.assert_close(one.grad, whole[name], atol=1e-6, rtol=1e-4)


def test_entropies_are_those_of_the_whole_codebook() -> None:
    """Against the same by the package that makes all chances of all codes."""
    from vector_quantize_pytorch import LFQ

    bits = 5
    tokenizer, batch = model(quantizer="lfq", levels=(2,) * bits), ImageBatch(images())
    spec = ReconstructionObjective(l1=0, l2=0, entropy=0.3, diversity=0.7)
    objective = build_objective([spec], tokenizer)
    loss = objective(tokenizer, batch)
    peer = LFQ(dim=bits, codebook_size=2**bits, entropy_loss_weight=1.0, diversity_gamma=0.7).train()
    latents = tokenizer.tokenizer.encoder(batch.pixels_BCHW)
    expected, parts = peer(latents, inv_temperature=1.0, return_loss_breakdown=True)
    torch.testing.assert_close(loss.parts["code_entropy"], parts.per_sample_entropy.detach(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(loss.parts["codebook_entropy"], parts.batch_entropy.detach(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(loss.total, 0.3 * expected.entropy_aux_loss, atol=1e-4, rtol=1e-3)
    weights = list(tokenizer.tokenizer.encoder.parameters())
    ours, theirs = (torch.autograd.grad(one, weights) for one in (loss.total, 0.3 * expected.entropy_aux_loss))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-2)
    assert [len(piece.batch) for piece in objective.pieces(batch, 2)] == [5]  # not cut


def test_what_cannot_be_learned_so_is_refused() -> None:
    spec = ReconstructionObjective()
    with pytest.raises(VlkitError, match="needs a model of kind image_tokenizer, and this one is of kind query_former"):
        build_objective([spec], build(OTHER))
    with pytest.raises(VlkitError, match="scales = 6 halves images of 16 pixels to less than one; allowed: up to 5"):
        build_objective([ReconstructionObjective(scales=6)], model())
    with pytest.raises(VlkitError, match=r"entropy = 0.1 is of quantizer lfq, and this tokenizer has fsq, which needs"):
        build_objective([ReconstructionObjective(entropy=0.1)], model())
    assert Reconstruction.needs == {"tokenizer"}
