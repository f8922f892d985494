"""Tiles: cut row by row, put together in place, averaged square by square."""

from __future__ import annotations

import pytest
import torch

from vlkit.errors import ShapeError
from vlkit.nn.tiling import averaged, cut, shrunk, stitch


def places(side: int) -> torch.Tensor:
    """An image whose pixels say where they are: row and column."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns]).float()[None]


@pytest.mark.parametrize("grid", [2, 3])
def test_tiles_are_cut_row_by_row_and_stitched_in_place(grid: int) -> None:
    image = torch.cat([places(4 * grid), places(4 * grid) + 100])
    tiles = cut(image, grid)
    assert tiles.shape == (2 * grid**2, 2, 4, 4)
    assert tiles[1, :, 0, 0].tolist() == [0, 4] and tiles[grid, :, 0, 0].tolist() == [4, 0]
    assert tiles[grid**2, :, 0, 0].tolist() == [100, 100]
    tokens = tiles.flatten(2).transpose(1, 2)  # every pixel a token
    assert torch.equal(stitch(tokens, grid), image.flatten(2).transpose(1, 2))


def test_a_checkerboard_of_tiles_stays_one() -> None:
    board = torch.eye(2).repeat_interleave(3, 0).repeat_interleave(3, 1)[None, None]
    tiles = cut(board, 2)
    assert [float(tile.mean()) for tile in tiles] == [1, 0, 0, 1]
    assert torch.equal(stitch(tiles.flatten(2).transpose(1, 2), 2).view(6, 6), board[0, 0])


def test_squares_are_averaged_as_pooling_does() -> None:
    grid = torch.randn(2, 36, 5)
    peer = torch.nn.functional.avg_pool2d(grid.transpose(1, 2).unflatten(2, (6, 6)), 3)
    torch.testing.assert_close(averaged(grid, 3), peer.flatten(2).transpose(1, 2))
    assert averaged(stitch(torch.randn(4, 729, 2), 2), 2).shape == (1, 729, 2)


def test_a_shrunk_image_keeps_its_places() -> None:
    small = shrunk(places(32), 2)
    assert small.shape == (1, 2, 16, 16)
    inner = slice(2, -2)  # at the margins there is less to weigh
    torch.testing.assert_close(small[..., inner, inner], (places(16) * 2 + 0.5)[..., inner, inner], atol=1e-3, rtol=0)


def test_what_cannot_be_cut_or_stitched_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^images of 7x7 pixels cannot be cut into 2x2 square tiles$"):
        cut(places(7), 2)
    with pytest.raises(ShapeError, match=r"^images of 4x6 pixels cannot be cut into 2x2 square tiles$"):
        cut(torch.zeros(1, 3, 4, 6), 2)
    with pytest.raises(ShapeError) as error:
        stitch(torch.zeros(4, 17, 2), 2)
    assert str(error.value) == (
        "tiles are put together by their tokens' places, and 17 tokens form no square grid; take an encoder that gives "
        "one"
    )
