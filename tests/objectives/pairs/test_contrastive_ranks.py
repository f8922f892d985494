"""The contrastive losses on 1, 2, 3 and 4 processes: one loss, one gradient, however the work is shared (R1-R3, R6-R8,
R14-R16 of the requirements)."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.helpers import contrastive_peers as peers
from tests.helpers.ranks import on_ranks
from vlkit.bench.traffic import Traffic
from vlkit.distributed.collectives import Ranks
from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.batch import PairBatch
from vlkit.objectives.context import Context
from vlkit.objectives.pairs.contrastive.sigmoid import sigmoid_contrastive
from vlkit.objectives.pairs.contrastive.softmax import softmax_contrastive
from vlkit.objectives.pairs.contrastive.terms import GroupedContrastive, pair_ids
from vlkit.spec.objectives import ContrastiveObjective, GroupedContrastiveObjective
from vlkit.types import Embeddings

TOTAL = 24  # divisible by 1, 2, 3 and 4
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.float32}
LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2}

SOFTMAX: dict[str, dict[str, Any]] = {
    "softmax": {},
    "tile of 1": {"tile": 1},
    "tile of 5": {"tile": 5},
    "tile of 8": {"tile": 8},
    "kept logits": {"recompute": False, "tile": 5},
    "ring": {"exchange": "ring", "tile": 4},
    "ignore": {"duplicates": "ignore", "tile": 5},
    "ignore, ring": {"duplicates": "ignore", "exchange": "ring"},
    "ignore, kept": {"duplicates": "ignore", "recompute": False},
    "positives": {"duplicates": "positives", "tile": 7},
    "positives, ring": {"duplicates": "positives", "exchange": "ring"},
}
SIGMOID: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "sigmoid, tile of 5": {"tile": 5},
    "sigmoid, ignore": {"duplicates": "ignore", "tile": 7},
    "sigmoid, positives": {"duplicates": "positives", "tile": 3},
    "sigmoid, ring": {"exchange": "ring"},
    "sigmoid, ring, ignore": {"exchange": "ring", "duplicates": "ignore"},
    "sigmoid, ring, positives": {"exchange": "ring", "duplicates": "positives", "tile": 3},
}
PEERS = {
    "global gather": peers.global_gather,
    "local gather": peers.local_gather,
    "local gather without gradients": partial(peers.local_gather, grads=False),
    "disco": peers.disco,
}


def one_loss(mode: str, ranks: Ranks, *, rounded: bool = False) -> peers.Loss:
    """The loss function of a mode, ``rounded`` under bf16 autocast."""

    def loss(image: Any, text: Any, scale: Any, bias: Any, ids: Any) -> Any:
        given = Embeddings(image, text, scale, bias)
        options = SOFTMAX.get(mode) or SIGMOID.get(mode) or {}
        if mode in PEERS:
            return PEERS[mode](image, text, scale, ranks=ranks)
        ids = ids if "duplicates" in options else None
        function = sigmoid_contrastive if mode in SIGMOID else softmax_contrastive
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            return function(given, ranks=ranks, ids=ids, **options).loss

    return loss


def every_mode(dtype: str) -> dict[str, dict[str, Any]]:
    ranks = Ranks.world()
    return {
        mode: peers.gradients(
            one_loss(mode, ranks, rounded=dtype == "bfloat16"), ranks, total=TOTAL, dtype=DTYPES[dtype]
        )
        for mode in (*SOFTMAX, *SIGMOID, *(PEERS if ranks.size > 1 else ()))
    }


@cache
def found(size: int, dtype: str) -> dict[str, dict[str, Any]]:
    if size == 1:
        return every_mode(dtype)
    results = on_ranks(size, every_mode, dtype)
    for other in results[1:]:  # the mean over processes is the same on each
        for mode, figures in other.items():
            assert all(np.array_equal(x, results[0][mode][name]) for name, x in figures.items())
    return results[0]


@cache
def reference(mode: str) -> dict[str, Any]:
    """One process, all pairs, float64, no tiles."""
    options = SOFTMAX.get(mode, SIGMOID.get(mode, {}))
    duplicates = options.get("duplicates", "negatives")

    def loss(image: Any, text: Any, scale: Any, bias: Any, ids: Any) -> Any:
        if mode in SIGMOID:
            return peers.dense_sigmoid(image, text, scale, bias, ids=ids, duplicates=duplicates)
        return peers.dense_softmax(image, text, scale, ids=ids, duplicates=duplicates)

    return peers.gradients(loss, Ranks(), total=TOTAL, dtype=torch.float64)


def error(one: dict[str, Any], two: dict[str, Any], name: str) -> float:
    return float(np.linalg.norm(one[name] - two[name]) / np.linalg.norm(two[name]))


@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("mode", [*SOFTMAX, *SIGMOID])
def test_r1_r2_loss_and_gradients_are_those_of_one_process_with_all_pairs(mode: str, size: int, dtype: str) -> None:
    got, wanted = found(size, dtype)[mode], reference(mode)
    assert got.keys() == wanted.keys()
    assert {name: error(got, wanted, name) for name in wanted if error(got, wanted, name) > LIMITS[dtype]} == {}


@pytest.mark.parametrize("mode", ["sigmoid", "sigmoid, ring", "ring", "sigmoid, ring, positives", "positives, ring"])
def test_r7_an_odd_number_of_processes(mode: str) -> None:
    got, wanted = found(3, "float64")[mode], reference(mode)
    assert {name: error(got, wanted, name) for name in wanted if error(got, wanted, name) > 1e-12} == {}


@pytest.mark.parametrize("mode", ["global gather", "local gather"])
def test_r2_other_exact_ways_agree(mode: str) -> None:
    for size in (2, 4):
        assert all(
            error(found(size, "float64")[mode], reference("softmax"), name) < 1e-12 for name in ("image", "text")
        )


def test_r3_gathering_without_gradients_is_told_from_the_truth() -> None:
    got, wanted = found(4, "float64")["local gather without gradients"], reference("softmax")
    assert error(got, wanted, "loss") < 1e-12  # nobody sees it in the loss
    assert error(got, wanted, "image") > 0.1 and error(got, wanted, "text") > 0.1
    with pytest.raises(ValidationError, match="local_loss"):
        ContrastiveObjective(local_loss=True)


def test_r2_disco_has_the_direction_and_not_the_length() -> None:
    got, wanted = found(4, "float64")["disco"], reference("softmax")
    for name in ("image", "text"):
        assert np.allclose(got[name] * 4, wanted[name], rtol=1e-10, atol=1e-14)


def against_open_clip() -> dict[str, dict[str, Any]]:
    from open_clip.loss import ClipLoss, SigLipLoss

    ranks = Ranks.world()
    clip = ClipLoss(local_loss=True, gather_with_grad=True, rank=ranks.rank, world_size=ranks.size)
    sig = SigLipLoss(rank=ranks.rank, world_size=ranks.size)
    losses: dict[str, peers.Loss] = {
        "softmax": lambda image, text, scale, bias, ids: clip(image, text, scale),
        "sigmoid": lambda image, text, scale, bias, ids: sig(image, text, scale, bias),
    }
    return {mode: peers.gradients(loss, ranks, total=TOTAL, dtype=torch.float64) for mode, loss in losses.items()}


@pytest.mark.parametrize("size", [1, 2])
def test_r2_r7_open_clip_has_the_same_loss_and_gradients_in_its_exact_mode(size: int) -> None:
    theirs = on_ranks(size, against_open_clip)[0] if size > 1 else against_open_clip()
    for mode, figures in theirs.items():
        assert all(error(figures, reference(mode), name) < 1e-10 for name in figures)


def groups(size: int) -> dict[str, Any]:
    ranks = Ranks.world()
    spec = GroupedContrastiveObjective(group_size=size)
    term = GroupedContrastive.build(spec, None, Context(ranks))  # type: ignore[arg-type]
    parts: dict[str, Any] = {}

    def loss(image: Any, text: Any, scale: Any, bias: Any, ids: Any) -> Any:
        batch = PairBatch(None, None, None, None, ("en",) * len(image), ("",) * len(image))
        total, more = term.loss(None, batch, Embeddings(image, text, scale, bias), {})  # type: ignore[arg-type]
        parts.update(more)
        return total

    with Traffic() as traffic:
        rows = TOTAL // ranks.size
        loss(*peers.Towers(TOTAL, torch.float64)(slice(ranks.rank * rows, (ranks.rank + 1) * rows))).backward()
    got = peers.gradients(loss, ranks, total=TOTAL, dtype=torch.float64)
    return got | {
        "negatives": parts["negatives_per_anchor"].item(),
        "crossing": sum(call.received for call in traffic.crossing(size)),
        "sent": traffic.received_bytes,
    }


@pytest.mark.parametrize("size", [1, 2, 4])
def test_r6_r14_groups_have_the_mean_of_their_losses_and_nothing_crosses(size: int) -> None:
    of_group = TOTAL * size // 4

    def mean_of_groups(image: Any, text: Any, scale: Any, bias: Any, ids: Any) -> Any:
        pieces = [slice(start, start + of_group) for start in range(0, TOTAL, of_group)]
        losses = [peers.dense_softmax(image[p], text[p], scale, ids=ids[p], duplicates="negatives") for p in pieces]
        return sum(losses) / len(losses)

    wanted = peers.gradients(mean_of_groups, Ranks(), total=TOTAL, dtype=torch.float64)
    for got in on_ranks(4, groups, size):
        assert all(error(got, wanted, name) < 1e-12 for name in ("loss", "image", "text", "log_scale"))
        assert got["negatives"] == of_group - 1
        assert got["crossing"] == 0 and (got["sent"] > 0) == (size > 1)
    if size == 4:  # one group is the whole batch
        assert all(error(wanted, reference("softmax"), name) < 1e-12 for name in ("image", "text", "log_scale"))
    else:
        assert error(wanted, reference("softmax"), "image") > 1e-2


def test_r6_group_sizes_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(Ranks(0, 4))
    with pytest.raises(VlkitError, match="groups of 3 do not divide 4 processes"):
        GroupedContrastive.build(GroupedContrastiveObjective(group_size=3), None, context)  # type: ignore[arg-type]
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(VlkitError, match=r"group_size is null .* no LOCAL_WORLD_SIZE; start with torchrun"):
        GroupedContrastive.build(GroupedContrastiveObjective(), None, context)  # type: ignore[arg-type]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    term = GroupedContrastive.build(GroupedContrastiveObjective(), None, context)  # type: ignore[arg-type]
    assert term.ranks == context.ranks


def other_order(order: list[int]) -> float:
    world = Ranks.world()
    model = peers.Towers(TOTAL, torch.float64)
    size = TOTAL // world.size
    mine = order[world.rank]
    loss = one_loss("softmax", world)(*model(slice(mine * size, (mine + 1) * size)))
    return float(world.all_reduce(loss.detach()) / world.size)


def test_r8_the_order_of_processes_does_not_matter() -> None:
    one, two = (on_ranks(4, other_order, order)[0] for order in ([0, 1, 2, 3], [2, 0, 3, 1]))
    assert one == pytest.approx(two, rel=1e-13)


def unequal(counts: list[int], kind: str, exchange: str) -> str:
    world = Ranks.world()
    image, text, scale, bias, _ = peers.Towers(TOTAL, torch.float32)(slice(0, counts[world.rank]))
    function = softmax_contrastive if kind == "softmax" else sigmoid_contrastive
    try:
        function(Embeddings(image, text, scale, bias), ranks=world, exchange=exchange)  # type: ignore[operator]
    except VlkitError as problem:
        return str(problem)
    return "no error"


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("exchange", ["gather", "ring"])
def test_r8_unequal_batches_are_refused_on_every_process(kind: str, exchange: str) -> None:
    said = on_ranks(2, unequal, [4, 3], kind, exchange)
    wanted = (
        "a contrastive loss over 2 processes needs as many pairs on each; they have 4, 3; drop the last, partial batch"
    )
    assert all(line.startswith(wanted) for line in said)


def traffic_of(mode: str, batch: int, width: int, rounded: bool) -> dict[str, Any]:
    world = Ranks.world()
    draw = torch.Generator().manual_seed(world.rank)
    rows = [torch.nn.functional.normalize(torch.randn(batch, width, generator=draw), dim=1) for _ in range(2)]
    image, text = (x.requires_grad_() for x in rows)
    numbers = (torch.tensor(9.0, requires_grad=True), torch.tensor(-9.0, requires_grad=True))
    with Traffic() as traffic:
        one_loss(mode, world, rounded=rounded)(image, text, *numbers, torch.arange(batch) % 5).backward()
    by_name = {call.name: [str(dtype) for dtype in call.dtypes] for call in traffic.calls if call.payload > 64 * batch}
    return {"bytes": traffic.received_bytes, "collectives": traffic.collectives, "dtypes": by_name}


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("mode", ["softmax", "kept logits", "ignore", "positives", "sigmoid", "sigmoid, positives"])
def test_r14_r15_bytes_and_messages(mode: str, size: int, rounded: bool) -> None:
    batch, width = 16, 64
    got = on_ranks(size, traffic_of, mode, batch, width, rounded)[0]
    ids = 8 * (size - 1) * batch if "duplicates" in (SOFTMAX | SIGMOID)[mode] else 0
    there = 2 if rounded else 4  # features travel in the precision they are multiplied in, gradients in float32
    assert got["collectives"] <= 4
    assert got["bytes"] <= (size - 1) * batch * width * (there + 4) + 32 * size * batch + ids
    if not ids:  # with ids they travel as plain bytes
        assert got["dtypes"]["all_gather"] == ["torch.bfloat16" if rounded else "torch.float32"]
    assert got["dtypes"]["reduce_scatter"] == ["torch.float32"]


@pytest.mark.parametrize("mode", ["ring", "sigmoid, ring"])
def test_r14_the_ring_sends_no_more_than_its_blocks(mode: str) -> None:
    size, batch, width = 4, 16, 64
    got = on_ranks(size, traffic_of, mode, batch, width, False)[0]
    block = batch * width * 4
    passes = {"ring": 2 * (size - 1) + size, "sigmoid, ring": (size - 1) + size}[mode]  # texts there, gradients home
    assert passes * block <= got["bytes"] <= passes * block + 32 * size * batch
    assert got["collectives"] <= 1


def one_stays_away() -> tuple[str, float]:
    world = Ranks.world()
    with peers.group_that_waits(2.0, world) as ranks:
        began = time.monotonic()
        if world.rank == 1:
            return "away", 0.0
        try:
            one_loss("softmax", ranks)(*peers.Towers(TOTAL, torch.float32)(slice(0, 4)))
        except RuntimeError as problem:
            return type(problem).__name__, time.monotonic() - began
    return "no error", 0.0


def test_r16_a_process_that_failed_is_not_waited_for_without_end() -> None:
    (waited, seconds), (away, _) = on_ranks(2, one_stays_away)
    assert away == "away" and waited != "no error" and seconds < 60


def ids_here(by: str) -> list[int]:
    world = Ranks.world()
    concepts = [("cat", "dog"), ("dog", "")][world.rank]
    captions = [("a cat", "a dog"), ("one dog", "a cat")][world.rank]
    batch = PairBatch(None, None, None, None, ("en", "en"), concepts, captions)
    spec = ContrastiveObjective(duplicates="positives", duplicates_by=by)  # type: ignore[arg-type]
    ids = pair_ids(batch, spec, ranks=world)
    assert ids is not None
    return world.all_gather(ids).tolist()


def test_r10_ids_are_the_same_on_every_process() -> None:
    (cat, dog, dog2, none), _ = on_ranks(2, ids_here, "concept")
    assert dog == dog2 and len({cat, dog, none}) == 3
    (cat, dog, dog2, cat2), _ = on_ranks(2, ids_here, "caption")
    assert cat == cat2 and len({cat, dog, dog2}) == 3
