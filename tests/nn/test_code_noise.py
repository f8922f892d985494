"""Noise is a function of seed, step, place and code, and looks like noise in each of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vlkit.nn.code_noise import CODES, CONFIDENCE, code_gumbel, exponential, gumbel, mixed, next_keys, place_keys

GOLDEN, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def keys(seeds: list[int], *, stream: int = CODES, window: int = 0, step: int = 0, num_codes: int = 8) -> torch.Tensor:
    return place_keys(torch.tensor(seeds), stream=stream, window=window, step=step, num_codes=num_codes)


def splitmix(state: int) -> int:
    """The generator in whole numbers without bounds."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
    return state ^ state >> 31


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def test_the_generator_is_splitmix64() -> None:
    """The first numbers of the seed 1234567, as published with reference implementations."""
    states = torch.tensor([signed(1234567 + GOLDEN * index & MASK) for index in range(1, 6)])
    assert [number % 2**64 for number in mixed(states).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_keys_are_a_chain_of_seed_stream_window_step_and_place() -> None:
    def by_hand(seed: int, *path: int) -> int:
        key = splitmix(seed + GOLDEN & MASK)
        for index in path:
            key = splitmix(key + GOLDEN * (index + 1) & MASK)
        return signed(key)

    seeds = [0, 5, 2**63 - 1]
    found = keys(seeds, stream=CONFIDENCE, window=2, step=7, num_codes=3)
    assert found.tolist() == [[by_hand(seed, CONFIDENCE, 2, 7, place) for place in range(3)] for seed in seeds]
    codes = next_keys(found[:, :1], torch.arange(4))
    assert codes[1].tolist() == [by_hand(5, CONFIDENCE, 2, 7, 0, code) for code in range(4)]


def test_noise_hangs_on_neither_the_batch_nor_the_size_of_image_and_codebook() -> None:
    many = keys([3, 9, 4], num_codes=16)
    assert torch.equal(keys([9], num_codes=10)[0], many[1, :10])
    assert torch.equal(code_gumbel(many[1], 5), code_gumbel(many.flatten(), 12)[16:32, :5])


def test_no_two_places_steps_windows_streams_or_seeds_share_noise() -> None:
    sets = [
        keys(list(range(20)), stream=stream, window=window, step=step, num_codes=16)
        for stream in range(3)
        for window in range(3)
        for step in range(5)
    ]
    assert len(torch.stack(sets).unique()) == 45 * 20 * 16


def test_gumbel_noise_is_gumbel_distributed() -> None:
    drawn = code_gumbel(keys([1], num_codes=40).flatten(), 2500).flatten().double().numpy()
    drawn.sort()
    known = np.exp(-np.exp(-drawn))
    gap = np.abs(known - (np.arange(len(drawn)) + 0.5) / len(drawn)).max()
    assert gap < 1.63 / math.sqrt(len(drawn))  # Kolmogorov-Smirnov at 1 percent
    assert drawn.mean() == pytest.approx(0.5772, abs=0.02) and drawn.std() == pytest.approx(math.pi / 6**0.5, abs=0.02)


@pytest.mark.parametrize("along", [0, 1, 2])
def test_neighbours_in_seed_place_and_code_are_uncorrelated(along: int) -> None:
    noise = code_gumbel(keys(list(range(30)), num_codes=40).flatten(), 50).view(30, 40, 50)
    first, second = noise.narrow(along, 0, noise.shape[along] - 1), noise.narrow(along, 1, noise.shape[along] - 1)
    pair = torch.stack([first.flatten(), second.flatten()])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / math.sqrt(pair.shape[1])


def test_steps_and_streams_are_uncorrelated() -> None:
    noise = torch.stack(
        [
            gumbel(keys(list(range(50)), stream=stream, step=step, num_codes=100)).flatten()
            for stream in (0, 1)
            for step in range(4)
        ]
    )
    off = torch.corrcoef(noise)[~torch.eye(8, dtype=torch.bool)]
    assert float(off.abs().max()) < 5 / math.sqrt(noise.shape[1])


def test_noise_is_finite_whatever_the_bits_are() -> None:
    extremes = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])
    assert bool((exponential(extremes) > 0).all())
    assert bool(gumbel(extremes).isfinite().all())
    assert float(gumbel(extremes).min()) > -2.9 and float(gumbel(extremes).max()) < 44.4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_is_the_same_on_a_gpu() -> None:
    here, there = keys([3, 4]), place_keys(torch.tensor([3, 4], device="cuda"), stream=0, window=0, step=0, num_codes=8)
    assert torch.equal(here, there.cpu())
    torch.testing.assert_close(code_gumbel(here[0], 100), code_gumbel(there[0], 100).cpu(), rtol=1e-6, atol=1e-6)
