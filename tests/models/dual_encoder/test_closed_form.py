"""Closed-form starts against plain linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlkit.errors import VlkitError
from vlkit.models.dual_encoder.closed_form import canonical_maps, class_embeddings, ridge_map

N, D, T, L = 400, 7, 6, 3


def pairs(*, captions: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of four hidden causes, with noise, unequal variances and a mean."""
    draw = np.random.default_rng(5)
    hidden = draw.normal(size=(N, 4)) * [3, 2, 1, 0.5]
    image = hidden @ draw.normal(size=(4, D)) + draw.normal(size=(N, D)) + 4
    text = (hidden @ draw.normal(size=(4, T)))[:, None] + draw.normal(size=(N, captions, T)) - 3
    return torch.tensor(image).float(), torch.tensor(text).float()


def canonical_correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Björck and Golub 1973: the singular values of Qx' Qy."""
    bases = [np.linalg.qr(side - side.mean(0))[0] for side in (x, y)]
    return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)


def test_without_shrinkage_it_is_canonical_correlation() -> None:
    image, text = pairs()
    maps = canonical_maps(image, text, dim=5, image_shrinkage=1e-9, text_shrinkage=1e-9)
    left = (image - image.mean(0)).numpy().astype(float) @ maps.image_ED.numpy().T.astype(float)
    right = (text - text.mean((0, 1)))[:, 0].numpy().astype(float) @ maps.text_ET.numpy().T.astype(float)
    expected = canonical_correlations(image.numpy().astype(float), text[:, 0].numpy().astype(float))[:5]
    found = np.corrcoef(left.T, right.T)
    np.testing.assert_allclose(np.diag(found[:5, 5:]), expected, atol=1e-4)  # best first
    for block in (found[:5, :5], found[5:, 5:], found[:5, 5:]):  # each direction correlates with its twin alone
        np.testing.assert_allclose(block - np.diag(np.diag(block)), 0, atol=1e-3)
    for side in (left, right):  # each is weighted by the root of its correlation
        deviation = side.std(0)
        np.testing.assert_allclose(deviation / deviation[0], np.sqrt(expected / expected[0]), rtol=1e-3)


@pytest.mark.parametrize("shrinkage", [1e-6, 0.3, 5.0])
def test_embeddings_have_mean_length_one(shrinkage: float) -> None:
    image, text = pairs(captions=L)
    maps = canonical_maps(image, text, dim=4, image_shrinkage=shrinkage, text_shrinkage=shrinkage)
    assert maps.image_ED.shape == (4, D) and maps.text_ET.shape == (4, T)
    lengths = ((image - image.mean(0)) @ maps.image_ED.T).norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1, rel=1e-4)
    captions = (text - text.mean((0, 1))).flatten(0, 1)
    assert (captions @ maps.text_ET.T).norm(dim=1).mean().item() == pytest.approx(1, rel=1e-4)


def test_it_does_not_depend_on_scale_and_mean_of_the_features() -> None:
    image, text = pairs(captions=L)
    one = canonical_maps(image, text, dim=4, image_shrinkage=0.5, text_shrinkage=0.5)
    two = canonical_maps(image * 8 + 3, text * 4 - 7, dim=4, image_shrinkage=0.5, text_shrinkage=0.5)
    sign = (one.image_ED * two.image_ED).sum(1).sign()[:, None]
    torch.testing.assert_close(two.image_ED * sign * 8, one.image_ED, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(two.text_ET * sign * 4, one.text_ET, rtol=1e-3, atol=1e-5)


def test_directions_in_which_translations_differ_are_weakened() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, 2, generator=draw)
    image = hidden + 0.1 * torch.randn(N, 2, generator=draw)
    text = hidden[:, None].repeat(1, L, 1)
    text[..., 1] += 3 * torch.randn(N, L, generator=draw)
    maps = canonical_maps(image, text, dim=2, image_shrinkage=1e-6, text_shrinkage=1e-6)
    steady, wavering = maps.text_ET.norm(dim=0)
    assert wavering < 0.5 * steady


def test_more_shrinkage_trusts_weak_directions_less() -> None:
    image, text = pairs()
    image[:, 0] *= 1e-3
    sizes = [
        canonical_maps(image, text, dim=4, image_shrinkage=shrinkage, text_shrinkage=0.3).image_ED[:, 0].norm().item()
        for shrinkage in (1e-6, 1e-3, 1.0)
    ]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


@pytest.mark.parametrize(("count", "dim"), [(1, 2), (N, 7)])
def test_too_little_to_start_from(count: int, dim: int) -> None:
    image, text = pairs()
    with pytest.raises(VlkitError) as error:
        canonical_maps(image[:count], text[:count], dim=dim, image_shrinkage=1.0, text_shrinkage=1.0)
    assert str(error.value) == (
        f"a warm start of {dim} dimensions needs at least 2 pairs and features as wide: there are {count} pairs of 7 "
        f"and 6 wide features; lower model.embed_dim"
    )


@pytest.mark.parametrize("ridge", [1e-6, 0.1, 10.0])
def test_ridge_map_solves_the_normal_equations(ridge: float) -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(40, 6)), draw.normal(size=(40, 3))
    weights = np.linalg.inv(x.T @ x + ridge * np.trace(x.T @ x) / 6 * np.eye(6)) @ x.T @ y
    found = ridge_map(torch.tensor(x).float(), torch.tensor(y).float(), ridge=ridge)
    expected = weights / np.linalg.norm(x @ weights, axis=1).mean()
    np.testing.assert_allclose(found.T.numpy(), expected, rtol=1e-3, atol=1e-6)
    assert (torch.tensor(x).float() @ found.T).norm(dim=1).mean().item() == pytest.approx(1, rel=1e-4)


def test_class_embeddings_keep_the_angles_of_the_rows() -> None:
    rows = torch.randn(12, 5, generator=torch.Generator().manual_seed(3)) + 2
    embedded = class_embeddings(rows, dim=5)
    centred = torch.nn.functional.normalize(rows - rows.mean(0), dim=-1)
    torch.testing.assert_close(embedded @ embedded.T, centred @ centred.T, atol=1e-5, rtol=1e-5)
    fewer = class_embeddings(rows, dim=3)
    assert fewer.shape == (12, 3)
    torch.testing.assert_close(fewer.norm(dim=1), torch.ones(12))
