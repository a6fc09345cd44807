"""Resampling of images as tensors, with the one kind that torch lacks: Lanczos.

As OpenCV's and torch's own kinds, Lanczos does not smooth before it shrinks (that is what "area" is for): shrinking by it aliases, and small faces made
so are among those that the published augmentation shows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

LOBES = 4
"""Half width of the kernel in pixels of the source, as OpenCV's INTER_LANCZOS4."""


def resized(image_BCHW: Tensor, size_hw: tuple[int, int], kind: str) -> Tensor:
    """Return the images at another height and width; `kind` is "lanczos" or a mode of `torch.nn.functional.interpolate`.

    Values may overshoot the range of the source ("bicubic", "lanczos").
    """
    if kind != "lanczos":
        return F.interpolate(image_BCHW, size_hw, mode=kind)
    height, width = image_BCHW.shape[2:]
    tall = lanczos_weights(height, size_hw[0]).to(image_BCHW)
    wide = lanczos_weights(width, size_hw[1]).to(image_BCHW)
    return tall @ image_BCHW @ wide.T


@lru_cache(maxsize=512)
def lanczos_weights(source: int, target: int) -> Tensor:
    """Return the weights of the source's pixels in each pixel of the target, (target, source) float32; rows sum to 1, the border pixel repeats beyond the edge."""
    centre_T = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    tap_L = torch.arange(1 - LOBES, LOBES + 1)
    place_TL = centre_T.floor().long()[:, None] + tap_L
    offset_TL = centre_T[:, None] - place_TL
    weight_TL = torch.sinc(offset_TL) * torch.sinc(offset_TL / LOBES)
    weight_TL /= weight_TL.sum(1, keepdim=True)
    return torch.zeros(target, source, dtype=torch.float64).scatter_add_(1, place_TL.clamp(0, source - 1), weight_TL).float()
