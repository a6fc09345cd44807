"""How much of a picture an attack got back: PSNR and SSIM, one number an image (consumers.md §9).

Axes: B images, C H W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.check import check

WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(found_BCHW: Tensor, true_BCHW: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / MSE) over all channels of RGB in [0, 1], (B,); inf for equal images. Average it over images."""
    _check_pair(found_BCHW, true_BCHW)
    error_B = (found_BCHW.double() - true_BCHW.double()).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error_B)


def ssim(found_BCHW: Tensor, true_BCHW: Tensor) -> Tensor:
    """Structural similarity, (B,), in [-1, 1]: Wang et al., IEEE TIP 2004, 11x11 Gaussian window of σ = 1.5, data range 1, mean over channels and all whole windows."""
    _check_pair(found_BCHW, true_BCHW)
    x, y = found_BCHW.double(), true_BCHW.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    both = _blur(x * y) - mean_x * mean_y
    like = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1) * (2 * both + _C2) / (var_x + var_y + _C2)
    return like.flatten(1).mean(1)


def _check_pair(found_BCHW: Tensor, true_BCHW: Tensor) -> None:
    sizes = check("true_BCHW", true_BCHW, "B C H W", lo=0.0, hi=1.0)
    check("found_BCHW", found_BCHW, f"{sizes['B']} {sizes['C']} {sizes['H']} {sizes['W']}", lo=0.0, hi=1.0)


def _blur(x_BCHW: Tensor) -> Tensor:
    place = torch.arange(WINDOW, dtype=x_BCHW.dtype, device=x_BCHW.device) - WINDOW // 2
    tap = torch.exp(-(place**2) / (2 * SIGMA**2))
    tap = tap / tap.sum()
    flat = x_BCHW.flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, tap[None, None, :, None]), tap[None, None, None, :]).unflatten(0, x_BCHW.shape[:2])[:, :, 0]
