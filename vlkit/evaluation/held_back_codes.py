"""What training of a text-to-image model measures meanwhile: how well it foretells codes of images held back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from vlkit.evaluation.abilities import FORETELLS, PAINTS
from vlkit.evaluation.held_back import check_able
from vlkit.evaluation.held_back_answers import captions_kept_back
from vlkit.models.image_grid import image_grid
from vlkit.spec.recipe import Recipe
from vlkit.spec.training import HeldBackCodesValidation
from vlkit.types import ForetellsCodes, Model, Painter

if TYPE_CHECKING:
    from PIL.Image import Image

_SHARES = (0.3, 0.6, 0.9)


class HeldBackCodes:
    """Hidden codes of the concepts held back, foretold with the prompt in each language (``Evaluator``).

    Previews show what the model makes of some of the captions with its own settings, guidance too, as it would be used
    (``watchers.ShowsImages``).

    Raises:
        VlkitError: Nothing is kept back.
        DataError: No image that is kept back has a caption.
        UnknownName: None has one in a language asked for.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.spec = cast("HeldBackCodesValidation", recipe.validation)
        self.samples, self.languages = captions_kept_back(recipe, limit=self.spec.limit, languages=self.spec.languages)

    def __call__(self, model: Model) -> Mapping[str, Any]:
        """By language, and as means over languages: ``loss`` in nats and ``accuracy`` of hidden codes; both are means
        over 30, 60 and 90 % of an image's codes hidden, and ``accuracy_30_hidden`` and so on are those of each.

        Raises:
            VlkitError: The model foretells no codes.
        """
        check_able(model, FORETELLS, kind=self.spec.kind, instead="held_back")
        asked = cast("ForetellsCodes", model)
        found: dict[str, dict[str, float]] = {"loss": {}, "accuracy": {}}
        by_share: dict[float, list[float]] = {share: [] for share in _SHARES}
        for tag in self.languages:
            pairs = [
                (one.image().convert("RGB"), one.captions[tag][0]) for one in self.samples if one.captions.get(tag)
            ]
            images, texts = (list(side) for side in zip(*pairs, strict=True))
            means = []
            for share in _SHARES:
                rows_N2 = asked.code_losses(images, texts, language=tag, share=share, batch_size=self.spec.batch_size)
                means.append(rows_N2.mean(dim=0))
                by_share[share].append(float(means[-1][1]))
            found["loss"][tag], found["accuracy"][tag] = torch.stack(means).mean(dim=0).tolist()
        shares = {f"accuracy_{100 * share:.0f}_hidden": sum(of) / len(of) for share, of in by_share.items()}
        return {**found, **{f"mean_{name}": sum(of.values()) / len(of) for name, of in found.items()}, **shares}

    def preview(self, model: Model) -> Image | None:
        """Images of some captions: a row a concept, a column a language; None where none are wanted."""
        if not self.spec.previews or not PAINTS.of(model):
            return None
        languages = self.languages[: self.spec.previews]
        chosen = [one for one in self.samples if all(one.captions.get(tag) for tag in languages)][: self.spec.previews]
        columns = [
            cast("Painter", model).generate([one.captions[tag][0] for one in chosen], language=tag)
            for tag in languages
            if chosen
        ]
        images = [column[row] for row in range(len(chosen)) for column in columns]
        return image_grid(images, len(languages)) if images else None
