"""Retrieval equals a brute-force reference, and depends on nothing but the embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.evaluate_fakes import CountingModel, picture
from tests.helpers.ranks import on_ranks
from vlkit.distributed.collectives import Ranks
from vlkit.errors import DataError, UnknownName, VlkitError
from vlkit.evaluation.embed.encode import embed_images
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.embed.texts import embed_texts
from vlkit.evaluation.metrics.recall import Retrieval, retrieval
from vlkit.evaluation.tasks.retrieval_task import RetrievalTask, evaluate_retrieval
from vlkit.types import Sample


def _data(seed: int = 0, *, images: int = 37, texts: int = 90, grid: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Random embeddings; on a ``grid`` of -1, 0, 1 in three dimensions they are full of duplicates and ties."""
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(images), rng.integers(images, size=texts - images)])
    rng.shuffle(owner)
    if grid:
        image, text = rng.integers(-1, 2, size=(images, 3)), rng.integers(-1, 2, size=(texts, 3))
    else:
        image = rng.normal(size=(images, 8))
        text = image[owner] + 1.5 * rng.normal(size=(texts, 8))
    return torch.tensor(image).float(), torch.tensor(text).float(), torch.tensor(owner)


def _reference(image: Tensor, text: Tensor, owner: Tensor) -> tuple[list[int], list[int]]:
    """Sorts all candidates of each query by (score rounded to 1e-9, index) and looks for the first right one."""
    unit = [x.double().numpy() for x in (image, text)]
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in unit]
    score = np.round(unit[0] @ unit[1].T, 9) + 0.0
    by_text, by_image = [], []
    for m in range(len(text)):
        order = sorted(range(len(image)), key=lambda n: (-score[n, m], n))
        by_text.append(order.index(int(owner[m])) + 1)
    for n in range(len(image)):
        order = sorted(range(len(text)), key=lambda m: (-score[n, m], m))
        right = [place for place, m in enumerate(order, 1) if int(owner[m]) == n]
        if right:
            by_image.append(right[0])
    return by_text, by_image


def _ranks_of(result: Retrieval) -> tuple[list[int], list[int]]:
    return result.text_to_image.rank_Q.tolist(), result.image_to_text.rank_Q.tolist()


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 37, 1000])
def test_equals_brute_force_for_any_chunk(grid: bool, chunk: int) -> None:
    for seed in range(3):
        image, text, owner = _data(seed, grid=grid)
        result = retrieval(image, text, image_of_text_M=owner, chunk=chunk)
        by_text, by_image = _reference(image, text, owner)
        assert _ranks_of(result) == (by_text, by_image)
        for k in (1, 5, 10):
            assert result.text_to_image.recall[k] == np.mean(np.array(by_text) <= k)
            assert result.image_to_text.recall[k] == np.mean(np.array(by_image) <= k)


def _shared(seed: int, grid: bool, chunk: int) -> Any:
    image, text, owner = _data(seed, grid=grid)
    result = retrieval(image, text, image_of_text_M=owner, chunk=chunk, ranks=Ranks.world())
    tied = [d.tied_Q.tolist() for d in (result.text_to_image, result.image_to_text)]
    return _ranks_of(result), tied, result.metrics()


@pytest.mark.parametrize("size", [2, 4])
def test_one_process_or_several_give_the_same(size: int) -> None:
    for grid, chunk in ((False, 5), (True, 5), (True, 64)):  # the last leaves ranks without work
        alone = _shared(1, grid, 64)
        assert on_ranks(size, _shared, 1, grid, chunk) == [alone] * size


def test_of_equal_scores_the_lower_index_stands_first() -> None:
    same = torch.ones(4, 2)
    result = retrieval(same, same, image_of_text_M=[0, 1, 2, 3])
    assert _ranks_of(result) == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert result.text_to_image.tied_Q.tolist() == [3, 3, 3, 3] and result.text_to_image.n_tied == 4
    several = retrieval(same[:2], same, image_of_text_M=[1, 1, 0, 0])
    assert _ranks_of(several) == ([2, 2, 1, 1], [3, 1])  # image 0 is first answered by text 2
    assert several.image_to_text.tied_Q.tolist() == [2, 2]


def test_duplicates_are_equal_wherever_they_stand_in_a_tile() -> None:
    torch.manual_seed(3)
    vectors = torch.randn(11, 67)
    image, text = vectors.repeat(7, 1), vectors.repeat(7, 1) * torch.rand(77, 1).add(0.1)
    for chunk in (3, 8, 77):
        result = retrieval(image, text, image_of_text_M=torch.arange(77), chunk=chunk)
        assert result.text_to_image.rank_Q.tolist() == [copy + 1 for copy in range(7) for _ in range(11)]
        assert result.text_to_image.tied_Q.tolist() == result.image_to_text.tied_Q.tolist() == [6] * 77


def test_no_tile_is_larger_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import vlkit.evaluation.metrics.recall as module

    tiles, ahead = [], module._ahead
    monkeypatch.setattr(module, "_ahead", lambda gap, *masks: (tiles.append(gap.shape), ahead(gap, *masks))[1])
    image, text, owner = _data()
    retrieval(image, text, image_of_text_M=owner, chunk=8)
    assert max(max(shape) for shape in tiles) == 8
    assert sum(shape.numel() for shape in tiles) == 2 * 37 * 90  # and each pair is looked at once a direction


def test_one_caption_an_image_is_the_same_task_from_either_side() -> None:
    image, text, _ = _data(images=30, texts=30)
    owner = torch.randperm(30)
    back = torch.empty_like(owner).index_put_((owner,), torch.arange(30))
    there, other = (
        retrieval(image, text, image_of_text_M=owner),
        retrieval(text, image, image_of_text_M=back),
    )
    assert torch.equal(there.text_to_image.rank_Q, other.image_to_text.rank_Q)
    assert torch.equal(there.image_to_text.rank_Q, other.text_to_image.rank_Q)
    assert there.mean_recall == pytest.approx(other.mean_recall, abs=1e-15)


def test_any_caption_of_an_image_is_right_and_more_captions_never_hurt() -> None:
    image, text, owner = _data(4)
    first = [owner.tolist().index(n) for n in range(len(image))]
    others = [m for m in range(len(text)) if m not in first]
    everything = retrieval(image, text, image_of_text_M=owner)
    # with the other captions there but belonging to no image, the first caption alone must be found
    padded = torch.cat([image, torch.zeros(1, 8)])
    lonely = owner.clone().index_fill_(0, torch.tensor(others), len(image))
    alone = retrieval(padded, text, image_of_text_M=lonely)
    assert (everything.image_to_text.rank_Q <= alone.image_to_text.rank_Q[:-1]).all()
    assert (everything.image_to_text.rank_Q < alone.image_to_text.rank_Q[:-1]).any()


def test_images_without_a_text_are_candidates_but_no_queries() -> None:
    image, text, owner = _data(images=20, texts=40)
    more = torch.cat([text.mean(0, keepdim=True) * 3, image])  # a lonely image, in front
    with_lonely, without = (
        retrieval(more, text, image_of_text_M=owner + 1),
        retrieval(image, text, image_of_text_M=owner),
    )
    assert with_lonely.image_to_text.queries.tolist() == list(range(1, 21))
    assert torch.equal(with_lonely.image_to_text.rank_Q, without.image_to_text.rank_Q)
    worse = with_lonely.text_to_image.rank_Q - without.text_to_image.rank_Q
    assert set(worse.tolist()) == {0, 1}


def test_norms_and_precision_of_the_input_do_not_matter() -> None:
    image, text, owner = _data(5)
    plain = retrieval(image, text, image_of_text_M=owner)
    scaled = retrieval(image * torch.rand(37, 1).add(0.1).double(), text.double() * 1e6, image_of_text_M=owner.tolist())
    assert _ranks_of(plain) == _ranks_of(scaled)
    half = retrieval(image.bfloat16(), text.bfloat16(), image_of_text_M=owner)
    assert _ranks_of(half) == _ranks_of(
        retrieval(image.bfloat16().float(), text.bfloat16().float(), image_of_text_M=owner)
    )


def test_close_but_different_scores_are_no_tie() -> None:
    image = torch.tensor([[1.0, 0.0], [1.0, 1e-4]])  # cosines differ by 5e-9, below what float32 can hold
    result = retrieval(image, image, image_of_text_M=[1, 0])
    assert _ranks_of(result) == ([2, 2], [2, 2])
    assert result.text_to_image.n_tied == 0


def test_figures_of_a_direction_and_their_names() -> None:
    image, text, owner = _data(6)
    result = retrieval(image, text, image_of_text_M=owner, ks=(10, 1, 5))
    ranks = result.text_to_image.rank_Q.double()
    assert result.text_to_image.median_rank == np.median(ranks)
    assert result.text_to_image.mean_reciprocal_rank == pytest.approx((1 / ranks).mean().item())
    named = result.metrics()
    assert list(named)[:3] == [f"image_retrieval_recall@{k}" for k in (1, 5, 10)]
    assert named["image_retrieval_recall@5"] == result.text_to_image.recall[5]
    assert named["text_retrieval_recall@1"] == result.image_to_text.recall[1]
    assert named.pop("mean_recall") == pytest.approx(sum(named.values()) / 6)
    assert (result.n_images, result.n_texts) == (37, 90)


def _captioned() -> RetrievalTask:
    """Twelve images with 1 to 3 German captions, six of them with one in Swahili."""
    samples = [
        Sample(
            key=f"key-{n}",
            image=lambda n=n: picture(n),
            captions={"de": tuple(f"Bild {n} {x}" for x in range(1 + n % 3)), "sw": (f"picha {n}",) * (n % 2)},
        )
        for n in range(12)
    ]
    return RetrievalTask("captioned", samples)


@pytest.mark.parametrize("gallery", ["language", "all"])
@pytest.mark.parametrize("captions", ["all", "first"])
def test_task_encodes_images_once_and_keeps_languages_apart(gallery: Any, captions: Any) -> None:
    task, model = replace(_captioned(), gallery=gallery, captions=captions), CountingModel()
    rows = {row.language: row for row in evaluate_retrieval(model, task, languages=["sw", "deu"])}
    assert list(rows) == ["sw", "de"] and model.images_seen == 12
    assert len(model.texts_seen) == len(set(model.texts_seen)) == {"all": 24 + 6, "first": 12 + 6}[captions]
    image = embed_images(CountingModel(), [sample.image() for sample in task.samples])
    texts = [f"picha {n}" for n in range(1, 12, 2)]
    text, odd = embed_texts(CountingModel(), texts, language="sw"), list(range(1, 12, 2))
    expected = (
        _reference(image[odd], text, torch.arange(6))
        if gallery == "language"
        else _reference(image, text, torch.tensor(odd))
    )
    assert _ranks_of(rows["sw"].result) == expected
    assert rows["sw"].result.n_images == {"language": 6, "all": 12}[gallery]
    plain = rows["de"].plain()
    assert (plain["captions"], plain["n_texts"]) == (captions, {"all": 24, "first": 12}[captions])
    assert plain["image_retrieval_ci_low"] <= plain["image_retrieval_recall@1"] <= plain["image_retrieval_ci_high"]


def _task_rows() -> Any:
    return [
        row.plain()
        for row in evaluate_retrieval(
            CountingModel(), _captioned(), encoding=Encoding(batch_size=5, ranks=Ranks.world())
        )
    ]


def test_task_on_several_processes() -> None:
    assert on_ranks(2, _task_rows) == [_task_rows()] * 2


def test_tasks_that_cannot_be() -> None:
    with pytest.raises(DataError, match="task 'x' has no images"):
        RetrievalTask("x", [])
    with pytest.raises(DataError, match="task 'x' has no captions"):
        RetrievalTask("x", [Sample(key="a", image=lambda: picture(0), captions={"de": ()})])
    with pytest.raises(UnknownName, match="no language of task captioned 'fr'; there are: de, sw"):
        evaluate_retrieval(CountingModel(), _captioned(), languages=["fr"])
    task = _captioned()
    assert task.digest == _captioned().digest != replace(task, captions="first").digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_of_text_M": [0, 1]}, r"texts \(3, 2\), image_of_text \(2,\): need one image index for each text"),
        ({"image_of_text_M": [0, 1, 3]}, r"image_of_text\[2\] = 3: must be in 0..2"),
        ({"image_of_text_M": [0, -1, 2]}, r"image_of_text\[1\] = -1: must be in 0..2"),
        ({"text_ME": torch.ones(3, 3)}, r"texts \(3, 3\).*of one width"),
        ({"text_ME": torch.ones(0, 2), "image_of_text_M": []}, "at least one text"),
        ({"text_ME": torch.tensor([[1, 0], [0, float("nan")], [1, 1]])}, "embedding of text 1 is not finite"),
        ({"image_NE": torch.tensor([[1, 0], [0, 1], [float("inf"), 1]])}, "embedding of image 2 is not finite"),
        ({"ks": (0, 1)}, r"ks = \[0, 1\]: give at least one number, each at least 1"),
        ({"chunk": 0}, "chunk = 0: must be at least 1"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    good = {"image_NE": torch.eye(3)[:, :2], "text_ME": torch.ones(3, 2), "image_of_text_M": [0, 1, 2]}
    with pytest.raises(VlkitError, match=message):
        retrieval(**(good | change))
