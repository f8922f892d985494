"""The sampler of image codes: in each step all unknown codes are drawn, and the surest of them are kept.

Sources: MaskGIT (arXiv 2202.04200, section 3.2); Show-o (2408.12528) and NeoBabel (2507.06137) as their code has it.
Deliberate differences from the latter two: exactly as many codes are kept as the schedule says, also where confidences
are equal; a known code's confidence is infinite, so that no noise hides it again; counts start from the codes that were
unknown, not from all of the image; confidences are float32 whatever the model computes in; and noise is counted
(``code_noise``), so that an image depends on its seed, not on its row, its batch or its language.

``spec`` is read like any settings; nothing here knows where it comes from.

Shapes: B images, N codes of an image, K codebook size (code K stands for an unknown one), R places that are unknown, T
steps of an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.code_masks import commit_counts, first_of
from vlkit.nn.code_noise import CODES, CONFIDENCE, code_gumbel, gumbel, place_keys

if TYPE_CHECKING:
    from vlkit.spec.text_to_image import SamplingSpec

_SLICE = 2**24  # logits that are looked at at a time: noise and sorting need some ten times their memory
_CPU_SLICE = 2**18  # as many as a core's cache holds


class CodeLogits(Protocol):
    """What the sampler asks of a model: ``logits_of(codes_BN, step, null=...)``.

    ``codes_BN`` are int64 in 0..K, K where a code is unknown. It gives the logits [B, N, K] that the prompts call for,
    and, where ``null`` is true, those without the prompts (or with negative prompts) beside them, else None: both come
    from one call, so that a model can run them as one batch. Logits at known places are not looked at.
    """

    def __call__(self, codes_BN: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
        """Logits of the prompts, and of the null branch where that is asked for."""


class SampledStep(NamedTuple):
    """Where the sampler stands after a step (from 0) of ``steps``.

    ``codes_BN`` are the codes kept so far, K where still unknown; ``drawn_BN`` has those that were drawn at all the
    other places too: a whole image for a preview. After the last step the two are equal.
    """

    step: int
    steps: int
    codes_BN: Tensor
    drawn_BN: Tensor


def sample(
    logits_of: CodeLogits,
    *,
    spec: SamplingSpec,
    seeds: Sequence[int],
    num_codes: int,
    codebook_size: int,
    known: Tensor | None = None,
    window: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """The codes of one image a seed, int64 [B, N]; see ``sampling_steps`` for arguments and errors."""
    codes_BN = started(known, seeds, num_codes=num_codes, codebook_size=codebook_size, device=device)
    for done in sampling_steps(
        logits_of,
        spec=spec,
        seeds=seeds,
        num_codes=num_codes,
        codebook_size=codebook_size,
        known=codes_BN,
        window=window,
    ):
        codes_BN = done.codes_BN
    return codes_BN


@torch.no_grad()
def sampling_steps(
    logits_of: CodeLogits,
    *,
    spec: SamplingSpec,
    seeds: Sequence[int],
    num_codes: int,
    codebook_size: int,
    known: Tensor | None = None,
    window: int = 0,
    device: torch.device | str | None = None,
) -> Iterator[SampledStep]:
    """The sampler step by step; no step where nothing is unknown.

    Images with fewer unknown codes than ``spec.steps`` are ready sooner than the others of a batch: each has the steps
    that it would have alone.

    Args:
        logits_of: The model with its prompts, one a seed.
        spec: Steps, schedule, temperatures, guidance; ``spec.seed`` is not looked at.
        seeds: One an image, 0 to 2^63 - 1. The same seed meets the same noise in every batch and language.
        num_codes: N.
        codebook_size: K.
        known: Codes that stay as they are, int [B, N] in 0..K; K where one is to be found. None: all are to be found.
        window: Number of a piece, for images that are made piece by piece with one seed.
        device: Where codes and noise are made; None takes that of ``known``, or the CPU.

    Raises:
        ShapeError: Seeds, known codes and logits of different sizes.
        VlkitError: Seeds or codes out of range, a null branch that is missing, or logits that are no numbers.
    """
    codes_BN = started(known, seeds, num_codes=num_codes, codebook_size=codebook_size, device=device)
    seeds_B = torch.tensor(list(seeds), dtype=torch.int64, device=codes_BN.device)
    plan = _Plan([int(unknown) for unknown in (codes_BN == codebook_size).sum(dim=1).tolist()], spec)
    for step in range(plan.steps):
        null = any(scale != 1.0 for scale in plan.scales(step))
        logits = _asked(logits_of, codes_BN, step, null=null, codebook_size=codebook_size)
        keys = [
            place_keys(seeds_B, stream=stream, window=window, step=step, num_codes=num_codes)
            for stream in (CODES, CONFIDENCE)
        ]
        drawn_BN, confidence_BN = _drawn(codes_BN, logits, keys, plan=plan, step=step)
        if bool(confidence_BN.isnan().any()):
            raise VlkitError(
                f"the logits of step {step} are no numbers (NaN); run the model in float32 or bfloat16 instead of "
                f"float16, and see that its weights are sound"
            )
        keep_B = torch.tensor(plan.kept(step, num_codes), device=codes_BN.device)
        codes_BN = torch.where(first_of(-confidence_BN, keep_B), drawn_BN, codebook_size)
        yield SampledStep(step, plan.steps, codes_BN, drawn_BN)


def _drawn(
    codes_BN: Tensor, logits: tuple[Tensor, Tensor | None], keys: Sequence[Tensor], *, plan: _Plan, step: int
) -> tuple[Tensor, Tensor]:
    """Codes, drawn where they are unknown, and how sure each of them is: noise is added, known ones are infinitely."""
    (logits_BNK, null_BNK), (codes_keys, noise_keys), device = logits, (key.flatten() for key in keys), codes_BN.device
    codebook_size, num_codes = logits_BNK.shape[2], codes_BN.shape[1]
    noise_B, scale_B = (torch.tensor(values, device=device) for values in (plan.noise(step), plan.scales(step)))
    drawn_BN, confidence_BN = codes_BN.clone(), torch.full(codes_BN.shape, math.inf, device=device)
    most = _CPU_SLICE if device.type == "cpu" else _SLICE
    places = (codes_BN == codebook_size).flatten().nonzero().squeeze(1)
    for place_R in torch.split(places, max(1, most // codebook_size)):
        row_R = place_R // num_codes
        null_RK = None if null_BNK is None else null_BNK.flatten(0, 1)[place_R]
        logits_RK = guided(logits_BNK.flatten(0, 1)[place_R], null_RK, scale_B[row_R])
        codes_R, sure_R = draw_codes(logits_RK, codes_keys[place_R], spec=plan.spec)
        drawn_BN.view(-1)[place_R] = codes_R
        confidence_BN.view(-1)[place_R] = sure_R + noise_B[row_R] * gumbel(noise_keys[place_R])
    return drawn_BN, confidence_BN


class _Plan:
    """What each image does in each step, of those with the same number of unknown codes once."""

    def __init__(self, unknown_B: list[int], spec: SamplingSpec) -> None:
        self.spec, self._unknown_B = spec, unknown_B
        self._counts = {
            unknown: commit_counts(unknown, spec.steps, schedule=spec.schedule, power=spec.power)
            for unknown in set(unknown_B)
        }
        self._noise = {unknown: noise_scales(len(counts), spec=spec) for unknown, counts in self._counts.items()}
        self._scales = {unknown: guidance_scales(len(counts), spec=spec) for unknown, counts in self._counts.items()}
        self.steps = max((len(counts) for counts in self._counts.values()), default=0)

    def kept(self, step: int, num_codes: int) -> list[int]:
        """Known codes of each image after a step."""
        return [num_codes - sum(self._counts[unknown][step + 1 :]) for unknown in self._unknown_B]

    def noise(self, step: int) -> list[float]:
        """The factor of the noise on confidences, of each image; 0 for those that are ready."""
        return [self._noise[unknown][step] if self._busy(unknown, step) else 0.0 for unknown in self._unknown_B]

    def scales(self, step: int) -> list[float]:
        """The guidance scale of each image; 1 for those that are ready."""
        return [self._scales[unknown][step] if self._busy(unknown, step) else 1.0 for unknown in self._unknown_B]

    def _busy(self, unknown: int, step: int) -> bool:
        return step < len(self._counts[unknown])


def noise_scales(steps: int, *, spec: SamplingSpec) -> list[float]:
    """The factor of the Gumbel noise on confidences in each step; see ``SamplingSpec.confidence``."""
    left = [1 - (step + 1) / steps for step in range(steps)]
    if spec.confidence == "linear":
        return [spec.noise * share for share in left]
    if spec.confidence == "compounding":
        return [spec.noise * math.prod(left[: step + 1]) for step in range(steps)]
    return [spec.noise * (1 - step / max(steps - 1, 1)) for step in range(steps)]


def guidance_scales(steps: int, *, spec: SamplingSpec) -> list[float]:
    """The guidance scale in each step, as diffusers has it: 1 is none; see ``SamplingSpec.guidance_schedule``."""
    return [1 + (spec.guidance_scale - 1) * _guidance_share(step, steps, spec) for step in range(steps)]


def _guidance_share(step: int, steps: int, spec: SamplingSpec) -> float:
    if spec.guidance_schedule == "linear":
        return step / (steps - 1) if steps > 1 else 1.0
    if spec.guidance_schedule == "cosine":
        return (1 - math.cos(math.pi * (step / steps) ** spec.guidance_power)) / 2
    if spec.guidance_schedule == "interval":
        first, last = spec.guidance_interval
        return float(first <= step / steps < last)
    return 1.0


def guided(logits_RK: Tensor, null_RK: Tensor | None, scale_R: Tensor) -> Tensor:
    """Logits moved away from those without the prompt, float32: null + g * (logits - null); exactly them where g = 1.

    A code that the prompt's logits rule out (-inf) stays ruled out.
    """
    logits_RK = logits_RK.float()
    if null_RK is None:
        return logits_RK
    null_RK, scale_R1 = null_RK.float(), scale_R.unsqueeze(1)
    moved_RK = null_RK + scale_R1 * (logits_RK - null_RK)
    return torch.where((scale_R1 == 1) | logits_RK.isneginf(), logits_RK, moved_RK)


def draw_codes(logits_RK: Tensor, keys_R: Tensor, *, spec: SamplingSpec) -> tuple[Tensor, Tensor]:
    """A code at each place, int64 [R], and the logarithm of its probability, float32 [R].

    Temperature, ``top_k`` and ``top_p`` (in this order, as transformers has them) decide what is drawn. The probability
    is that of the logits as they are: with a low temperature all that is drawn would look sure.
    """
    if spec.temperature == 0:
        codes_R = logits_RK.argmax(dim=1)
    else:
        chosen_RK = _nucleus(_likeliest(logits_RK / spec.temperature, spec.top_k), spec.top_p)
        codes_R = (chosen_RK + code_gumbel(keys_R, logits_RK.shape[1])).argmax(dim=1)
    return codes_R, logits_RK.log_softmax(dim=1).gather(1, codes_R.unsqueeze(1)).squeeze(1)


def _likeliest(logits_RK: Tensor, top_k: int | None) -> Tensor:
    """Logits, -inf but for exactly the ``top_k`` largest."""
    if top_k is None or top_k >= logits_RK.shape[1]:
        return logits_RK
    best = logits_RK.topk(top_k, dim=1)
    return torch.full_like(logits_RK, -math.inf).scatter(1, best.indices, best.values)


def _nucleus(logits_RK: Tensor, top_p: float) -> Tensor:
    """Logits, -inf but for the fewest largest that have ``top_p`` of the probability; the largest always stays."""
    if top_p == 1:
        return logits_RK
    sorted_RK, order_RK = logits_RK.sort(dim=1, descending=True, stable=True)
    shares_RK = sorted_RK.softmax(dim=1)
    before_RK = shares_RK.cumsum(dim=1) - shares_RK
    return torch.empty_like(logits_RK).scatter(1, order_RK, sorted_RK.masked_fill(before_RK >= top_p, -math.inf))


def _asked(
    logits_of: CodeLogits, codes_BN: Tensor, step: int, *, null: bool, codebook_size: int
) -> tuple[Tensor, Tensor | None]:
    """The model's logits, of the form they have to have."""
    logits_BNK, null_BNK = logits_of(codes_BN, step, null=null)
    if null and null_BNK is None:
        raise VlkitError(
            f"step {step} is guided and asked the model for logits without the prompts, and it gave none; give them "
            f"where null is true, or sample with guidance: 1"
        )
    wanted = (*codes_BN.shape, codebook_size)
    for name, given in (("logits", logits_BNK), ("logits without the prompts", null_BNK if null else None)):
        if given is not None and given.shape != wanted:
            raise ShapeError(f"the {name} of step {step} are {list(given.shape)}, and {list(wanted)} are needed")
    return logits_BNK, null_BNK if null else None


def started(
    known: Tensor | None,
    seeds: Sequence[int],
    *,
    num_codes: int,
    codebook_size: int,
    device: torch.device | str | None,
) -> Tensor:
    """The codes to begin with, int64 [B, N]; a copy of the known ones. See ``sampling_steps``."""
    if num_codes < 1 or codebook_size < 1:
        raise ShapeError(f"num_codes = {num_codes} and codebook_size = {codebook_size} have to be 1 or more")
    if wrong := [seed for seed in seeds if not (isinstance(seed, Integral) and 0 <= seed < 2**63)]:
        raise VlkitError(f"seed {wrong[0]} is no whole number in 0..{2**63 - 1}")
    if known is None:
        return torch.full((len(seeds), num_codes), codebook_size, dtype=torch.int64, device=device)
    if known.shape != (len(seeds), num_codes):
        raise ShapeError(
            f"known codes are {list(known.shape)}, and {len(seeds)} seeds of {num_codes} codes need "
            f"{[len(seeds), num_codes]}; give one seed and one row of known codes an image"
        )
    return checked_codes(known, codebook_size, unknown=True).to(device=device or known.device, copy=True)


def checked_codes(codes_X: Tensor, codebook_size: int, *, unknown: bool) -> Tensor:
    """Codes as int64, seen to be in range; ``unknown`` allows K.

    Raises:
        VlkitError: Codes that are no whole numbers, or out of range.
    """
    last = codebook_size if unknown else codebook_size - 1
    if codes_X.is_floating_point() or codes_X.is_complex() or codes_X.dtype == torch.bool:
        raise VlkitError(f"codes are whole numbers, and these are {codes_X.dtype}")
    codes_X = codes_X.long()
    if codes_X.numel() and not 0 <= int(codes_X.min()) <= int(codes_X.max()) <= last:
        also = f" ({codebook_size} stands for an unknown one)" if unknown else ""
        raise VlkitError(f"codes go from {int(codes_X.min())} to {int(codes_X.max())}, and 0 to {last} are there{also}")
    return codes_X
