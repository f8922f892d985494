"""PSNR and SSIM of each image, against scikit-image."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vlkit.errors import ShapeError
from vlkit.evaluation.metrics.image_likeness import psnr, ssim


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 20, 24, generator=generator)
    noise = torch.randn(images.shape, generator=generator) * torch.tensor([0.01, 0.1, 0.4]).view(3, 1, 1, 1)
    return images, (images + noise).clamp(0, 1)


def test_they_are_those_of_scikit_image() -> None:
    images, others = pair()
    for one, other, noise, alike in zip(images, others, psnr(images, others), ssim(images, others), strict=True):
        x, y = one.double().numpy(), other.double().numpy()
        assert noise.item() == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1.0), abs=1e-9)
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        assert alike.item() == pytest.approx(structural_similarity(x, y, channel_axis=0, **settings), abs=1e-9)


def test_of_an_image_and_itself() -> None:
    images, _ = pair()
    assert torch.equal(psnr(images, images), torch.full((3,), 100.0, dtype=torch.float64))
    torch.testing.assert_close(ssim(images, images), torch.ones(3, dtype=torch.float64))


def test_images_of_two_shapes_or_too_small_are_refused() -> None:
    images, others = pair()
    with pytest.raises(ShapeError, match=r"images \[3, 3, 20, 24\] and \[3, 3, 20, 12\] must be of one shape"):
        psnr(images, others[..., :12])
    with pytest.raises(ShapeError, match="SSIM looks at 11 x 11 pixels"):
        ssim(images[..., :8], others[..., :8])
