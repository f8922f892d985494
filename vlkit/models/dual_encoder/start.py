"""A closed-form start of the heads, from the features of frozen encoders and the classes that they know.

Shapes: N images or names, L languages, D image width, T text width, K classes, E embedding width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import ImageRows, TextRows
from vlkit.models.dual_encoder.closed_form import canonical_maps, class_embeddings, ridge_map, translation_spread
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.nn.heads import Head, PrototypeHead
from vlkit.spec.objectives import LossSpec
from vlkit.spec.training import StageSpec, WarmStartSpec
from vlkit.types import ClassRows, FrozenTables, KnowsClasses

log = logging.getLogger(__name__)


def start(
    model: DualEncoder, stage: StageSpec, *, objectives: Sequence[LossSpec], frozen: FrozenTables | None, first: bool
) -> None:
    """What is worked out of the features of frozen encoders before the first step of a stage; see ``types.Start``.

    Raises:
        VlkitError: A head needs what there is not.
    """
    images, texts = (None, None) if frozen is None else (frozen.table("image"), frozen.table("text"))
    if first:
        fit_means(model, images=images, texts=texts)
    if stage.warm_start is not None:
        if frozen is None:
            raise VlkitError(
                "a warm start needs data that can be read at any place, and this is streamed; set the stage's "
                "warm_start to null"
            )
        learns_classes = any(spec.kind == "class_prototypes" for spec in objectives)
        warm_start(model, stage.warm_start, frozen=frozen, learns_classes=learns_classes)
    if isinstance(model.image_head, PrototypeHead) and not bool(model.image_head.class_KV.any()):
        raise VlkitError(
            "model.image_head is a prototype head, which gets its classes from a warm start; "
            "set warm_start: {} in the first stage"
        )


def fit_means(model: DualEncoder, *, images: ImageRows | None, texts: TextRows | None) -> None:
    """Measures the mean feature for the heads that centre, before anything trains.

    Raises:
        VlkitError: A head centres and the encoder below it is not frozen, so that its features move.
    """
    sides = (
        ("image", model.image_head, None if images is None else lambda: images.all_rows()[:, 0]),
        ("text", model.text_head, None if texts is None else texts.all_rows),
    )
    for side, head, read in sides:
        if isinstance(head, Head) and head.needs_mean:
            if read is None:
                raise VlkitError(
                    f"model.{side}_head.center = true needs cached features of a frozen {side} encoder in the first "
                    f"stage; set center to false, or freeze model.{side} and set loop.cache_features to true"
                )
            features_ND = read()
            head.fit_mean(features_ND[features_ND.abs().amax(dim=1) > 0])


def warm_start(model: DualEncoder, spec: WarmStartSpec, *, frozen: FrozenTables, learns_classes: bool) -> None:
    """Sets the linear maps of both heads.

    Raises:
        VlkitError: An encoder is not frozen, or a head has no linear map.
    """
    images, texts = frozen.table("image"), frozen.table("text")
    heads = [head for head in (model.image_head, model.text_head) if isinstance(head, Head) and head.linear is not None]
    if images is None or texts is None or len(heads) != 2:
        raise VlkitError(
            "a warm start needs both encoders frozen with loop.cache_features = true, and linear, mlp or prototype "
            "heads; set the stage's warm_start to null"
        )
    image_head, text_head = heads
    pairs_dim = int(image_head.linear.weight.shape[0])  # type: ignore[union-attr]
    image_ND, text_NLT = _pairs(frozen, images=images, texts=texts)
    maps = canonical_maps(
        image_head.centered(image_ND),
        text_head.centered(text_NLT),
        dim=pairs_dim,
        image_shrinkage=spec.image_shrinkage,
        text_shrinkage=spec.text_shrinkage,
    )
    image_head.set_linear(maps.image_ED)
    text_ET = maps.text_ET
    if isinstance(image_head, PrototypeHead):
        if not learns_classes:
            raise VlkitError("a prototype head learns from the objective class_prototypes; add it to the objectives")
        classes = KnownClasses(model)
        class_KV = class_embeddings(classes.rows.weight_KD, dim=image_head.class_KV.shape[1])
        image_head.set_classes(classes.rows, class_KV)
        names_ET = ridge_map(
            text_head.centered(classes.mean_features(frozen.encode("text", classes.names, language="en"))),
            class_KV,
            ridge=spec.ridge,
            spread_TT=translation_spread(text_head.centered(text_NLT)),
            spread_penalty=spec.translation_penalty,
        )
        text_ET = torch.cat([text_ET, names_ET])
    text_head.set_linear(text_ET)
    log.info("warm start: %d pairs in up to %d languages, %d dimensions", len(image_ND), text_NLT.shape[1], pairs_dim)


class KnownClasses:
    """The image encoder's class prototypes ``rows`` with the N English ``names`` of all classes in one list.

    ``first_K`` is the number of each class's first name, ``counts_K`` how many it has; they stand behind each other.

    Raises:
        VlkitError: The image encoder has no ImageNet classifier.
    """

    def __init__(self, model: DualEncoder) -> None:
        rows = model.image.class_rows() if isinstance(model.image, KnowsClasses) else None
        if rows is None:
            raise VlkitError(
                "the class_prototypes objective needs an image encoder with an ImageNet-1k classifier (timm, "
                "pretrained: true); choose one, or leave the objective out"
            )
        self.rows: ClassRows = rows
        self.names = tuple(name for names in self.rows.names for name in names)
        counts = [len(names) for names in self.rows.names]
        self.first_K = torch.tensor([0, *counts]).cumsum(0)[:-1]
        self.counts_K = torch.tensor(counts)

    def mean_features(self, features_NT: Tensor) -> Tensor:
        """The mean of the features of each class's names, features_KT."""
        owner_N = torch.repeat_interleave(torch.arange(len(self.counts_K)), self.counts_K)
        sums_KT = torch.zeros(len(self.counts_K), features_NT.shape[1])
        return sums_KT.index_add_(0, owner_N, features_NT.float()) / self.counts_K[:, None]


def _pairs(frozen: FrozenTables, *, images: ImageRows, texts: TextRows) -> tuple[Tensor, Tensor]:
    """Every readable image with one caption in each language; a missing language repeats another of the image's."""
    image_rows, text_rows = [], []
    for index in range(len(frozen.samples)):
        captions = frozen.samples[index].captions
        present = [language for language in frozen.languages if language in captions]
        if present and index not in images.bad:
            cycle = [
                lang if lang in captions else present[place % len(present)]
                for place, lang in enumerate(frozen.languages)
            ]
            text_rows.append(texts.look_up([captions[language][0] for language in cycle], cycle))
            image_rows.append(index)
    views = images.all_rows()[image_rows]
    return views.flatten(0, 1), torch.stack(text_rows).repeat_interleave(views.shape[1], dim=0)
