"""A multilingual text encoder that tells a diffusion model made for English what to paint.

Sources: MuLan (arXiv 2412.01271), PEA-Diffusion (arXiv 2311.17086).

Shapes: B texts, L their length, T width of a state, M states that the denoiser reads, E their width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlkit.errors import ShapeError, VlkitError
from vlkit.languages import normalize
from vlkit.models.assembly import checked_part, place_of, spec_of, trains
from vlkit.models.diffusion_bridge.batch import ParallelPreparer
from vlkit.models.model_html import model_html
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.nn.condition_bridges import ConditionBridge
from vlkit.parts.diffusion_pipelines import BasePipeline
from vlkit.spec.dataset import DataSpec
from vlkit.spec.diffusion import PaintingSpec
from vlkit.spec.model import DiffusionBridgeSpec
from vlkit.spec.options import checked_options
from vlkit.types import GivesStates, Preparer, TextBatch, TextEncoder, lacking

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


class DiffusionBridge(nn.Module):
    """Prompts in the languages of a text encoder for a diffusion pipeline.

    The pipeline is no part of it: it is frozen, follows it to another device, and is named in a model folder, not
    copied.

    Args:
        text: A ``types.TextEncoder`` that is an ``nn.Module`` and ``types.GivesStates``.
        bridge: From its states to those that the denoiser reads.
        pipeline: The diffusion pipeline.

    Raises:
        ShapeError: Widths do not fit.
        VlkitError: A part is of another kind.
    """

    text: Any
    bridge: ConditionBridge

    def __init__(self, text: TextEncoder | nn.Module, bridge: nn.Module, pipeline: BasePipeline) -> None:
        super().__init__()
        own = type(self).__name__
        self.text = checked_part("text encoder", text, TextEncoder, owner=own)
        if not isinstance(text, GivesStates):
            raise VlkitError(
                f"the text encoder {type(text).__name__} gives no states beside its feature (it has no "
                f"{', '.join(lacking(text, GivesStates))}); a {own} needs them"
            )
        for name, part, kind in (("bridge", bridge, ConditionBridge), ("pipeline", pipeline, BasePipeline)):
            if not isinstance(part, kind):
                raise VlkitError(f"{name} is a {type(part).__name__}; a {own} takes a {kind.__name__}")
        self.bridge, self.pipeline = bridge, pipeline  # type: ignore[assignment]
        given = (self.bridge.in_width, self.bridge.out_width, self.bridge.count)
        wanted = (text.token_width, pipeline.width, pipeline.count)
        if given != wanted:
            raise ShapeError(
                f"the bridge makes {given[2]} states {given[1]} wide of states {given[0]} wide; this text encoder and "
                f"this pipeline need in_width={wanted[0]}, out_width={wanted[1]}, count={wanted[2]}"
            )
        self.loaded_from: str | None = None  # what vlkit.load was given

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``."""
        return dict(self.named_children())

    @property
    def spec(self) -> DiffusionBridgeSpec:
        """The spec that builds this model again, read off its parts.

        Raises:
            VlkitError: A part carries no spec of vlkit's.
        """
        return DiffusionBridgeSpec(
            **{name: spec_of(self, name) for name in self.parts()},
            pipeline=self.pipeline.spec,
            adapters=adapter_specs(self),
        )

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``."""
        return ParallelPreparer(self.text.tokenize)

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: nothing of its own."""
        return {}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for what is frozen."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def conditions(self, tokens: TextBatch) -> Tensor:
        """states_BME, float32, that the denoiser is told by texts; no row depends on the others or on padding."""
        place = place_of(self.text)
        if place is not None:
            tokens = TextBatch(*(x.to(place[0]) for x in tokens))
        with nullcontext() if trains(self.text) else torch.no_grad():
            _, states_BLT = self.text.pooled_and_states(tokens)
        states_BLT = states_BLT[:, : tokens.mask_BL.shape[1]]
        places_L = torch.arange(states_BLT.shape[1], device=states_BLT.device)
        real_BL = (places_L < tokens.mask_BL.sum(dim=1, keepdim=True)).long()  # real ones stand first
        to = place_of(self.bridge)
        if to is not None:
            states_BLT, real_BL = states_BLT.to(*to), real_BL.to(to[0])
        out_BME: Tensor = self.bridge(states_BLT, real_BL)
        return out_BME.float()

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        language: str | None = None,
        seed: int | None = None,
        num_images: int = 1,
        negative: str | None = None,
        watch: Callable[[Any], None] | None = None,
        **painting: Any,
    ) -> list[Image]:
        """RGB images of what prompts say, those of one after those of another.

        A seed is the same noise in every language and in any batch, so that images of translations can be compared.

        Args:
            prompts: One or several, in any language of the text encoder.
            language: BCP 47 tag; encoders that put no mark of the language into their input do without.
            seed: Of the first image of each prompt, the others take the numbers after it; None takes 0.
            num_images: How many of each prompt.
            negative: What images are moved away from, in the language of the prompts; None takes what the pipeline's
                own text encoder makes of no text, which its denoiser knows best.
            watch: Taken because other painters call it at each step; here nobody does.
            painting: ``steps``, ``guidance``, ``image_size``, ``batch_size`` (``spec.diffusion.PaintingSpec``).

        Raises:
            UnknownName: No such language.
            VlkitError: A prompt is empty, the number of images is not at least 1, or a setting is out of range.
            AssetError: The pipeline cannot be read.
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if not listed or not all(prompt.strip() for prompt in listed):
            raise VlkitError("a prompt is empty; say what the image shows")
        if num_images < 1:
            raise VlkitError(f"num_images = {num_images}; allowed: 1 or more")
        settings = checked_options(
            PaintingSpec, painting if seed is None else {"seed": seed, **painting}, what="painting"
        )
        tag = None if language is None else normalize(language)
        with torch.no_grad():
            states_BME = self.conditions(self.text.tokenize(listed, language=tag))
            if negative and negative.strip():
                null_BME = self.conditions(self.text.tokenize([negative], language=tag))
            else:
                null_BME = self.pipeline.english([""])
        return self.pipeline.images(states_BME, null_BME[0], count=num_images, painting=settings)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Takes the pipeline along to another device."""
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (place := place_of(self.bridge)) is not None and place[0].type != "meta":
            self.pipeline.to(place[0])
        return moved
