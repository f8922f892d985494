"""Text side of prompts in many languages: how many texts go through the encoder, and whether the result is the same.

T texts, L length, K classes, D width of the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from PIL.Image import Image
from torch import Tensor, nn

from vlkit.bench.figures import Figures
from vlkit.bench.zeroshot_data import make_names, named_languages
from vlkit.data.names.template_files import read_templates, weighted
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.compare.reference import reference
from vlkit.evaluation.embed.texts import class_embeddings
from vlkit.languages import normalize
from vlkit.types import TextBatch, TextEncoder


def bench_prompts(
    templates: str | Path,
    *,
    encoder: str = "hf:intfloat/multilingual-e5-small",
    check: Sequence[str] = (),
    classes: int = 4,
) -> Figures:
    """Counts the texts of a template file over Babel-ImageNet's numbers of classes, and compares class embeddings.

    English is left out: its entry in such a file is no set of English templates but a translation. Embeddings of the
    names of ``classes`` countries are compared in the languages of ``check``, by default the three with the most
    repeated templates: the naive way encodes each class's name in each template; vlkit encodes equal texts of a
    language once, and counts them as often as they occur.

    Raises:
        DataError: The file is of another form, or none of its languages is in the table.
        UnknownName: No such language or encoder.
        MissingPackage: babel is not installed.
    """
    table = reference("babel_imagenet")
    found = read_templates(templates, skip=["en"])
    counts = {tag: table.classes_of(tag) for tag in found if tag in table.codes}
    if not counts:
        raise DataError(f"template file {templates}: none of its languages is in the table {table.name}")
    naive = sum(count * len(found[tag]) for tag, count in counts.items())
    rows = sum(count * len(weighted(found[tag])) for tag, count in counts.items())
    chosen = _chosen(found, named_languages(classes), check)
    names = make_names(chosen, classes=classes)
    apart, checked_naive, checked = compare_ways(encoder, {tag: found[tag] for tag in chosen}, names)
    return Figures(
        rows_ratio=rows / naive,
        naive_rows=naive,  # classes times templates, over all languages
        rows=rows,  # classes times distinct templates
        languages=len(counts),  # with templates in the file and a number of classes in the table
        embedding_difference=apart,
        checked=chosen,
        checked_naive_rows=checked_naive,
        checked_rows=checked,
        checked_classes=classes,
        encoder=encoder,
        counts_of=table.name,
    )


def _chosen(found: Mapping[str, Sequence[str]], named: Sequence[str], check: Sequence[str]) -> tuple[str, ...]:
    both = [tag for tag in found if tag in named]
    for tag in map(normalize, check):
        if tag not in both:
            raise UnknownName("language with templates and names of countries", tag, allowed=both)
    if check:
        return tuple(dict.fromkeys(map(normalize, check)))
    return tuple(sorted(both, key=lambda tag: (len(weighted(found[tag])) / len(found[tag]), tag))[:3])


def compare_ways(
    encoder: str, templates: Mapping[str, Sequence[str]], names: Mapping[str, Sequence[str]]
) -> tuple[float, int, int]:
    """The largest difference of a value of class embeddings made both ways, and the texts encoded: naive, vlkit's."""
    from vlkit.parts.encoders import text_encoder

    model = _TextsAlone(text_encoder(encoder))
    apart, rows, naive_rows = 0.0, 0, 0
    for tag, listed in templates.items():
        model.seen = 0
        ours_KD = class_embeddings(model, [(name,) for name in names[tag]], language=tag, templates=listed)
        rows, model.seen = rows + model.seen, 0
        naive_KD = _naive(model, names[tag], listed, language=tag)
        naive_rows += model.seen
        apart = max(apart, (ours_KD - naive_KD).abs().max().item())
    return apart, naive_rows, rows


@torch.inference_mode()
def _naive(model: _TextsAlone, names: Sequence[str], templates: Sequence[str], *, language: str) -> Tensor:
    """class_KD as defined: one class after the other, its name in every template (arXiv 2103.00020, section 3.1.4)."""
    classes = []
    for name in names:
        texts = [template.replace("{}", name, 1) for template in templates]
        text_TD = model.encode_text(model.tokenize(texts, language=language))
        classes.append(F.normalize(F.normalize(text_TD.float(), dim=1).mean(0), dim=0))
    return torch.stack(classes)


class _TextsAlone(nn.Module):
    """A text encoder as an image-text model that has no images; counts its texts."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen = 0

    def transform(self, image: Image) -> Tensor:
        raise NotImplementedError

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        found: TextBatch = self.encoder.tokenize(texts, language=language)
        return found

    def encode_text(self, tokens: TextBatch) -> Tensor:
        self.seen += len(tokens.ids_BL)
        found_TD: Tensor = self.encoder(tokens)
        return found_TD
