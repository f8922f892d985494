"""Parts of images, variations and growing images: what is known stays to the bit, and all else is found once."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import ShapeError, VlkitError
from vlkit.nn.code_edits import Margins, filled, hidden, touched_codes, varied, widened
from vlkit.nn.code_sampler import sample
from vlkit.spec.text_to_image import SamplingSpec

K = 9
SPEC = SamplingSpec(steps=4, guidance=1.0)


def even(codes: torch.Tensor, step: int, *, null: bool) -> tuple[torch.Tensor, None]:
    return torch.zeros(*codes.shape, K), None


def painted(known: torch.Tensor, seeds: list[int], window: int = 0) -> torch.Tensor:
    return sample(even, spec=SPEC, seeds=seeds, num_codes=known.shape[1], codebook_size=K, known=known, window=window)


def test_pixels_mark_the_codes_that_they_touch_or_fill() -> None:
    """Two rows and three columns of codes, each of 4 x 2 pixels."""
    mask = torch.zeros(2, 8, 6)
    mask[0, 3, 1] = 1  # one pixel of code 0
    mask[0, 4:6, 2:4] = 0.5  # half of code 4
    mask[1, :, 4:] = 1  # codes 2 and 5
    assert touched_codes(mask, (2, 3), area=None).int().tolist() == [[1, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]
    assert touched_codes(mask, (2, 3), area=0.5).int().tolist() == [[0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1]]
    assert touched_codes(mask, (2, 3), area=0.51).int().tolist() == [[0] * 6, [0, 0, 1, 0, 0, 1]]
    assert touched_codes(mask.bool(), (2, 3), area=1.0).int().tolist() == [[0] * 6, [0, 0, 1, 0, 0, 1]]


def test_a_part_is_made_anew_and_the_rest_stays() -> None:
    codes = torch.randint(0, K, (3, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    touched = touched_codes(mask, (4, 4), area=None)
    known = hidden(codes, touched, codebook_size=K)
    assert int((known == K).sum()) == 3 * 4
    found = painted(known, [1, 2, 3])
    assert torch.equal(found[~touched], codes[~touched]) and not torch.equal(found, codes)


@pytest.mark.parametrize(("strength", "count"), [(0.0, 0), (0.001, 1), (0.25, 16), (0.5, 32), (1.0, 64)])
def test_a_variation_hides_exactly_its_share(strength: float, count: int) -> None:
    codes = torch.randint(0, K, (5, 64))
    known = varied(codes, strength=strength, seeds=[3, 1, 4, 1, 5], codebook_size=K)
    assert (known == K).sum(dim=1).tolist() == [count] * 5
    assert torch.equal(known[known != K], codes[known != K])
    assert torch.equal(known[1] == K, known[3] == K)  # of one seed


def test_variations_nest_and_each_seed_has_its_own() -> None:
    codes = torch.zeros(200, 32, dtype=torch.int64)
    little, much = (
        varied(codes, strength=strength, seeds=list(range(200)), codebook_size=K) == K for strength in (0.25, 0.5)
    )
    assert bool(much[little].all())
    assert much.float().mean(dim=0).tolist() == pytest.approx([0.5] * 32, abs=0.15)
    assert len({tuple(row) for row in little.tolist()}) > 195


def test_a_canvas_is_widened_on_all_sides() -> None:
    codes = torch.arange(4).reshape(1, 2, 2)
    canvas = widened(codes, Margins(left=1, right=2, up=3, down=0), codebook_size=K)
    assert canvas.shape == (1, 5, 5) and torch.equal(canvas[:, 3:, 1:3], codes)
    assert int((canvas == K).sum()) == 25 - 4


@pytest.mark.parametrize(
    "margins", [Margins(right=5), Margins(left=5), Margins(up=3), Margins(down=4), Margins(3, 2, 1, 5)]
)
@pytest.mark.parametrize("offset", [(1, 1), (2, 2), (2, 3), (4, 4)])
def test_an_image_grows_to_every_side_and_stays_what_it_is(margins: Margins, offset: tuple[int, int]) -> None:
    codes = torch.randint(0, K, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    canvas = widened(codes, margins, codebook_size=K)
    grown = filled(
        lambda known, window: painted(known, [1, 2], window), canvas, grid=(4, 4), offset=offset, codebook_size=K
    )
    assert grown.shape == canvas.shape and int(grown.max()) < K and int(grown.min()) >= 0
    assert torch.equal(grown[canvas != K], canvas[canvas != K])


def test_windows_begin_where_most_is_known_and_slide_by_the_offset() -> None:
    asked: list[tuple[int, list[int]]] = []

    def fill(known: torch.Tensor, window: int) -> torch.Tensor:
        asked.append((window, known.unflatten(1, (1, 4))[0, 0].tolist()))
        return torch.where(known == K, window, known)

    def grown(margins: Margins, *, offset: int) -> list[int]:
        asked.clear()
        canvas = widened(torch.zeros(1, 1, 4, dtype=torch.int64), margins, codebook_size=K)
        row: list[int] = filled(fill, canvas, grid=(1, 4), offset=(1, offset), codebook_size=K)[0, 0].tolist()
        return row

    assert grown(Margins(right=4), offset=2) == [0, 0, 0, 0, 1, 1, 2, 2]
    assert asked == [(1, [0, 0, K, K]), (2, [1, 1, K, K])]
    assert grown(Margins(left=4), offset=2) == [2, 2, 1, 1, 0, 0, 0, 0]
    assert asked == [(1, [K, K, 0, 0]), (2, [K, K, 1, 1])]
    assert grown(Margins(right=3), offset=2) == [0, 0, 0, 0, 1, 1, 2]  # the last window ends where the canvas does


def test_a_canvas_without_anything_known_is_filled_too() -> None:
    canvas = torch.full((1, 5, 6), K)
    grown = filled(
        lambda known, window: painted(known, [4], window), canvas, grid=(4, 4), offset=(2, 2), codebook_size=K
    )
    assert int(grown.max()) < K and bool((canvas == K).all())


def test_what_makes_no_sense_is_told() -> None:
    codes = torch.zeros(2, 16, dtype=torch.int64)
    with pytest.raises(
        ShapeError,
        match=r"^a mask of \[2, 9, 8\] \(images, rows, columns\) cannot be cut into 4x4 codes; give one of the "
        r"tokenizer's image size$",
    ):
        touched_codes(torch.zeros(2, 9, 8), (4, 4), area=None)
    with pytest.raises(
        VlkitError, match=r"^area = 0 is no share of a code's pixels; give a number above 0 and up to 1, or None$"
    ):
        touched_codes(torch.zeros(2, 8, 8), (4, 4), area=0.0)
    with pytest.raises(ShapeError, match=r"^the mask is for codes \[2, 4\], and there are \[2, 16\]$"):
        hidden(codes, torch.zeros(2, 4), codebook_size=K)
    with pytest.raises(VlkitError, match=r"^strength = 1.2 is no share; give a number in 0..1, 0 for the same image$"):
        varied(codes, strength=1.2, seeds=[1, 2], codebook_size=K)
    with pytest.raises(ShapeError, match=r"^1 seeds for 2 images; give one each$"):
        varied(codes, strength=0.5, seeds=[1], codebook_size=K)
    grid = codes.unflatten(1, (4, 4))
    with pytest.raises(ShapeError, match=r"^margins .*'left': -1.*: 0 or more rows or columns are added on each side$"):
        widened(grid, Margins(left=-1), codebook_size=K)

    def fill(canvas: torch.Tensor, grid: tuple[int, int] = (4, 4), offset: tuple[int, int] = (2, 2)) -> None:
        filled(lambda known, window: known, canvas, grid=grid, offset=offset, codebook_size=K)

    with pytest.raises(ShapeError, match=r"^a canvas of \[2, 4, 4\] .* is smaller than the 4x5 codes that are made at"):
        fill(grid, (4, 5))
    with pytest.raises(
        ShapeError, match=r"^offset = 0, 2: windows of 4x4 codes lie 1 to 4 rows and 1 to 4 columns apart$"
    ):
        fill(grid, offset=(0, 2))
    grid[1, 0, 0] = K
    with pytest.raises(
        ShapeError, match=r"^the images of a canvas are unknown in different places; fill them one by one$"
    ):
        fill(grid)
