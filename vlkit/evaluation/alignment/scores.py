"""Alignment scores of two matrices of embeddings whose rows say the same thing.

N pairs, C rows of a block, D embedding width, K best cosines kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlkit.errors import VlkitError

Floats = npt.NDArray[np.float64]
CSLS_K = 10
RANKER_LAYERS = (5, 10, 15, 20, 25)
_BLOCK = 1024  # rows of cosines held at once: 1024 x 10,000 are 80 MB
# Products of float32 numbers are exact in float64 and their sums good to 1e-15: cosines that agree to this are equal.
_EQUAL = 1e-12


@dataclass(frozen=True)
class PairScores:
    """Scores of N pairs at one layer; all but the cosines are shares in 0..1.

    Attributes:
        n_excluded: Pairs left out because an embedding is not finite, or zero.
        mexa: Share of pairs that are each other's nearest neighbour, strictly: equal cosines lose.
        mexa_chance: What ``mexa`` would be on average if the pairs were shuffled; 1/n at most.
        cosine: Mean cosine of the pairs.
        centred_cosine: The same after the mean of each side, whose rows have length 1, was taken off.
        margin: ``cosine`` less the mean cosine of all rows that are no pair.
        p1_from_pivot: Share of pivot rows whose strictly nearest other row is their own; chance is 1/n.
        p1_to_pivot: The other way round.
        csls_from_pivot: As ``p1_from_pivot`` with cosines corrected for hubs; likewise ``csls_to_pivot``.
    """

    n: int
    n_excluded: int
    mexa: float
    mexa_chance: float
    cosine: float
    centred_cosine: float
    margin: float
    p1_from_pivot: float
    p1_to_pivot: float
    csls_from_pivot: float
    csls_to_pivot: float


def pair_scores(pivot_ND: npt.ArrayLike, other_ND: npt.ArrayLike, *, csls_k: int = CSLS_K) -> PairScores:
    """All scores of one layer; cosines are float64, a block of rows at a time.

    MEXA: Kargaran et al. 2025, arXiv 2410.05873. CSLS: Conneau et al. 2018, arXiv 1710.04087, equation 3.
    ``mexa_chance`` is exact: of all orders of the other side, a cell of the matrix of cosines is a pair in one of N, so
    the mean score is the number of cells that beat their row and their column, over N squared.

    Args:
        pivot_ND: Embeddings of the pivot's texts.
        other_ND: Embeddings of the same texts in another language, row by row; the same width.
        csls_k: Neighbours that CSLS takes the mean of; all where there are fewer.

    Raises:
        VlkitError: Matrices that do not fit, or fewer than two pairs that can be scored.
    """
    pivot_ND, other_ND, kept_N = _kept(pivot_ND, other_ND)
    if csls_k < 1:
        raise VlkitError(f"csls_k = {csls_k}: must be at least 1")
    unit_ND, unit_other_ND = _unit(pivot_ND), _unit(other_ND)
    count = len(unit_ND)
    rows, columns = _best(unit_ND, unit_other_ND, max(2, csls_k))
    pair_N: Floats = np.einsum("nd,nd->n", unit_ND, unit_other_ND)
    own_N = np.arange(count)
    right_N, right_back_N = rows.found(own_N), columns.found(own_N)
    density_N, density_other_N = (side.values_NK[:, :csls_k].mean(1) for side in (rows, columns))
    corrected, corrected_back = _best(
        unit_ND,
        unit_other_ND,
        2,
        lambda block_CN, start: 2 * block_CN - density_N[start : start + len(block_CN), None] - density_other_N,
    )
    total = float(unit_ND.sum(0) @ unit_other_ND.sum(0))
    return PairScores(
        n=count,
        n_excluded=int((~kept_N).sum()),
        mexa=float((right_N & right_back_N).mean()),
        mexa_chance=float((rows.clear & columns.clear[rows.place] & (columns.place[rows.place] == own_N)).sum())
        / count**2,
        cosine=float(pair_N.mean()),
        centred_cosine=_centred(unit_ND, unit_other_ND),
        margin=float(pair_N.mean()) - (total - float(pair_N.sum())) / (count * (count - 1)),
        p1_from_pivot=float(right_N.mean()),
        p1_to_pivot=float(right_back_N.mean()),
        csls_from_pivot=float(corrected.found(own_N).mean()),
        csls_to_pivot=float(corrected_back.found(own_N).mean()),
    )


def ranker_layers(depth: int) -> tuple[int, ...]:
    """The layers whose mean cosine is the score of Language Ranker (Li et al. 2025, arXiv 2404.11553), each once.

    They are 5, 10, 15, 20 and 25 for models of 28 to 32 layers, which the paper measured. For other depths, the same
    parts of 32: ``depth * 5 / 32`` and so on, rounded (halves up), at least layer 1; layer 0 is the token embedding.
    """
    if depth < 1:
        raise VlkitError(f"depth = {depth}: a model needs at least one layer")
    if 28 <= depth <= 32:
        return RANKER_LAYERS
    return tuple(dict.fromkeys(max(1, math.floor(depth * layer / 32 + 0.5)) for layer in RANKER_LAYERS))


@dataclass(frozen=True)
class _Best:
    """The best of N queries: ``values_NK`` descending, ``place`` of the best one."""

    values_NK: Floats
    place: npt.NDArray[np.int64]

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Where nothing else is as good."""
        return self.values_NK[:, 0] > self.values_NK[:, 1] + _EQUAL

    def found(self, own_N: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Where the best one is the query's own, and nothing else is as good."""
        found: npt.NDArray[np.bool_] = np.logical_and(self.clear, self.place == own_N)
        return found


def _best(
    one_ND: Floats, other_ND: Floats, k: int, change: Callable[[Floats, int], Floats] | None = None
) -> tuple[_Best, _Best]:
    """The best k cosines of each row, and of each column; ``change`` is made to each block, from row ``start`` on."""
    k = min(k, len(other_ND))
    rows: list[_Best] = []
    columns = _Best(np.empty((len(other_ND), 0)), np.zeros(len(other_ND), np.int64))
    for start in range(0, len(one_ND), _BLOCK):
        block_CN = one_ND[start : start + _BLOCK] @ other_ND.T
        block_CN = block_CN if change is None else change(block_CN, start)
        rows.append(_Best(_top(block_CN, k), block_CN.argmax(1)))
        better_N = np.ones(len(other_ND), bool) if start == 0 else block_CN.max(0) > columns.values_NK[:, 0]
        columns = _Best(
            _top(np.concatenate([columns.values_NK, block_CN.T], axis=1), k),
            np.where(better_N, start + block_CN.argmax(0), columns.place),
        )
    found = _Best(np.concatenate([part.values_NK for part in rows]), np.concatenate([part.place for part in rows]))
    return found, columns


def _top(values_CN: Floats, k: int) -> Floats:
    """The k largest of each row, descending."""
    top_CK = np.partition(values_CN, -min(k, values_CN.shape[1]), axis=1)[:, -k:]
    return np.sort(top_CK, axis=1)[:, ::-1]


def _kept(one_ND: npt.ArrayLike, other_ND: npt.ArrayLike) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    one, other = np.asarray(one_ND, dtype=np.float64), np.asarray(other_ND, dtype=np.float64)
    if one.ndim != 2 or one.shape != other.shape:
        raise VlkitError(f"embeddings of shapes {one.shape} and {other.shape}: need two equal shapes [pairs, width]")
    there_N4 = [np.isfinite(one).all(1), np.isfinite(other).all(1), one.any(1), other.any(1)]
    kept_N: npt.NDArray[np.bool_] = np.all(there_N4, axis=0)
    if kept_N.sum() < 2:
        raise VlkitError(f"{int(kept_N.sum())} of {len(kept_N)} pairs have embeddings; need at least two")
    return one[kept_N], other[kept_N], kept_N


def _unit(values_ND: Floats) -> Floats:
    unit_ND: Floats = values_ND / np.linalg.norm(values_ND, axis=1, keepdims=True)
    return unit_ND


def _centred(one_ND: Floats, other_ND: Floats) -> float:
    """Of rows of length 1; NaN where nothing is left of a side.

    Lengths go first: in language models, texts of a single token have states a hundred times larger than all others. A
    mean over raw rows is theirs, and once it is taken off, all other rows point the same way: away from it.
    """
    one_ND, other_ND = one_ND - one_ND.mean(0), other_ND - other_ND.mean(0)
    sizes_N = np.linalg.norm(one_ND, axis=1) * np.linalg.norm(other_ND, axis=1)
    there_N = sizes_N > 0
    if not there_N.any():
        return math.nan
    return float((np.einsum("nd,nd->n", one_ND, other_ND)[there_N] / sizes_N[there_N]).mean())
