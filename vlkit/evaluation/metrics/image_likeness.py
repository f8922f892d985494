"""How alike images are, pixel by pixel: peak signal-to-noise ratio and structural similarity, of each image.

Source of SSIM: Wang et al. 2004 (DOI 10.1109/TIP.2003.819861, equation 13 and section III-C): a Gaussian window of 11
pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, places where the window does not fit left out, mean over channels.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from torch import Tensor

from vlkit.errors import ShapeError

_WINDOW, _SIGMA = 11, 1.5
_SMALLEST = 1e-10  # mean squared error of images that are equal: 100 dB


def psnr(images_NCHW: Tensor, others_NCHW: Tensor) -> Tensor:
    """10 log10(1 / mean squared error) in dB of each image, float64 [N], of values in 0..1; equal images have 100."""
    _check_alike(images_NCHW, others_NCHW)
    squares_N = (images_NCHW.double() - others_NCHW.double()).square().flatten(1).mean(dim=1)
    return -10 * squares_N.clamp(min=_SMALLEST).log10()


def ssim(images_NCHW: Tensor, others_NCHW: Tensor) -> Tensor:
    """Structural similarity of each image, float64 [N] up to 1, of values in 0..1.

    Raises:
        ShapeError: Two shapes, or images smaller than the window.
    """
    _check_alike(images_NCHW, others_NCHW)
    if min(images_NCHW.shape[-2:]) < _WINDOW:
        raise ShapeError(f"SSIM looks at {_WINDOW} x {_WINDOW} pixels, and these images are {images_NCHW.shape[-2:]}")
    x_NCHW, y_NCHW = images_NCHW.double(), others_NCHW.double()
    mean_x, mean_y = _blurred(x_NCHW), _blurred(y_NCHW)
    var_x, var_y = _blurred(x_NCHW**2) - mean_x**2, _blurred(y_NCHW**2) - mean_y**2
    cov = _blurred(x_NCHW * y_NCHW) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    alike_NCHW = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return alike_NCHW.flatten(1).mean(dim=1)


def _blurred(x_NCHW: Tensor) -> Tensor:
    places = torch.arange(_WINDOW, dtype=torch.float64, device=x_NCHW.device) - _WINDOW // 2
    window = torch.exp(-(places**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    flat_N1HW = x_NCHW.flatten(0, 1).unsqueeze(1)
    blurred = F.conv2d(F.conv2d(flat_N1HW, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    return blurred.view(*x_NCHW.shape[:2], *blurred.shape[-2:])


def _check_alike(images_NCHW: Tensor, others_NCHW: Tensor) -> None:
    if images_NCHW.shape != others_NCHW.shape or images_NCHW.ndim != 4:
        raise ShapeError(
            f"images {list(images_NCHW.shape)} and {list(others_NCHW.shape)} must be of one shape [N, C, H, W]"
        )
