"""What an image tokenizer learns from: images given back, and codes that are sure and all in use.

Source of the entropy: LFQ (MAGVIT-v2, arXiv 2310.05737, equations 4 and 5). The chance of a code is that of a softmax
over all codes c of 2 <z, c>, which is the product over bits of sigmoid(4 z c); so the entropy of a place is the sum of
those of its bits, and nothing of the size [places, codes] is made.

Shapes: B images, C channels, H height, W width, N codes of an image, P places of a batch, q bits, K codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.assembly import place_of
from vlkit.models.image_tokenizer.batch import ImageBatch
from vlkit.models.image_tokenizer.model import ImageTokenizerModel
from vlkit.objectives.context import Context
from vlkit.objectives.gather import gathered
from vlkit.parts.conv_tokenizer import ConvImageTokenizer
from vlkit.spec.objectives import ReconstructionObjective
from vlkit.types import Loss, Piece

_TINY = 1e-12


class Reconstruction:
    """Absolute and squared errors of pixels in 0..1, of their differences to neighbours, at one or several sizes."""

    needs = frozenset(("tokenizer",))

    def __init__(self, spec: ReconstructionObjective, *, ranks: Ranks) -> None:
        self.spec, self.ranks = spec, ranks

    @classmethod
    def build(cls, spec: ReconstructionObjective, model: Any, context: Context) -> Reconstruction:
        """The objective of an image tokenizer of kind ``conv``.

        Raises:
            VlkitError: The model is of another kind, or has no bits to be sure of.
        """
        if not isinstance(model, ImageTokenizerModel):
            raise VlkitError(
                f"the reconstruction objective needs a model of kind image_tokenizer, and this one is of kind "
                f"{model.spec.kind}"
            )
        tokenizer = model.tokenizer
        if not isinstance(tokenizer, ConvImageTokenizer):
            raise VlkitError(
                f"the reconstruction objective trains image tokenizers of kind conv, and this one is a "
                f"{type(tokenizer).__name__}, which is used as it is"
            )
        if tokenizer.spec.image_size >> (spec.scales - 1) < 1:
            raise VlkitError(
                f"objectives: scales = {spec.scales} halves images of {tokenizer.spec.image_size} pixels to less than "
                f"one; allowed: up to {tokenizer.spec.image_size.bit_length()}"
            )
        if spec.entropy and tokenizer.spec.quantizer != "lfq":
            raise VlkitError(
                f"objectives: entropy = {spec.entropy:g} is of quantizer lfq, and this tokenizer has "
                f"{tokenizer.spec.quantizer}, which needs none; leave it out, or set model.tokenizer.quantizer: lfq"
            )
        return cls(spec, ranks=context.ranks)

    def __call__(self, model: ImageTokenizerModel, batch: ImageBatch) -> Loss:
        """See ``types.Objective``."""
        place = place_of(model.tokenizer)
        pixels_BCHW = batch.pixels_BCHW if place is None else batch.pixels_BCHW.to(place[0])
        found = model.tokenizer(pixels_BCHW)
        errors_BCHW = (found.pixels_BCHW.float() - pixels_BCHW) / 2  # of pixels in 0..1
        total, parts = self._of_pixels(errors_BCHW)
        if self.spec.entropy:
            sure, spread = self._entropies(found.latents_BqHW)
            total = total + self.spec.entropy * (sure - self.spec.diversity * spread)
            parts |= {"code_entropy": sure.detach(), "codebook_entropy": spread.detach()}
        with torch.no_grad():
            squares_B = (((found.pixels_BCHW.float().clamp(-1, 1) - pixels_BCHW) / 2) ** 2).mean(dim=(1, 2, 3))
            parts["psnr"] = (-10 * squares_B.clamp(min=_TINY).log10()).mean()
        return Loss(total, parts)

    def pieces(self, batch: ImageBatch, size: int) -> Sequence[Piece]:
        """See ``types.Objective``; the entropy of a batch's codes needs all of it at once."""
        if self.spec.entropy:
            return [Piece(batch)]
        cuts = [torch.arange(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [Piece(batch.rows(index), len(index) / len(batch)) for index in cuts]

    def _of_pixels(self, errors_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum; ``l1`` and ``l2`` in the log are those at full size."""
        total, parts = errors_BCHW.new_zeros(()), dict[str, Tensor]()
        for scale in range(self.spec.scales):
            if scale:
                errors_BCHW = F.avg_pool2d(errors_BCHW, 2)
            absolute, squared = errors_BCHW.abs().mean(), errors_BCHW.square().mean()
            total = total + (self.spec.l1 * absolute + self.spec.l2 * squared) / self.spec.scales
            if not scale:
                parts |= {"l1": absolute.detach(), "l2": squared.detach()}
                if self.spec.edges:
                    edges = errors_BCHW.diff(dim=-1).abs().mean() + errors_BCHW.diff(dim=-2).abs().mean()
                    total, parts["edges"] = total + self.spec.edges * edges, edges.detach()
        return total, parts

    def _entropies(self, latents_BqHW: Tensor) -> tuple[Tensor, Tensor]:
        """In nats: the mean entropy of a place's code, and that of the chances over all places and processes."""
        logits_Pq = 4 * latents_BqHW.float().flatten(2).transpose(1, 2).flatten(0, 1)
        chances_Pq2 = torch.stack([logits_Pq.neg(), logits_Pq], dim=-1).sigmoid()
        logs_Pq2 = torch.stack([F.logsigmoid(logits_Pq.neg()), F.logsigmoid(logits_Pq)], dim=-1)
        sure = -(chances_Pq2 * logs_Pq2).sum(dim=(1, 2)).mean()
        half = chances_Pq2.shape[1] // 2
        first_PX, last_PY = _joint(chances_Pq2[:, :half]), _joint(chances_Pq2[:, half:])
        own_K = (first_PX.T @ last_PY).flatten() / len(logits_Pq)
        mean_K = gathered(own_K.unsqueeze(0), self.ranks).mean(dim=0)
        return sure, -(mean_K * mean_K.clamp(min=_TINY).log()).sum()


def _joint(chances_Pq2: Tensor) -> Tensor:
    """Chances [P, 2 ** q] of all combinations of independent bits, the first bit the highest."""
    joint = chances_Pq2.new_ones(len(chances_Pq2), 1)
    for bit_P2 in chances_Pq2.unbind(dim=1):
        joint = (joint.unsqueeze(-1) * bit_P2.unsqueeze(1)).flatten(1)
    return joint
