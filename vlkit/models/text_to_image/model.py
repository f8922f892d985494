"""A language model that foretells an image's codes from a prompt and from those codes that are known.

Sources: MaskGIT (arXiv 2202.04200), Muse (2301.00704), Show-o (2408.12528), NeoBabel (2507.06137).

Shapes: B images, N codes of an image, M places of its block (the codes between two marks), T text places, E width of
the language model, W width of the body, R chosen places, K codebook size (code K stands for a hidden one).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlkit.errors import ShapeError
from vlkit.models.assembly import checked_part, place_of, spec_of, trains
from vlkit.models.augment import Augment
from vlkit.models.code_switch import CodeSwitch
from vlkit.models.image_input import AnImage
from vlkit.models.model_html import model_html
from vlkit.models.text_to_image import editing, foretelling, painting
from vlkit.models.text_to_image.batch import CodePreparer
from vlkit.models.text_to_image.bodies import CodeBody, LanguageModelBody
from vlkit.models.text_to_image.prompts import PromptLayout
from vlkit.models.trainable import adapter_specs, hold_frozen_in_eval
from vlkit.nn.code_edits import Margins
from vlkit.nn.code_head import CodeHead
from vlkit.nn.code_sampler import SampledStep
from vlkit.parts.image_tokenizers import resized
from vlkit.spec.dataset import DataSpec
from vlkit.spec.model import TextToImageSpec
from vlkit.spec.text_to_image import LanguageModelBodySpec, PromptSpec, SamplingSpec
from vlkit.types import ImageTokenizer, LanguageModel, Prefix, Preparer, TextBatch

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self


class TextToImageModel(nn.Module):
    """Makes images of prompts in any language that its language model knows.

    The words of the language model and the codes of images have tables of their own, so text is read and written as
    before, unless the language model's own layers are trained. The image tokenizer stays frozen.

    Args:
        language_model: A decoder-only ``types.LanguageModel``.
        tokenizer: A ``types.ImageTokenizer`` that is an ``nn.Module``.
        head: Embeddings of the tokenizer's codes and what foretells them, of the body's width.
        body: See ``bodies``; None takes the language model's own layers.
        prompt: How prompts are laid out; None takes the spec's default.
        sampling: How images are made unless asked for otherwise; None takes the spec's default.

    Raises:
        ShapeError: Head, body and tokenizer do not fit each other.
        VlkitError: A part does not offer what its place needs.
    """

    language_model: LanguageModel
    tokenizer: ImageTokenizer
    head: CodeHead

    def __init__(
        self,
        language_model: LanguageModel | nn.Module,
        tokenizer: ImageTokenizer | nn.Module,
        head: CodeHead,
        body: Any = None,
        *,
        prompt: PromptSpec | None = None,
        sampling: SamplingSpec | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.language_model = checked_part("language model", language_model, LanguageModel, owner=owner)
        self.tokenizer = checked_part("image tokenizer", tokenizer, ImageTokenizer, owner=owner)
        self.head = head
        self.body: CodeBody = LanguageModelBody(LanguageModelBodySpec(), language_model) if body is None else body
        if (head.codebook_size, head.grid) != (self.tokenizer.codebook_size, tuple(self.tokenizer.grid)):
            raise ShapeError(
                f"the head is for {head.codebook_size} codes in {head.grid[0]}x{head.grid[1]}, and the image tokenizer "
                f"has {self.tokenizer.codebook_size} in {self.tokenizer.grid[0]}x{self.tokenizer.grid[1]}"
            )
        if head.codes.embedding_dim != self.body.width:
            raise ShapeError(f"the head is {head.codes.embedding_dim} wide and the body {self.body.width}")
        for parameter in self._tokenizer.parameters():
            parameter.requires_grad_(False)
        self.prompt, self.sampling = prompt or PromptSpec(), sampling or SamplingSpec()
        self.loaded_from: str | None = None  # what vlkit.load was given

    def parts(self) -> dict[str, nn.Module]:
        """See ``types.Model``."""
        return dict(self.named_children())

    @property
    def spec(self) -> TextToImageSpec:
        """The spec that builds this model again, read off its parts.

        Raises:
            VlkitError: A part carries no spec of vlkit's.
        """
        return TextToImageSpec(
            language_model=spec_of(self, "language_model"),
            tokenizer=spec_of(self, "tokenizer"),
            head=spec_of(self, "head"),
            body=self.body.spec,
            prompt=self.prompt,
            sampling=self.sampling,
            adapters=adapter_specs(self),
        )

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.head.codebook_size

    @property
    def num_codes(self) -> int:
        """N, the codes of an image."""
        return self.head.grid[0] * self.head.grid[1]

    @property
    def layout(self) -> PromptLayout:
        """How prompts become ids for this model."""
        model = self.language_model
        return PromptLayout(model.tokenizer, self.prompt, min(self.prompt.max_length, model.max_length))

    @property
    def transform(self) -> Callable[[Image], Tensor]:
        """Turns an RGB image into pixels_CHW as the image tokenizer wants them."""
        return self.tokenizer.transform

    def preparer(
        self, data: DataSpec, *, needs: Collection[str] | None = None, tables: Mapping[str, Any] | None = None
    ) -> Preparer:
        """See ``types.Model``; with a table of the tokenizer's codes no image is read."""
        return CodePreparer(
            self.transform,
            self.layout,
            Augment(data.augment),
            self.num_codes,
            CodeSwitch(data.code_switch),
            data.languages,
            (tables or {}).get("tokenizer"),
        )

    @property
    def refuses_merge(self) -> str | None:
        """Why adapters cannot be folded in; None where they can."""
        spec = self.body.spec
        if isinstance(spec, LanguageModelBodySpec) and spec.text == "frozen":
            return "it acts on codes alone (body.text: frozen), and folded in it would act on prompts, too"
        return None

    def at_size(self, size: int) -> None:
        """See ``types.TakesSizes``: the tokenizer's weights stay, it has more codes, and the head more places.

        Raises:
            VlkitError: The tokenizer takes no other size.
        """
        self.tokenizer = resized(self.tokenizer, size)
        for parameter in self._tokenizer.parameters():
            parameter.requires_grad_(False)
        self.head.at_grid(self.tokenizer.grid)

    def _repr_html_(self) -> str:
        return model_html(self)

    def figures(self) -> dict[str, float]:
        """See ``types.Model``: nothing of its own."""
        return {}

    def train(self, mode: bool = True) -> Self:
        """Sets training mode, but for the frozen parts."""
        super().train(mode)
        hold_frozen_in_eval(self)
        return self

    def codes_of(self, pixels_BCHW: Tensor) -> Tensor:
        """codes_BN of images on any device."""
        place = place_of(self._tokenizer)
        codes_BN: Tensor = self.tokenizer.encode(pixels_BCHW if place is None else pixels_BCHW.to(place[0]))
        return codes_BN

    def read(self, prompts: TextBatch) -> Prefix:
        """Reads prompts once; ``behind`` then goes on from there as often as wished."""
        text_BTE, mask_BT = self._embedded(prompts)
        return self.body.read(self.language_model, text_BTE, mask_BT)

    def behind(self, codes_BN: Tensor, prefix: Prefix) -> Tensor:
        """states_BNW of codes in 0..K behind prompts that were read."""
        block_BMW = self.head.block(codes_BN.to(self.head.marks_MW.device))
        return self.head.inner(self.body.behind(self.language_model, block_BMW, prefix))

    def forward(self, prompts: TextBatch, codes_BN: Tensor) -> Tensor:
        """states_BNW of codes in 0..K behind prompts, to learn from; ``logits`` takes those that are needed."""
        text_BTE, mask_BT = self._embedded(prompts)
        block_BMW = self.head.block(codes_BN.to(self.head.marks_MW.device))
        return self.head.inner(self.body.states(self.language_model, text_BTE, mask_BT, block_BMW))

    def logits(self, states_RW: Tensor) -> Tensor:
        """logits_RK of chosen states, of codes alone: no word can be foretold."""
        logits_RK: Tensor = self.head(states_RW)
        return logits_RK

    def code_losses(
        self, images: Sequence[AnImage], prompts: Sequence[str], *, language: str, share: float, batch_size: int = 16
    ) -> Tensor:
        """See ``types.ForetellsCodes``."""
        return foretelling.code_losses(self, images, prompts, language=language, share=share, batch_size=batch_size)

    def generate(
        self,
        prompts: str | Sequence[str | None] | None,
        *,
        language: str | None = None,
        seed: int | None = None,
        num_images: int = 1,
        negative: str | None = None,
        batch_size: int = painting.AT_ONCE,
        watch: Callable[[SampledStep], None] | None = None,
        **sampling: Any,
    ) -> list[Image]:
        """Images of prompts.

        Args:
            prompts: One or several, in any language; None for an image of anything.
            language: BCP 47 tag, which some models are told; all others find it out.
            seed: Of the first image of each prompt, 0 to 2^63 - 1; the others take the numbers after it. A seed is the
                same noise for each prompt and language. None takes that of ``sampling``.
            num_images: Images of each prompt.
            negative: What images shall not show: logits are moved away from it instead of from those without a prompt.
            batch_size: Images at a time.
            watch: Takes each step of each batch, for previews; ``images_of`` makes images of its codes.
            sampling: Fields of ``spec.text_to_image.SamplingSpec`` (``steps``, ``guidance``, ``temperature``, ...);
                what is not given is as in the model's own ``sampling``.

        Returns:
            RGB images, ``num_images`` of the first prompt, then of the second.

        Raises:
            UnknownName: No such language.
            VlkitError: An empty prompt, or a setting that is none.
        """
        chosen = painting.settings(self, seed=seed, sampling=sampling)
        return painting.paint(
            self,
            painting.listed_prompts(prompts),
            chosen,
            language=language,
            num_images=num_images,
            negative=negative,
            batch_size=batch_size,
            watch=watch,
        )

    def repaint(
        self, image: AnImage, mask: AnImage, prompt: str | None, *, area: float | None = None, **options: Any
    ) -> list[Image]:
        """Makes a part of an image anew; all other codes stay as they are (inpainting).

        Args:
            image: What to change; its shorter side is resized, the middle cut out.
            mask: An image of the same form, white where it is to be made anew.
            prompt: As for ``generate``.
            area: The share of a code's pixels that has to be white; None: any of them will do.
            options: As for ``generate``.
        """
        return editing.repaint(self, image, mask, prompt, area=area, options=options)

    def vary(self, image: AnImage, prompt: str | None, *, strength: float = 0.5, **options: Any) -> list[Image]:
        """Variations of an image: a share of its codes, ``strength``, is made anew; the rest as for ``generate``."""
        return editing.vary(self, image, prompt, strength=strength, options=options)

    def widen(self, image: AnImage, margins: Margins, prompt: str | None, **options: Any) -> list[Image]:
        """Lets an image grow by rows and columns of codes on its sides (outpainting); the rest as for ``generate``."""
        return editing.widen(self, image, margins, prompt, options=options)

    def images_of(self, codes_BN: Tensor) -> list[Image]:
        """RGB images of codes."""
        return painting.images_of(self, codes_BN)

    @property
    def _tokenizer(self) -> nn.Module:
        module: Any = self.tokenizer
        checked: nn.Module = module
        return checked

    def _embedded(self, prompts: TextBatch) -> tuple[Tensor, Tensor]:
        model: Any = self.language_model
        place = place_of(model)
        ids_BT, mask_BT = prompts if place is None else (side.to(place[0]) for side in prompts)
        with nullcontext() if trains(model) else torch.no_grad():
            return model.embed(ids_BT), mask_BT
