"""What a face's pixels tell at a glance: a 64-bit perceptual hash and proxies for its light. A batch at a time, some 20 µs an image.

Axes: B images. Everything rests on the luminance of 28x28 blocks of 4x4 pixels.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

SIDE = 28
LIGHT = ("brightness", "contrast", "left_right", "up_down")
"""Names of the proxies of `light_proxies`."""


def luminance(image_BCHW: Tensor) -> np.ndarray:
    """float RGB in [-1, 1], (B, 3, 112, 112) → Rec. 601 luminance in [0, 1] of 4x4 blocks, float32 (B, 28, 28)."""
    block_BCHW = torch.nn.functional.avg_pool2d(image_BCHW.float(), image_BCHW.shape[2] // SIDE)
    weight_C = block_BCHW.new_tensor([0.299, 0.587, 0.114])
    return ((block_BCHW * weight_C[:, None, None]).sum(dim=1) * 0.5 + 0.5).cpu().numpy()


def perceptual_hash(light_BHW: np.ndarray) -> np.ndarray:
    """64-bit DCT hash, uint64 (B,): which of the 8x8 lowest coefficients that vary in both directions exceed their median.

    The first row and column (mean, pure left-right and pure up-down) are left out: on aligned faces they are nearly the same for everybody. Measured
    on real faces: JPEG 20 to 90, halved resolution and noise move at most 6 bits, a shift by one pixel at most 8 (400 faces); of the pairs of different
    people among 2,000 faces 7 in a million lie within 6 bits. It is no other library's hash: compare only with itself.
    """
    basis_KX = _cosines()
    low_BKK = np.einsum("kx,bxy,ly->bkl", basis_KX, light_BHW, basis_KX, optimize=True).reshape(len(light_BHW), 64)
    bit_BK = low_BKK > np.median(low_BKK, axis=1, keepdims=True)
    return np.packbits(bit_BK, axis=1).view(">u8").astype(np.uint64).ravel()


def light_proxies(light_BHW: np.ndarray) -> np.ndarray:
    """Proxies for the light on a face, float32 (B, 4), in the order of LIGHT; no light is measured, and hair, beard and make-up count too.

    brightness: mean luminance. contrast: its standard deviation. left_right, up_down: slope of the least-squares plane through the luminance (the linear
    terms of a spherical-harmonic fit on a frontal face), as the difference between the two edges over the mean; left and up are positive, in image terms.
    """
    mean_B = light_BHW.mean(axis=(1, 2))
    ramp_X = np.linspace(0.5, -0.5, SIDE, dtype=np.float32)
    slope_B2 = np.stack([light_BHW.mean(axis=1) @ ramp_X, light_BHW.mean(axis=2) @ ramp_X], axis=1) / (ramp_X**2).sum()
    lit_B = np.maximum(mean_B, 1.0 / 255)
    return np.column_stack([mean_B, light_BHW.std(axis=(1, 2)), slope_B2 / lit_B[:, None]]).astype(np.float32)


@functools.cache
def _cosines() -> np.ndarray:
    k, x = np.arange(1, 9)[:, None], np.arange(SIDE)[None, :]
    return np.cos(k * (2 * x + 1) * np.pi / (2 * SIDE)).astype(np.float32)
