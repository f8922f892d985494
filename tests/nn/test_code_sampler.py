"""The sampler equals a slow one written out, whatever the batch; what is known stays, what is drawn is distributed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.code_noise import CODES, CONFIDENCE, code_gumbel, gumbel, place_keys
from vlkit.nn.code_sampler import SampledStep, draw_codes, guidance_scales, guided, noise_scales, sample, sampling_steps
from vlkit.spec.text_to_image import SamplingSpec

N, K = 12, 7
Asked = list[tuple[int, bool]]


class Painter:
    """A model without weights: logits hang on the prompt, the place, and the codes known so far; one row a prompt."""

    def __init__(
        self, prompts: list[int], *, num_codes: int = N, size: int = K, dtype: torch.dtype = torch.float32
    ) -> None:
        self.prompts, self.shape, self.dtype = prompts, (num_codes, size), dtype
        self.asked: Asked = []

    def __call__(self, codes_BN: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
        self.asked.append((step, null))
        given = torch.stack([self.logits(prompt, codes) for prompt, codes in zip(self.prompts, codes_BN, strict=True)])
        without = torch.stack([self.logits(-1, codes) for codes in codes_BN]) if null else None
        return given.to(self.dtype), without if without is None else without.to(self.dtype)

    def logits(self, prompt: int, codes_N: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(prompt + 10)
        table, known = (
            torch.randn(*self.shape, generator=draw),
            torch.randn(self.shape[1] + 1, self.shape[1], generator=draw),
        )
        return 2 * table + known[codes_N.roll(1)]


def settings(**given: Any) -> SamplingSpec:
    return SamplingSpec(**{"steps": 5, "guidance": 1.0, **given})


def paint(prompts: list[int], seeds: list[int], known: Tensor | None = None, **given: Any) -> Tensor:
    return sample(Painter(prompts), spec=settings(**given), seeds=seeds, num_codes=N, codebook_size=K, known=known)


def written_out(painter: Painter, seed: int, spec: SamplingSpec, known_N: list[int]) -> list[int]:
    """The sampler for one image, place by place, in Python's own numbers (maskgit's algorithm)."""
    codes, total = list(known_N), sum(code == K for code in known_N)
    steps, compounded = min(spec.steps, total), spec.noise
    for s in range(steps):
        rest = 1 - (s + 1) / steps
        compounded *= rest
        noise = {
            "linear": spec.noise * rest,
            "compounding": compounded,
            "linspace": spec.noise * (1 - s / max(1, steps - 1)),
        }[spec.confidence]
        draws, sure = (
            place_keys(torch.tensor([seed]), stream=CODES, window=0, step=s, num_codes=N)[0],
            place_keys(torch.tensor([seed]), stream=CONFIDENCE, window=0, step=s, num_codes=N)[0],
        )
        logits = painter.logits(painter.prompts[0], torch.tensor(codes)).double()
        null = painter.logits(-1, torch.tensor(codes)).double()
        w = spec.guidance_scale - 1
        found: list[tuple[float, int, int]] = []
        for place in range(N):
            if codes[place] != K:
                continue
            row = [(1 + w) * float(a) - w * float(b) for a, b in zip(logits[place], null[place], strict=True)]
            gains = code_gumbel(draws[place : place + 1], K)[0].tolist()
            tempered = [value / spec.temperature + gain for value, gain in zip(row, gains, strict=True)]
            code = tempered.index(max(tempered))
            log_p = row[code] - math.log(sum(math.exp(value) for value in row))
            found.append((log_p + noise * float(gumbel(sure[place : place + 1])), place, code))
        left = math.floor(total * math.cos(math.pi / 2 * (s + 1) / steps) + 1e-9)
        found.sort(reverse=True)
        for _, place, code in found[: len(found) - left]:
            codes[place] = code
    return codes


@pytest.mark.parametrize("confidence", ["linear", "compounding", "linspace"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_sampler_is_the_algorithm_written_out(confidence: str, guidance: float) -> None:
    for seed in range(6):
        known = torch.full((N,), K)
        if seed % 2:
            known[[1, 4, 5]] = torch.tensor([0, 3, 6])
        spec = settings(confidence=confidence, guidance=guidance, noise=2.0, temperature=0.8)
        found = sample(Painter([3]), spec=spec, seeds=[seed], num_codes=N, codebook_size=K, known=known[None])
        assert found[0].tolist() == written_out(Painter([3]), seed, spec, known.tolist())


def test_an_image_is_that_of_its_seed_in_any_batch_and_row() -> None:
    prompts, seeds = [0, 1, 2, 3], [7, 7, 123456, 2**63 - 1]
    known = torch.full((4, N), K)
    known[1, :5], known[2, 3:], known[3] = 2, 4, torch.arange(N) % K  # each has other numbers of steps; one has none
    for given in ({"guidance": 3.0, "guidance_schedule": "linear"}, {"confidence": "linspace", "top_p": 0.9}):
        together = paint(prompts, seeds, known, **given)
        assert bool(((together >= 0) & (together < K)).all())
        turned = paint(prompts[::-1], seeds[::-1], known.flip(0), **given)
        assert torch.equal(turned.flip(0), together)
        for row in range(4):
            alone = paint([prompts[row]], [seeds[row]], known[row : row + 1], **given)
            assert torch.equal(alone[0], together[row])


def test_a_prompt_translated_to_itself_is_the_same_image_and_other_seeds_give_others() -> None:
    assert torch.equal(*paint([5, 5], [9, 9]).split(1))
    many = paint([5] * 40, list(range(40)))
    assert len({tuple(row) for row in many.tolist()}) > 35


@pytest.mark.parametrize(("steps", "made"), [(1, 1), (N - 1, N - 1), (N, N), (N + 1, N), (500, N)])
def test_one_step_and_more_steps_than_codes_work(steps: int, made: int) -> None:
    painter = Painter([1, 2])
    codes = sample(painter, spec=settings(steps=steps), seeds=[1, 2], num_codes=N, codebook_size=K)
    assert len(painter.asked) == made and int(codes.max()) < K


def test_steps_find_as_many_codes_as_the_schedule_says() -> None:
    painter = Painter([1, 2], num_codes=256)
    known = torch.full((2, 256), K)
    known[1, 100:] = 0
    done = list(
        sampling_steps(painter, spec=settings(steps=8), seeds=[1, 2], num_codes=256, codebook_size=K, known=known)
    )
    left = torch.stack([known, *(one.codes_BN for one in done)]).eq(K).sum(dim=2)
    assert (-left.diff(dim=0)).T.tolist() == [[5, 15, 24, 31, 39, 45, 48, 49], [2, 6, 9, 13, 15, 17, 19, 19]]


def test_equal_confidences_do_not_change_how_many_codes_are_found() -> None:
    def even(codes: Tensor, step: int, *, null: bool) -> tuple[Tensor, None]:
        return torch.zeros(*codes.shape, K), None

    spec = settings(steps=8, noise=0.0)
    done = list(sampling_steps(even, spec=spec, seeds=[0], num_codes=256, codebook_size=K))
    assert [int(one.codes_BN.eq(K).sum()) for one in done] == [251, 236, 212, 181, 142, 97, 49, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("noise", [10.0, 1e6])
def test_known_codes_never_change(dtype: torch.dtype, noise: float) -> None:
    known = torch.full((20, N), K)
    known[:, ::3] = 5
    painter = Painter(list(range(20)), dtype=dtype)
    spec = settings(steps=8, noise=noise)
    seen: list[SampledStep] = list(
        sampling_steps(painter, spec=spec, seeds=list(range(20)), num_codes=N, codebook_size=K, known=known)
    )
    for before, after in zip(
        [known, *(one.codes_BN for one in seen)], [*(one.codes_BN for one in seen), None], strict=True
    ):
        if after is not None:
            assert torch.equal(after[before != K], before[before != K])
    assert bool((known[:, 1::3] == K).all())  # what was given is left alone


def test_previews_are_whole_images_and_the_last_is_the_image() -> None:
    seen = list(sampling_steps(Painter([4]), spec=settings(), seeds=[3], num_codes=N, codebook_size=K))
    assert [(one.step, one.steps) for one in seen] == [(step, 5) for step in range(5)]
    for one in seen:
        assert int(one.drawn_BN.max()) < K
        assert torch.equal(one.drawn_BN[one.codes_BN != K], one.codes_BN[one.codes_BN != K])
    assert torch.equal(seen[-1].codes_BN, seen[-1].drawn_BN) and torch.equal(seen[-1].codes_BN, paint([4], [3]))


def test_an_image_that_is_known_asks_nothing() -> None:
    painter, known = Painter([1]), torch.arange(N).remainder(K)[None].to(torch.int32)
    found = sample(painter, spec=settings(), seeds=[1], num_codes=N, codebook_size=K, known=known)
    assert torch.equal(found, known.long()) and found.dtype == torch.int64 and not painter.asked
    assert sample(Painter([]), spec=settings(), seeds=[], num_codes=N, codebook_size=K).shape == (0, N)


def test_pieces_of_an_image_meet_noise_of_their_own() -> None:
    spec = settings()
    first, second = (
        sample(Painter([1]), spec=spec, seeds=[1], num_codes=N, codebook_size=K, window=window) for window in (0, 1)
    )
    assert not torch.equal(first, second) and torch.equal(first, paint([1], [1]))


class TestWhatIsDrawn:
    """Frequencies of codes against probabilities."""

    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5])

    def shares(self, **given: Any) -> Tensor:
        keys = place_keys(torch.arange(200), stream=CODES, window=0, step=0, num_codes=100).flatten()
        codes, _ = draw_codes(self.logits.expand(len(keys), -1), keys, spec=settings(**given))
        return codes.bincount(minlength=5) / len(keys)

    def near(self, found: Tensor, chances: list[float] | Tensor) -> None:
        torch.testing.assert_close(found, torch.as_tensor(chances), atol=0.015, rtol=0)  # 4 standard errors

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_a_temperature_divides_the_logits(self, temperature: float) -> None:
        self.near(self.shares(temperature=temperature), (self.logits / temperature).softmax(0))

    def test_no_temperature_takes_the_likeliest(self) -> None:
        assert self.shares(temperature=0.0).tolist() == [1, 0, 0, 0, 0]

    def test_the_likeliest_few_share_what_there_is(self) -> None:
        e = [math.exp(x) for x in (2.0, 1.0, 1.5)]
        self.near(self.shares(top_k=3), [e[0] / sum(e), 0, e[1] / sum(e), 0, e[2] / sum(e)])
        self.near(self.shares(top_k=99), self.logits.softmax(0))
        assert self.shares(top_k=1).tolist() == [1, 0, 0, 0, 0]

    def test_the_nucleus_is_the_fewest_codes_with_the_share(self) -> None:
        """Probabilities 0.463, 0.281, 0.170, ...: two have less than 0.76, three more."""
        e = [math.exp(x) for x in (2.0, 1.5)]
        self.near(self.shares(top_p=0.7), [e[0] / sum(e), 0, 0, 0, e[1] / sum(e)])
        assert float((self.shares(top_p=0.76) > 0).sum()) == 3
        assert self.shares(top_p=0.01).tolist() == [1, 0, 0, 0, 0]

    def test_exactly_so_many_are_drawn_from_where_logits_are_equal(self) -> None:
        keys = place_keys(torch.arange(50), stream=CODES, window=0, step=0, num_codes=20).flatten()
        codes, _ = draw_codes(torch.zeros(1000, 6), keys, spec=settings(top_k=2))
        assert len(codes.unique()) == 2

    def test_the_probability_is_that_of_the_logits_as_they_are(self) -> None:
        for given in ({"temperature": 0.1}, {"temperature": 0.0}, {"top_k": 1}):
            _, sure = draw_codes(self.logits[None], torch.tensor([1]), spec=settings(**given))
            assert float(sure) == pytest.approx(float(self.logits.log_softmax(0)[0]))

    def test_what_is_ruled_out_is_never_drawn(self) -> None:
        def barred(codes: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
            logits = torch.zeros(*codes.shape, K)
            logits[..., 2:] = -math.inf
            return logits, logits if null else None

        spec = settings(guidance=5.0, top_p=0.99)
        found = sample(barred, spec=spec, seeds=list(range(30)), num_codes=N, codebook_size=K)
        assert found.unique().tolist() == [0, 1]


class TestPairing:
    """One seed in two languages: the same noise."""

    def pair(self, gap: float, other_seeds: int) -> tuple[Tensor, Tensor]:
        """Which codes agree, [prompts, places], and the distributions' distance, for two nearly equal prompts."""
        draw = torch.Generator().manual_seed(0)
        logits = torch.randn(60, 40, 16, generator=draw)
        moved = logits + gap * torch.randn(60, 40, 16, generator=draw)

        def painter(of: Tensor) -> Callable[..., tuple[Tensor, None]]:
            return lambda codes, step, *, null: (of, None)

        spec, seeds = settings(steps=1), range(60)
        first, second = (
            sample(painter(of), spec=spec, seeds=[seed + by for seed in seeds], num_codes=40, codebook_size=16)
            for of, by in ((logits, 0), (moved, other_seeds))
        )
        return (first == second).float(), (logits.softmax(2) - moved.softmax(2)).abs().sum(2) / 2

    def test_nearly_equal_prompts_draw_nearly_the_same_codes(self) -> None:
        """Gumbel-max disagrees with a chance of at most 2 d / (1 + d) at a distance of d in total variation."""
        same, distance = self.pair(0.1, 0)
        assert 1 - float(same.mean()) <= float((2 * distance / (1 + distance)).mean()) + 0.01
        assert float(same.mean()) > 0.9

    def test_pairing_seeds_brings_images_together_and_makes_their_likeness_sure(self) -> None:
        paired, unpaired = (self.pair(0.1, by)[0].mean(dim=1) for by in (0, 1000))
        assert float(paired.mean()) > float(unpaired.mean()) + 0.5
        assert float(paired.var()) < float(unpaired.var())


class TestGuidance:
    """Both conventions, their schedules, and one branch where there is nothing to guide."""

    def test_a_scale_of_one_asks_for_one_branch_and_gives_the_prompts_logits(self) -> None:
        for given in ({"guidance": 1.0}, {"guidance": 0.0, "guidance_as": "weight"}):
            painter = Painter([1])
            sample(painter, spec=settings(**given), seeds=[0], num_codes=N, codebook_size=K)
            assert painter.asked == [(step, False) for step in range(5)]
        logits = torch.tensor([[1e30, 0.1, -3.0]])
        assert torch.equal(guided(logits, torch.full((1, 3), 7e33), torch.ones(1)), logits)

    def test_a_scale_of_six_is_a_weight_of_five(self) -> None:
        assert torch.equal(
            paint([1, 2], [3, 4], guidance=6.0), paint([1, 2], [3, 4], guidance=5.0, guidance_as="weight")
        )
        assert not torch.equal(paint([1, 2], [3, 4], guidance=6.0), paint([1, 2], [3, 4]))
        given, null = torch.randn(4, K), torch.randn(4, K)
        torch.testing.assert_close(guided(given, null, torch.full((4,), 6.0)), 6 * given - 5 * null)
        torch.testing.assert_close(guided(given, null, torch.zeros(4)), null)

    def test_a_negative_prompt_is_moved_away_from(self) -> None:
        def painter(codes: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
            negative = torch.zeros(*codes.shape, 3)
            negative[..., 1] = 2.0
            return torch.zeros(*codes.shape, 3), negative if null else None

        seeds = list(range(50))
        spec = settings(guidance=4.0, steps=3)
        found = sample(painter, spec=spec, seeds=seeds, num_codes=N, codebook_size=3)
        assert float((found == 1).float().mean()) < 0.01  # exp(-6) of the others

    def test_schedules_have_their_closed_forms(self) -> None:
        assert guidance_scales(4, spec=settings(guidance=5.0)) == [5.0] * 4
        assert guidance_scales(5, spec=settings(guidance=5.0, guidance_schedule="linear")) == [1, 2, 3, 4, 5]
        cosine = guidance_scales(4, spec=settings(guidance=5.0, guidance_schedule="cosine", guidance_power=3.0))
        assert cosine == pytest.approx([1 + 2 * (1 - math.cos(math.pi * (s / 4) ** 3)) for s in range(4)])
        interval = settings(guidance=5.0, guidance_schedule="interval", guidance_interval=(0.2, 0.6))
        assert guidance_scales(10, spec=interval) == [1, 1, 5, 5, 5, 5, 1, 1, 1, 1]
        whole = settings(guidance=5.0, guidance_schedule="interval")
        assert guidance_scales(3, spec=whole) == [5, 5, 5]
        for schedule in ("constant", "linear", "interval"):
            assert guidance_scales(1, spec=settings(guidance=5.0, guidance_schedule=schedule)) == [5.0]

    def test_steps_without_guidance_ask_for_one_branch(self) -> None:
        for given, guided_steps in (
            ({"guidance_schedule": "linear"}, [1, 2, 3, 4]),
            ({"guidance_schedule": "interval", "guidance_interval": (0.2, 0.6)}, [1, 2]),
        ):
            painter = Painter([1])
            sample(painter, spec=settings(guidance=3.0, **given), seeds=[0], num_codes=N, codebook_size=K)
            assert [step for step, null in painter.asked if null] == guided_steps


def test_noise_on_confidences_falls_as_published() -> None:
    """Show-o's is 0.3 of itself after step 10 of 50 and gone after 20; MaskGIT's line has 0.8 and 0.6."""
    showo = noise_scales(50, spec=settings(confidence="compounding"))
    assert showo == pytest.approx([math.perm(49, step) / 50**step for step in range(1, 51)])
    assert [round(showo[step - 1], 3) for step in (10, 20)] == [0.305, 0.007]
    assert [round(noise_scales(18, spec=settings(confidence="compounding"))[step - 1], 2) for step in (6, 10)] == [
        0.26,
        0.02,
    ]
    line = noise_scales(50, spec=settings(noise=4.5))
    assert [line[step - 1] for step in (10, 20, 50)] == pytest.approx([4.5 * 0.8, 4.5 * 0.6, 0])
    amused = settings(confidence="linspace", noise=2.0)
    assert noise_scales(12, spec=amused) == pytest.approx(torch.linspace(2, 0, 12).tolist())
    assert noise_scales(1, spec=amused) == [2.0] and showo[-1] == 0


def refused(kind: type[VlkitError], words: str, **given: Any) -> None:
    spec = settings(**given.pop("spec", {}))
    asked = {"seeds": [1, 2], "num_codes": N, "codebook_size": K, "logits_of": Painter([1, 2]), **given}
    with pytest.raises(kind) as told:
        sample(asked.pop("logits_of"), spec=spec, **asked)
    assert str(told.value) == words


def test_sizes_that_do_not_fit_are_told() -> None:
    refused(
        ShapeError,
        "known codes are [3, 12], and 2 seeds of 12 codes need [2, 12]; give one seed and one row of known codes an "
        "image",
        known=torch.zeros(3, N, dtype=torch.int64),
    )
    refused(ShapeError, "num_codes = 0 and codebook_size = 7 have to be 1 or more", num_codes=0)
    refused(
        ShapeError,
        "the logits of step 0 are [2, 12, 7], and [2, 12, 8] are needed",
        codebook_size=8,
        logits_of=lambda codes, step, *, null: (torch.zeros(2, N, K), None),
    )

    def odd(codes: Tensor, step: int, *, null: bool) -> tuple[Tensor, Tensor | None]:
        return torch.zeros(2, N, K), torch.zeros(1, N, K)

    refused(
        ShapeError,
        "the logits without the prompts of step 0 are [1, 12, 7], and [2, 12, 7] are needed",
        logits_of=odd,
        spec={"guidance": 2.0},
    )


def test_seeds_and_codes_out_of_range_are_told() -> None:
    refused(VlkitError, "seed -1 is no whole number in 0..9223372036854775807", seeds=[1, -1])
    refused(VlkitError, f"seed {2**63} is no whole number in 0..9223372036854775807", seeds=[1, 2**63])
    refused(VlkitError, "seed 1.5 is no whole number in 0..9223372036854775807", seeds=[1.5, 2])
    known = torch.full((2, N), K)
    known[1, 3] = K + 1
    refused(VlkitError, "codes go from 7 to 8, and 0 to 7 are there (7 stands for an unknown one)", known=known)
    refused(VlkitError, "codes are whole numbers, and these are torch.float32", known=known.float())


def test_logits_that_are_none_are_told() -> None:
    refused(
        VlkitError,
        "step 0 is guided and asked the model for logits without the prompts, and it gave none; give them where null "
        "is true, or sample with guidance: 1",
        logits_of=lambda codes, step, *, null: (torch.zeros(2, N, K), None),
        spec={"guidance": 2.0},
    )
    refused(
        VlkitError,
        "the logits of step 0 are no numbers (NaN); run the model in float32 or bfloat16 instead of float16, and see "
        "that its weights are sound",
        logits_of=lambda codes, step, *, null: (torch.full((2, N, K), math.nan), None),
    )


def test_the_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "text_to_image.md").read_text(encoding="utf-8")
    (example,) = [part.partition("\n```")[0] for part in page.split("```python\n")[1:] if "sampling_steps" in part]
    exec(compile(example, "docs", "exec"), {})
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2", "3"]
