"""Any image-text model as mteb takes its encoders: text, images, or both at once, each text in its own language.

N inputs of one call, E embedding width.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from vlkit import languages as language_table
from vlkit.errors import DataError, MissingPackage, UnknownName, VlkitError
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.texts import embed_texts
from vlkit.models.digest import weights_digest
from vlkit.progress import bar
from vlkit.types import ImageTextModel

if TYPE_CHECKING:
    from PIL.Image import Image

_NOT_SAID = (
    "loader", "release_date", "max_tokens", "license", "open_weights", "public_training_code", "public_training_data",
    "training_datasets",
)  # fmt: skip


class MtebModel:
    """An image-text model with mteb's encoder protocol (``mteb.models.EncoderProtocol``, mteb 2).

    ``mteb.evaluate(MtebModel(model, "mine"), tasks)`` runs it. An input with text and image has the sum of both
    embeddings, as in mteb's own CLIP wrappers; those add embeddings before normalisation, which an ``ImageTextModel``
    does not give. All embeddings of one side are of length 1, so that figures that rest on cosines are the same as
    theirs, while those of classifiers and clusterings of embeddings differ.

    mteb gives the images of a task anew for each language. Their embeddings are kept by a digest of their pixels, so
    that each image is encoded once; the model must not change meanwhile.

    Args:
        model: Embeds one side of each pair.
        name: What mteb's result files call it, with ``vlkit/`` before it where it names no organisation.
        languages: BCP 47 tags or other codes of the languages it was made for, for the result files.
        keep_images: Embeddings of images kept in memory; 4 * E bytes each.

    Raises:
        MissingPackage: mteb is not installed.
        UnknownName: One of ``languages`` is none.
        VlkitError: ``keep_images`` is negative, or a language that mteb has no code for.
    """

    mteb_model_meta: Any
    """mteb's ``ModelMeta``; ``revision`` is the digest of the weights, None for a model that is no torch module."""

    def __init__(
        self,
        model: ImageTextModel,
        name: str = "model",
        *,
        languages: Iterable[str] | None = None,
        keep_images: int = 10_000,
    ) -> None:
        require_mteb()
        if keep_images < 0:
            raise VlkitError(f"keep_images = {keep_images}: must be at least 0")
        self.model, self.keep_images = model, keep_images
        self.mteb_model_meta = _meta(model, name, None if languages is None else list(languages))
        self._kept: dict[bytes, Tensor] = {}

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Embeddings_NE of all inputs, in their order, float32 on the CPU; queries and documents are embedded alike.

        Inputs are batches with lists under ``text``, ``image`` or both (mteb's data loader). The task's metadata say
        which language a subset is in. Of ``kwargs``, ``batch_size`` (of texts) and ``show_progress_bar`` count.

        Raises:
            DataError: Inputs with neither text nor image, or an image that is no PIL image.
            VlkitError: The tokenizer needs a language and the subset has none or several; an embedding that is not
                finite.
        """
        place = f"{task_metadata.name}, subset {hf_subset!r}"
        texts: list[str] = []
        blocks: list[Tensor] = []
        loader = getattr(inputs, "dataset", None)
        quiet = not kwargs.get("show_progress_bar", False)
        with bar(place, total=None if loader is None else len(loader), unit="inputs", quiet=quiet) as shown:
            for batch in inputs:
                if "image" not in batch and "text" not in batch:
                    raise DataError(f"{place}: inputs of {', '.join(batch)}; this model takes text and images alone")
                texts += batch.get("text", ())
                if "image" in batch:
                    blocks.append(self._images(batch["image"], place, done=sum(map(len, blocks))))
                shown.advance(len(batch["image"] if "image" in batch else batch["text"]))
        if blocks and not texts:
            return torch.cat(blocks)
        if blocks and len(texts) != (count := sum(map(len, blocks))):
            raise DataError(f"{place}: {len(texts)} texts beside {count} images; an input must have both")
        text_NE = self._texts(texts, task_metadata, hf_subset, batch_size=int(kwargs.get("batch_size", 32)))
        return torch.cat(blocks) + text_NE if blocks else text_NE

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine of each embedding with each, as mteb's own wrappers compute it."""
        from mteb.similarity_functions import cos_sim

        return cast("Tensor", cos_sim(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine of each embedding with that of the same place, as mteb's own wrappers compute it."""
        from mteb.similarity_functions import pairwise_cos_sim

        return cast("Tensor", pairwise_cos_sim(embeddings1, embeddings2))

    def _texts(self, texts: Sequence[str], task_metadata: Any, hf_subset: str, *, batch_size: int) -> Tensor:
        language = subset_language(task_metadata, hf_subset)
        try:
            return embed_texts(self.model, texts, language=language, encoding=Encoding(text_batch_size=batch_size))
        except VlkitError as error:
            if language is not None:
                raise
            said = ", ".join(task_metadata.hf_subsets_to_langscripts.get(hf_subset, ())) or "no language"
            raise VlkitError(
                f"{task_metadata.name}, subset {hf_subset!r} is of {said}: the one language of its texts is not known, "
                f"so the tokenizer was told none. {error}"
            ) from error

    def _images(self, images: Sequence[Image], place: str, *, done: int) -> Tensor:
        fresh: dict[bytes, tuple[str, Image]] = {}
        keys = []
        for number, image in enumerate(images, done + 1):
            if not hasattr(image, "convert"):
                raise DataError(f"{place}: image {number} is a {type(image).__name__}, not a PIL image")
            keys.append(key := _pixels_digest(image))
            if key not in self._kept:
                fresh.setdefault(key, (f"{number} of {place}", image))
        found = {key: self._kept[key] for key in keys if key in self._kept}
        if fresh:
            # plain conversion, as mteb's wrappers do it: transparency is dropped, not laid on white
            rgb, names = [image.convert("RGB") for _, image in fresh.values()], [name for name, _ in fresh.values()]
            block_NE = embed_images(self.model, rgb, names=names, encoding=Encoding(batch_size=len(rgb)))
            found |= dict(zip(fresh, block_NE, strict=True))
        self._kept |= found
        while len(self._kept) > self.keep_images:
            del self._kept[next(iter(self._kept))]
        return torch.stack([found[key] for key in keys])


def require_mteb() -> None:
    """Refuses to go on without mteb.

    Raises:
        MissingPackage: It is not installed.
    """
    if importlib.util.find_spec("mteb") is None:
        raise MissingPackage("mteb", purpose="evaluation with mteb", extra="mteb")


def subset_language(task_metadata: Any, hf_subset: str) -> str | None:
    """BCP 47 tag of the language that the texts of a task's subset are in; None where it cannot be known.

    A subset of several languages is taken to be in the one it is named after, if that is one of them: ``no`` of
    Crossmodal-3600, which mteb lists as Norwegian, Nynorsk and Bokmål. Pairs such as ``es-en`` are in no one language.
    """
    tags = subset_languages(task_metadata, hf_subset)
    return _tag(next(iter(tags))) if len(tags) == 1 else None


def subset_languages(task_metadata: Any, hf_subset: str) -> set[str]:
    """BCP 47 tags of the languages of a subset, or of the one alone that it is named after; unknown codes as they are.

    See ``subset_language``.
    """
    codes = task_metadata.hf_subsets_to_langscripts.get(hf_subset, ())
    tags = {_tag(code) or code for code in codes}
    named = None if re.search(r"[-_]", hf_subset) else _tag(hf_subset)
    return {named} if named is not None and named in tags else tags


def _tag(code: str) -> str | None:
    try:
        return language_table.normalize(code)
    except UnknownName:
        return None


def _pixels_digest(image: Image) -> bytes:
    content = hashlib.blake2b(repr((image.mode, image.size, image.getpalette())).encode(), digest_size=16)
    content.update(image.tobytes())
    return content.digest()


def _meta(model: ImageTextModel, name: str, languages: Sequence[str] | None) -> Any:
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    module = model if isinstance(model, nn.Module) else None
    parameters = [] if module is None else list(module.parameters())
    width = getattr(model, "embed_dim", None)
    not_said: dict[str, Any] = dict.fromkeys(_NOT_SAID)
    return ModelMeta(
        **not_said,
        name=name if "/" in name else f"vlkit/{name}",
        revision=None if module is None else weights_digest(module),
        languages=None if languages is None else [_mteb_code(code) for code in languages],
        n_parameters=sum(parameter.numel() for parameter in parameters) if parameters else None,
        memory_usage_mb=sum(parameter.nbytes for parameter in parameters) / 2**20 if parameters else None,
        embed_dim=width if isinstance(width, int) else None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        modalities=["image", "text"],
    )


def _mteb_code(code: str) -> str:
    """``deu-Latn`` for ``de``, as mteb writes languages."""
    from mteb.languages import check_language_code

    row = language_table.get(code)
    made = f"{row.iso639_3}-{row.script}"
    try:
        check_language_code(made)
    except ValueError as error:
        raise VlkitError(f"language {row.tag!r} ({row.name}): {error}; leave it out of languages") from error
    return made
