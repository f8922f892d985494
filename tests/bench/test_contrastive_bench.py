"""The contrastive benchmark: its reference, its measures, its processes, and what it prints."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from vlkit.bench import contrastive, exact, links
from vlkit.bench.contrastive import bench_contrastive, read_sizes, write_reference
from vlkit.bench.grouped import bench_grouped
from vlkit.bench.links import Link, slow_link
from vlkit.bench.losses import Setting
from vlkit.bench.memory import extra_memory
from vlkit.bench.ranks import on_ranks
from vlkit.cli.bench import app
from vlkit.errors import VlkitError

# -- the reference


def _dense(setting: Setting, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = scale * image @ text.T
    own = torch.arange(len(logits))
    if setting.loss == "softmax":
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * (logits + bias)).sum() / len(logits)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("groups", [1, 2])
def test_reference_is_the_gradient_of_the_mean_loss_over_groups(
    loss: Any, groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_BLOCK_BYTES", 8 * 20 * 3)  # blocks of 3 rows of 20: the last one is short
    setting = Setting(loss=loss, batch=5, dim=7, scale=20.0, bias=-3.0)
    write_reference(setting, tmp_path, ranks=4, groups=groups)
    rows = [contrastive.pairs(setting, rank) for rank in range(4)]
    image = torch.cat([row.image_bD for row in rows]).detach().double().requires_grad_()
    text = torch.cat([row.text_bD for row in rows]).detach().double().requires_grad_()
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (20.0, -3.0))
    parts = [slice(20 * n // groups, 20 * (n + 1) // groups) for n in range(groups)]
    sum(_dense(setting, image[part], text[part], scale, bias) for part in parts).div(groups).backward()  # type: ignore[union-attr]
    for rank in range(4):
        found = load_file(tmp_path / f"{rank}.safetensors")
        own = slice(rank * 5, rank * 5 + 5)
        torch.testing.assert_close(found["image_bD"], image.grad[own], rtol=1e-11, atol=1e-15)  # type: ignore[index]
        torch.testing.assert_close(found["text_bD"], text.grad[own], rtol=1e-11, atol=1e-15)  # type: ignore[index]
        torch.testing.assert_close(found["scale"], scale.grad, rtol=1e-11, atol=1e-15)
        if loss == "sigmoid":
            torch.testing.assert_close(found["bias"], bias.grad, rtol=1e-11, atol=1e-15)


def test_reference_refuses_a_scale_that_leaves_float64() -> None:
    with pytest.raises(VlkitError, match="up to 300, not 400"):
        exact.softmax_gradients(torch.ones(2, 1), torch.ones(2, 1), 400.0)


# -- processes and memory


def some_work(number: int, fails_on: int | None, folder: str) -> dict[str, int]:
    """Runs on each rank."""
    from vlkit.distributed.collectives import Ranks

    rank = Ranks.world().rank
    if rank == fails_on:
        raise VlkitError(f"rank {rank} has no {number}")
    if fails_on is not None:
        time.sleep(60)
        Path(folder, "too late").touch()
    block = extra_memory(lambda: torch.ones(number // 4).sum())
    kept = extra_memory(lambda: torch.ones(number // 8))
    return {"rank": rank, "block": block, "kept": kept, "threads": torch.get_num_threads()}


def test_results_come_in_the_order_of_ranks_and_memory_is_what_a_call_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    size = 200_000_000
    found = on_ranks(
        "tests.bench.test_contrastive_bench:some_work", {"number": size, "fails_on": None, "folder": ""}, ranks=2
    )
    assert [row["rank"] for row in found] == [0, 1]
    for row in found:
        # A tensor that is gone when the call ends counts at its peak; so does one that is returned.
        assert size <= row["block"] < 1.2 * size
        assert size / 2 <= row["kept"] < 0.7 * size


def test_a_rank_that_fails_ends_the_others_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with pytest.raises(VlkitError, match=r"rank 1 of 2 ended with code 1: rank 1 has no 7"):
        arguments = {"number": 7, "fails_on": 1, "folder": str(tmp_path)}
        on_ranks("tests.bench.test_contrastive_bench:some_work", arguments, ranks=2)
    assert list(tmp_path.iterdir()) == []


# -- the benchmark


def test_softmax_over_two_ranks_is_exact_and_sends_half_the_bytes() -> None:
    found = bench_contrastive(Setting(batch=96, dim=48), ranks=2, repeats=2)
    assert found.gradient_error is not None and found.gradient_error < 1e-5
    # open_clip's cheapest exact mode is exact: a wrong scale in the comparison would show here.
    assert found.peer_gradient_error is not None and found.peer_gradient_error < 1e-5
    both_gathers_and_their_backward = 4 * 96 * 48 * 4
    assert found.peer_bytes == both_gathers_and_their_backward
    # Texts, their gradients, and up to 32 bytes for each of the 192 pairs.
    assert both_gathers_and_their_backward / 2 <= found.ours_bytes <= both_gathers_and_their_backward / 2 + 32 * 192
    assert found.ours_collectives <= 4
    assert found.bytes_ratio == found.ours_bytes / found.peer_bytes
    assert found.time_ratio and found.cpu_ratio and found.memory_ratio and found.ours_mb > 0
    assert found.peer.startswith("open_clip_torch ") and found.notes == ()
    written = json.loads(found.to_json())
    assert {"time_ratio", "memory_ratio", "bytes_ratio", "gradient_error"} <= written.keys()


def test_command_line_prints_one_json_object_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is free for the peer's logits: it is left out, and said so.
    monkeypatch.setattr(contrastive.os, "sysconf", lambda name: 0)
    arguments = "contrastive --loss sigmoid --sizes 8,24 --dim 16 --repeats 1 --device cpu --json"
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(row["batch"], row["loss"], row["ranks"]) for row in found] == [(8, "sigmoid", 1), (24, "sigmoid", 1)]
    for row in found:
        assert row["gradient_error"] < 1e-5
        assert row["time_ratio"] is row["memory_ratio"] is row["bytes_ratio"] is row["peer_s"] is None
        assert row["ours_bytes"] == 0
        assert "not measured" in row["notes"][0]


def test_sizes() -> None:
    assert read_sizes("") == [] and read_sizes("4096, 8192") == [4096, 8192]
    for wrong in ("4k", "1", "8,,x"):
        with pytest.raises(VlkitError, match="whole numbers of at least 2"):
            read_sizes(wrong)


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(VlkitError, match="99 ranks need as many GPUs"):
        bench_contrastive(Setting(device="cuda"), ranks=99)


# -- groups


def test_no_byte_of_the_grouped_loss_crosses_groups_and_the_model_adds_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links.shutil, "which", lambda name: None)  # no network tools: a model
    found = bench_grouped(ranks=4, batch=16, dim=8, megabits=0.008, repeats=1)
    assert found.link.startswith("model: ")
    assert found.crossing_bytes == 0 and found.grouped_s < 1
    # Over four ranks, open_clip gathers three others' images and texts and sends their gradients back.
    assert found.peer_crossing_bytes == 4 * 3 * 16 * 8 * 4
    assert found.exact_crossing_bytes <= found.peer_crossing_bytes / 2 + 32 * 64
    assert found.peer_s > found.peer_crossing_bytes / 1000  # 0.008 Mbit/s are 1000 bytes/s
    assert found.gradient_error is not None and found.gradient_error < 1e-5
    assert found.exact_gradient_error is not None and found.exact_gradient_error < 1e-5
    assert found.negatives_per_anchor == 31


def test_seconds_of_the_model_and_none_of_a_real_link() -> None:
    assert Link(8.0, 100.0).seconds(3_000_000, 5) == pytest.approx(3.0005)
    assert Link(8.0, 0.0, {}).seconds(3_000_000, 5) == 0


def test_a_link_leaves_no_namespace_behind() -> None:
    with slow_link(4, megabits=100) as link:
        if not link.real:
            pytest.skip("this machine lets us make no network namespaces")
        assert link.places is not None
        ends = [prefix[-1] for prefix in link.places["prefixes"]]
        assert ends[0] == ends[1] != ends[2] == ends[3]
        assert Path("/run/netns", ends[0]).exists()
    assert shutil.which("ip") and not Path("/run/netns", ends[0]).exists()
    assert math.isclose(link.megabits, 100)


def test_two_groups_need_an_even_number_of_ranks() -> None:
    with pytest.raises(VlkitError, match="even number of ranks, not 3"):
        bench_grouped(ranks=3)
