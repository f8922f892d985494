"""The loss of the patch decoder: hidden patches of an image, given the text.

Shapes: B batch, C channels, H height, W width, N patches, K hidden patches, P values of a patch, M image tokens,
L text length, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.models.dual_encoder.model import DualEncoder, Encoded
from vlkit.nn.decoders import PatchDecoder, normalized_patches, take
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.captioning.common import PairMean, decoder_of
from vlkit.objectives.pairs.captioning.masks import hide_patches, on_grid
from vlkit.parts.building import compact
from vlkit.spec.captioning import MaskedImageObjective
from vlkit.spec.training import ObjectiveSpec


class MaskedImage(PairMean):
    """Hidden patches of an image from the other patches and the text (M2-Encoder's CMIM, arXiv 2401.15896).

    The target is the patch's pixels, each patch with mean 0 and variance 1 (MAE, arXiv 2111.06377, section 4.1), and
    the loss the mean squared error. M2-Encoder predicts the codes of BEiT-2's image tokenizer instead.
    """

    name = "masked_image"

    def __init__(self, spec: MaskedImageObjective) -> None:
        self.spec = spec

    @classmethod
    def build(cls, spec: ObjectiveSpec, model: DualEncoder, context: Context) -> MaskedImage:
        """See ``Term.build``."""
        decoder_of(model, "image", PatchDecoder, objective=cls.name)
        return cls(cast("MaskedImageObjective", spec))

    def per_pair(self, model: DualEncoder, chunk: PairBatch, encoded: Encoded) -> Mapping[str, Tensor]:
        """Each pair's loss."""
        if chunk.pixels_BCHW is None or chunk.tokens is None or encoded.text_BLD is None:
            raise VlkitError(f"the {self.name} objective needs pixels and text states, not cached features")
        decoder = decoder_of(model, "image", PatchDecoder, objective=self.name)
        text_BLD = encoded.text_BLD
        pixels_BCHW = chunk.pixels_BCHW.to(text_BLD.device)
        rows, columns = (side // decoder.patch_size for side in pixels_BCHW.shape[-2:])
        patches_BNP = decoder.patches(pixels_BCHW)
        hidden_BK = hide_patches(
            len(patches_BNP),
            patches_BNP.shape[1],
            share=self.spec.mask_share,
            likeness_BN=self._likeness(model, encoded, rows, columns),
            device=text_BLD.device,
        )
        keep_BL = compact(*chunk.tokens)[1].to(text_BLD.device) > 0
        predicted_BKP = decoder(patches_BNP.to(text_BLD.dtype), hidden_BK, text_BLD, keep_BL, columns=columns)
        error_BKP = predicted_BKP.float() - normalized_patches(take(patches_BNP, hidden_BK))
        return {self.name: error_BKP.square().mean(dim=(1, 2))}

    @torch.no_grad()
    def _likeness(self, model: DualEncoder, encoded: Encoded, rows: int, columns: int) -> Tensor | None:
        """Cosine of each patch's place in the shared space and the text's; None where patches are drawn at random."""
        if self.spec.masking == "random" or encoded.image_BND is None or encoded.text_BE is None:
            return None
        place_BME = model.project_image(encoded.image_BND)
        return on_grid((place_BME @ encoded.text_BE[..., None]).squeeze(-1), rows, columns)
