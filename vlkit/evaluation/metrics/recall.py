"""Retrieval between images and texts, both ways, exact and in bounded memory.

N images, M texts, E embedding width, C images and T texts of one tile, Q queries of one direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError

KS = (1, 5, 10)
# Products of float32 numbers are exact in float64 and their sums good to 1e-15, whatever the shape of the tile: cosines
# that agree to this are one and the same.
_EQUAL = 1e-12


@dataclass(frozen=True)
class Direction:
    """Queries of one kind against all candidates of the other.

    Attributes:
        queries: Indices of the Q images or texts that were asked about, ascending.
        rank_Q: Rank of the best right answer of each, from 1.
        tied_Q: How many wrong answers score exactly as the best right one does.
        recall: For each k, the share of queries with a right answer among the best k, in 0..1.
    """

    queries: Tensor
    rank_Q: Tensor
    tied_Q: Tensor
    recall: Mapping[int, float]

    @property
    def median_rank(self) -> float:
        """Median rank of the best right answer; with an even number of queries, the mean of the middle two."""
        return float(np.median(self.rank_Q.numpy()))

    @property
    def mean_reciprocal_rank(self) -> float:
        """Mean of 1 / rank, in 0..1."""
        return self.rank_Q.double().reciprocal().mean().item()

    @property
    def n_tied(self) -> int:
        """Queries with a wrong answer that scores exactly as the best right one does."""
        return int((self.tied_Q > 0).sum())


@dataclass(frozen=True)
class Retrieval:
    """Both directions over one gallery."""

    text_to_image: Direction
    image_to_text: Direction
    n_images: int
    n_texts: int

    @property
    def mean_recall(self) -> float:
        """Mean of the recalls of both directions (of six, for k = 1, 5, 10)."""
        values = [*self.text_to_image.recall.values(), *self.image_to_text.recall.values()]
        return sum(values) / len(values)

    def metrics(self) -> dict[str, float]:
        """The recalls under the names CLIP_benchmark gives them, and their mean."""
        named = {f"image_retrieval_recall@{k}": share for k, share in self.text_to_image.recall.items()}
        named |= {f"text_retrieval_recall@{k}": share for k, share in self.image_to_text.recall.items()}
        return named | {"mean_recall": self.mean_recall}


def retrieval(
    image_NE: Tensor,
    text_ME: Tensor,
    *,
    image_of_text_M: Tensor | Sequence[int],
    ks: Sequence[int] = KS,
    chunk: int = 1024,
    ranks: Ranks | None = None,
) -> Retrieval:
    """Recall at k of text to image and of image to text, by cosine.

    A text has one right image. An image may have several texts, any of which is right; the best of them counts. Images
    without a text are candidates but no queries. Equal scores stand in the order of their indices, lower first. Scores
    are computed in float64 in tiles of ``chunk`` x ``chunk``, so that results depend neither on ``chunk`` nor on how
    many processes share the work.

    Args:
        image_NE: Image embeddings of any norm, the same on every rank.
        text_ME: Text embeddings of any norm, the same on every rank.
        image_of_text_M: Index of the image of each text, 0..N-1.
        ks: Numbers of candidates to look at, each at least 1.
        chunk: Images and texts a tile; memory beyond the embeddings is about 20 bytes * chunk^2.
        ranks: Processes that share the images between them, each of which calls this and gets the whole result.

    Raises:
        VlkitError: Shapes that do not fit, an index out of range, no text, or an embedding that is not finite.
    """
    ranks = Ranks() if ranks is None else ranks
    owner_M = torch.as_tensor(image_of_text_M, dtype=torch.int64, device=image_NE.device)
    text_ME = text_ME.to(image_NE.device)
    _check(image_NE, text_ME, owner_M, ks=ks, chunk=chunk)
    right_M = torch.cat(
        [(_unit(text_ME[rows]) * _unit(image_NE[owner_M[rows]])).sum(1) for rows in _tiles(text_ME, chunk)]
    )
    ahead_M, tied_M, ahead_N, tied_N = _count(image_NE, text_ME, owner_M, right_M, chunk=chunk, ranks=ranks)
    asked_N = torch.zeros(len(image_NE), dtype=torch.bool, device=image_NE.device).index_fill_(0, owner_M, True)
    texts, images = torch.arange(len(text_ME)), asked_N.nonzero()[:, 0]
    return Retrieval(
        text_to_image=_direction(texts, ahead_M, tied_M, ks),
        image_to_text=_direction(images.cpu(), ahead_N[images], tied_N[images], ks),
        n_images=len(image_NE),
        n_texts=len(text_ME),
    )


def best_images(text_QE: Tensor, image_NE: Tensor, *, count: int) -> Tensor:
    """Rows [Q, count] of the images nearest to each text, best first; equal scores in the order of their indices.

    The scores are those of ``retrieval``; all N of a text are held at once.
    """
    order = []
    for text_E in text_QE.to(image_NE.device):
        score_N = torch.cat([_unit(image_NE[rows]) @ _unit(text_E[None])[0] for rows in _tiles(image_NE, 1024)])
        order.append(score_N.sort(descending=True, stable=True).indices[:count].cpu())
    return torch.stack(order)


def _count(
    image_NE: Tensor, text_ME: Tensor, owner_M: Tensor, right_M: Tensor, *, chunk: int, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each text and each image: how many wrong answers stand before the best right one, and how many equal it."""
    best_N, first_N = _best_right(owner_M, right_M, len(image_NE))
    text_counts_2M = torch.zeros(2, len(text_ME), dtype=torch.int64, device=image_NE.device)
    image_counts_2N = torch.zeros(2, len(image_NE), dtype=torch.int64, device=image_NE.device)
    for images_C in _tiles(image_NE, chunk)[ranks.rank :: ranks.size]:
        image_CE = _unit(image_NE[images_C])
        for texts_T in _tiles(text_ME, chunk):
            score_CT = image_CE @ _unit(text_ME[texts_T]).T
            wrong_CT = images_C[:, None] != owner_M[None, texts_T]
            before_CT = images_C[:, None] < owner_M[None, texts_T]
            text_counts_2M[:, texts_T] += _ahead(score_CT - right_M[None, texts_T], before_CT, wrong_CT).sum(1)
            before_CT = texts_T[None] < first_N[images_C, None]
            image_counts_2N[:, images_C] += _ahead(score_CT - best_N[images_C, None], before_CT, wrong_CT).sum(2)
    ranks.all_reduce(text_counts_2M)
    ranks.all_reduce(image_counts_2N)
    return text_counts_2M[0], text_counts_2M[1], image_counts_2N[0], image_counts_2N[1]


def _best_right(owner_M: Tensor, right_M: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Each image's best score with a text of its own (-infinity without one), and the first text that reaches it."""
    best_N = right_M.new_full((count,), -torch.inf).scatter_reduce_(0, owner_M, right_M, "amax")
    texts_M = torch.arange(len(right_M), device=right_M.device)
    reached_M = right_M >= best_N[owner_M] - _EQUAL
    first_N = torch.full((count,), len(right_M), device=right_M.device)
    first_N = first_N.scatter_reduce_(0, owner_M[reached_M], texts_M[reached_M], "amin")
    return best_N, first_N


def _ahead(gap_CT: Tensor, before_CT: Tensor, wrong_CT: Tensor) -> Tensor:
    """Two masks of wrong answers: those ahead of the right one, those equal to it."""
    equal_CT = (gap_CT.abs() <= _EQUAL) & wrong_CT
    return torch.stack([(gap_CT > _EQUAL) & wrong_CT | equal_CT & before_CT, equal_CT])


def _tiles(embedding_BE: Tensor, chunk: int) -> list[Tensor]:
    """The indices of all rows, ``chunk`` at a time."""
    count = len(embedding_BE)
    return [
        torch.arange(start, min(start + chunk, count), device=embedding_BE.device) for start in range(0, count, chunk)
    ]


def _unit(embedding_BE: Tensor) -> Tensor:
    return F.normalize(embedding_BE.double(), dim=1)


def _direction(queries: Tensor, ahead_Q: Tensor, tied_Q: Tensor, ks: Sequence[int]) -> Direction:
    rank_Q = ahead_Q.cpu() + 1
    recall = {k: (rank_Q <= k).double().mean().item() for k in sorted(set(ks))}
    return Direction(queries=queries, rank_Q=rank_Q, tied_Q=tied_Q.cpu(), recall=recall)


def _check(image_NE: Tensor, text_ME: Tensor, owner_M: Tensor, *, ks: Sequence[int], chunk: int) -> None:
    shapes = f"images {tuple(image_NE.shape)}, texts {tuple(text_ME.shape)}, image_of_text {tuple(owner_M.shape)}"
    if image_NE.ndim != 2 or text_ME.ndim != 2 or image_NE.shape[1] != text_ME.shape[1]:
        raise VlkitError(f"{shapes}: need image_NE and text_ME of one width")
    if owner_M.shape != text_ME.shape[:1] or not len(text_ME):
        raise VlkitError(f"{shapes}: need one image index for each text, and at least one text")
    outside = (owner_M < 0) | (owner_M >= len(image_NE))
    if outside.any():
        text = int(outside.nonzero()[0])
        raise VlkitError(f"image_of_text[{text}] = {int(owner_M[text])}: must be in 0..{len(image_NE) - 1}")
    if not ks or min(ks) < 1:
        raise VlkitError(f"ks = {list(ks)}: give at least one number, each at least 1")
    if chunk < 1:
        raise VlkitError(f"chunk = {chunk}: must be at least 1")
    for name, embedding_BE in (("image", image_NE), ("text", text_ME)):
        # the sum over a row is finite just where the row is, short of an overflow; no copy of the matrix is made
        broken = ~embedding_BE.sum(1, dtype=torch.float64).isfinite()
        if broken.any():
            raise VlkitError(
                f"the embedding of {name} {int(broken.nonzero()[0])} is not finite (NaN or infinite); "
                f"its encoder's weights are broken, or overflow in half precision"
            )
