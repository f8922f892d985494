"""How well an image tokenizer gives images back, and how much of its codebook it uses: what a generator cannot exceed.

N images, M codes of an image, K codes that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vlkit.data.sources.combine import Subset
from vlkit.data.sources.open import open_source
from vlkit.distributed.collectives import shared_errors
from vlkit.errors import DataError, UnknownName
from vlkit.evaluation.abilities import GIVES_BACK, Ability
from vlkit.evaluation.embed.encode import evaluating
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.image_likeness import psnr, ssim
from vlkit.evaluation.metrics.intervals import percentiles, resampled_sums
from vlkit.evaluation.results.measures import Measure, Measures
from vlkit.evaluation.results.written import WrittenAnswer
from vlkit.evaluation.tasks.task import PlainTask, Scored, choose_languages
from vlkit.files import digest
from vlkit.spec.evaluation import ReconstructionSpec
from vlkit.types import GivesImagesBack, Sample

MEASURES = Measures(
    kind="reconstruction",
    headline="ssim",
    metrics={
        "psnr": Measure("PSNR in dB", "PSNR", low="psnr_low", high="psnr_high", share=False),
        "ssim": Measure("SSIM", "SSIM", low="ssim_low", high="ssim_high"),
        "codes_used": Measure("codes in use", "used"),
        "perplexity": Measure("perplexity of codes", "perplexity", share=False),
        "code_bits": Measure("bits of a code", share=False),
        "stable": Measure("codes that come again", "stable"),
        "pooled_psnr": Measure(share=False),
    },
    alike={"n_images": "images"},
    table="reconstruction",
    explained="PSNR and SSIM are means over images, of pixels in 0..1 at the tokenizer's own size; 95 % intervals take "
    "images of one concept together. Perplexity is 2 to the entropy of all codes in bits. Codes that come again: of "
    "images that were decoded, encoded once more. No language has a part in it; the row stands under that of the "
    "captions.",
)


@dataclass(frozen=True)
class ReconstructionTask(PlainTask):
    """Images (``samples``) through a tokenizer and back; scored once, under one of the languages of their captions."""

    measures: ClassVar[Measures] = MEASURES
    needs: ClassVar[Ability] = GIVES_BACK  # type: ignore[misc]

    name: str
    samples: Sequence[Sample]

    def __post_init__(self) -> None:
        if not self.samples:
            raise DataError(f"task {self.name!r} has no images")

    @property
    def digest(self) -> str:
        """Hex digest of the images' keys, for provenance."""
        return digest([self.name, [(sample.key, sample.concept) for sample in self.samples]])

    def choose(self, languages: Iterable[str] | None) -> tuple[str, ...]:
        """The first of the languages that were asked for, or English, or the first that there is: it is one row."""
        had = tuple(dict.fromkeys(tag for sample in self.samples for tag in sample.captions)) or ("en",)
        chosen = choose_languages(languages, had, of=f"task {self.name}")
        return chosen[:1] if languages is not None or "en" not in chosen else ("en",)

    def score(
        self, model: GivesImagesBack, languages: Sequence[str], *, seed: int = 0, encoding: Encoding | None = None
    ) -> Iterator[Scored]:
        """One row; all of it as detail: PSNR and SSIM of each image, and its codes [N, M]."""
        encoding = Encoding() if encoding is None else encoding
        psnr_N, ssim_N, codes_NM, stable_N = _reconstructed(model, self.samples, encoding)
        concepts = {one: number for number, one in enumerate(dict.fromkeys(s.concept or s.key for s in self.samples))}
        concept_N = [concepts[sample.concept or sample.key] for sample in self.samples]
        columns_N3 = np.stack([psnr_N.numpy(), ssim_N.numpy(), np.ones(len(psnr_N))], axis=1)
        sums_R3 = resampled_sums(columns_N3, concept_N, seed=seed)
        intervals = [percentiles(sums_R3[:, column] / sums_R3[:, 2]) for column in (0, 1)]
        bits, used = code_use(codes_NM, codebook_size=model.codebook_size)
        values = {
            "n_images": len(self.samples),
            "psnr": psnr_N.mean().item(),
            "psnr_low": intervals[0].low,
            "psnr_high": intervals[0].high,
            "pooled_psnr": -10 * math.log10((10 ** (-psnr_N / 10)).mean().item()),
            "ssim": ssim_N.mean().item(),
            "ssim_low": intervals[1].low,
            "ssim_high": intervals[1].high,
            "codes_used": used,
            "perplexity": 2**bits,
            "code_bits": bits,
            "stable": stable_N.mean().item(),
            "codebook_size": model.codebook_size,
            "codes_per_image": codes_NM.shape[1],
        }
        written = [
            WrittenAnswer(row, sample.key, concept, (), f"{noise:.1f} dB", {"ssim": max(0.0, alike)})
            for row, (sample, concept, noise, alike) in enumerate(
                zip(self.samples, concept_N, psnr_N.tolist(), ssim_N.tolist(), strict=True)
            )
        ]
        for tag in languages:
            yield Scored(tag, values, written=written, detail=(psnr_N, ssim_N, codes_NM))


def code_use(codes_NM: Tensor, *, codebook_size: int) -> tuple[float, float]:
    """The entropy of all codes in bits, and the share of the codebook that occurs."""
    counts_K = torch.bincount(codes_NM.flatten(), minlength=codebook_size).double()
    shares = counts_K[counts_K > 0] / counts_K.sum()
    return -(shares * shares.log2()).sum().item(), len(shares) / codebook_size


def _reconstructed(
    model: GivesImagesBack, samples: Sequence[Sample], encoding: Encoding
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """psnr_N, ssim_N, codes_NM and the share of each image's codes that come again; the same in all processes."""
    ranks, size = encoding.ranks, encoding.batch_size
    starts, own = range(0, len(samples), size), dict[int, tuple[Tensor, ...]]()
    with shared_errors(ranks), evaluating(model), torch.no_grad():
        for start in starts[ranks.rank :: ranks.size]:
            pixels_BCHW = torch.stack([model.transform(one.image()) for one in samples[start : start + size]])
            codes_BM = model.encode(pixels_BCHW)
            back_BCHW = model.decode(codes_BM).cpu()
            low = float(model.pixel_low)
            true_BCHW = (pixels_BCHW - low) / (1 - low)
            again_BM = model.encode(back_BCHW * (1 - low) + low)
            stable_B = (again_BM == codes_BM).double().mean(dim=1)
            own[start] = (psnr(back_BCHW, true_BCHW), ssim(back_BCHW, true_BCHW), codes_BM.cpu(), stable_B.cpu())
    found = {start: rows for part in ranks.gather_objects(own) for start, rows in part.items()}
    parts = [torch.cat([found[start][column] for start in starts]) for column in range(4)]
    return parts[0], parts[1], parts[2], parts[3]


def open_reconstruction(task: ReconstructionSpec, languages: Iterable[str] | None) -> list[ReconstructionTask]:
    """Finds the images of a task of a suite; reads none.

    Raises:
        DataError: Files that are missing or wrong.
        UnknownName: No such split.
    """
    source = open_source(task.source)
    if task.split is not None:
        metas = [source.meta(index) for index in range(len(source))]
        if task.split not in (splits := {meta.split for meta in metas}):
            raise UnknownName(f"split in the data of task {task.name}", task.split, allowed=splits)
        source = Subset(source, [index for index, meta in enumerate(metas) if meta.split == task.split])
    samples = [source[index] for index in range(len(source))]
    return [ReconstructionTask(task.name, [sample for sample in samples if sample.images])]
