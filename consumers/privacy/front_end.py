"""The ×8 block-DCT front end of DuetFace, PartialFace, DCTDP and MinusFace, and its inverse, each as one linear map.

Source: TFace (consumers.md §0.1): bilinear ×8 enlargement with aligned corners, JPEG full-range YCbCr minus 128, orthonormal 8×8 DCT-II of each block;
channel 64·plane + 8u + v (u vertical, v horizontal frequency, raster order). Enlargement and DCT are separable and linear, so channel (u, v) of a plane X
is R_u X R_vᵀ, and row i of R_u touches columns i-1, i, i+1 only. The inverse samples the blocks' pixels at positions that never leave block (i, j): it is one
weighted sum over the 64 channels of a position. Linear also means invertible by least squares from a few channels: see `attacks`.
Axes: B faces, K channels a plane, n side of the face in pixels and of the map in blocks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ...core.check import check

FREQUENCIES = 8
CHANNELS = 64
LARGEST = 1025.0
"""Bound on any coefficient of an 8×8 block within ±128: 8·128 and a little for rounding."""
_TAPS = 3
_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def to_ycc(image_BCHW: Tensor) -> Tensor:
    """RGB in [-1, 1] → Y, Cb, Cr on the 0…255 scale, each minus 128 (grey 127.5 gives -0.5, 0, 0)."""
    plane_BCHW = torch.einsum("pc,bchw->bphw", image_BCHW.new_tensor(_YCC), (image_BCHW + 1.0) * 127.5)
    # Cb and Cr carry an offset of 128 that is taken off again.
    return plane_BCHW - image_BCHW.new_tensor((128.0, 0.0, 0.0))[:, None, None]


def from_ycc(plane_BCHW: Tensor) -> Tensor:
    """Inverse of `to_ycc`, except that RGB comes in [0, 1] (not clamped)."""
    luma = plane_BCHW.new_tensor((128.0, 0.0, 0.0))[:, None, None]
    return torch.einsum("cp,bphw->bchw", plane_BCHW.new_tensor(_RGB), plane_BCHW + luma) / 255.0


def forward_dct(image_BCHW: Tensor, code_BK: Tensor | None = None) -> Tensor:
    """Faces in [-1, 1], (B, 3, n, n) → coefficients (B, 3K, n, n), plane after plane; gradients pass.

    Args:
        code_BK: channels 8u + v that each face sends of every plane, in order, int64 (B, K) or (1, K) for all; None = all 64.
    """
    n = check("image_BCHW", image_BCHW, "B 3 n n")["n"]
    if code_BK is None:
        code_BK = torch.arange(CHANNELS)[None]
    return _Expand.apply(to_ycc(image_BCHW), code_BK.cpu().expand(len(image_BCHW), -1), n)


def inverse_dct(coefficient_BCHW: Tensor, *, clamp: bool = True) -> Tensor:
    """Coefficients (B, 192, n, n) → RGB in [0, 1], (B, 3, n, n); gradients pass.

    Affine before the clamp: zero coefficients give 128/255 in every channel. `inverse_dct(forward_dct(x))` is x to about 50 dB on a face.
    """
    n = check("coefficient_BCHW", coefficient_BCHW, "B 192 n n")["n"]
    weight = inverse_weights(n).to(coefficient_BCHW)
    plane_BCHW = (coefficient_BCHW.unflatten(1, (3, CHANNELS)) * weight).sum(2)
    image_BCHW = from_ycc(plane_BCHW)
    return image_BCHW.clamp(0.0, 1.0) if clamp else image_BCHW


def spread(sent_BCHW: Tensor, code_BK: Tensor) -> Tensor:
    """Put K channels a plane at their places among 64, zeros elsewhere: (B, 3K, n, n) → (B, 192, n, n)."""
    planes = sent_BCHW.unflatten(1, (3, -1))
    full = planes.new_zeros((len(planes), 3, CHANNELS, *planes.shape[3:]))
    place = code_BK.to(planes.device)[:, None, :, None, None].expand_as(planes)
    return full.scatter_(2, place, planes).flatten(1, 2)


@lru_cache(maxsize=8)
def axis_matrices(n: int) -> np.ndarray:
    """R, float64 (8, n, n): channel (u, v) of a plane X is R[u] @ X @ R[v].T. Enlargement by 8, blocks of 8, DCT."""
    sample = np.arange(8 * n)
    position = sample * (n - 1) / (8 * n - 1)
    below = np.minimum(position.astype(int), n - 2)
    enlarge = np.zeros((8 * n, n))
    enlarge[sample, below] = 1.0 - (position - below)
    enlarge[sample, below + 1] = position - below
    matrices = np.einsum("uk,ikj->uij", dct_matrix(), enlarge.reshape(n, 8, n))
    matrices.setflags(write=False)
    return matrices


def dct_matrix() -> np.ndarray:
    """Orthonormal 8×8 DCT-II, float64: row u = frequency."""
    frequency, place = np.arange(8)[:, None], np.arange(8)[None]
    return 0.5 * np.where(frequency == 0, math.sqrt(0.5), 1.0) * np.cos((2 * place + 1) * frequency * math.pi / 16)


@lru_cache(maxsize=8)
def inverse_weights(n: int) -> Tensor:
    """Weight of each channel at each position of the inverse, float64 (64, n, n)."""
    position = np.arange(n) * (8 * n - 1) / (n - 1)
    below = np.minimum(position.astype(int), 8 * n - 2)
    share = position - below
    # Output pixel s lies between pixels `below` and `below + 1` of the large picture, both inside block s.
    dct = dct_matrix()
    axis = dct[:, below - 8 * np.arange(n)] * (1 - share) + dct[:, below + 1 - 8 * np.arange(n)] * share
    return torch.from_numpy(np.einsum("us,vt->uvst", axis, axis).reshape(CHANNELS, n, n))


class _Expand(torch.autograd.Function):
    """Plane X (B, P, n, n) → R_u X R_vᵀ for each face's channels, (B, P·K, n, n)."""

    @staticmethod
    def forward(ctx: Any, plane_BPHW: Tensor, code_BK: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(code_BK)
        ctx.side = n
        if plane_BPHW.device.type == "cpu" and plane_BPHW.dtype == torch.float32:
            # numpy's memory comes in large pages: three times faster to fill for the first time than torch's.
            out = np.empty((len(plane_BPHW), plane_BPHW.shape[1] * code_BK.shape[1], n, n), np.float32)
            _expand(plane_BPHW.detach().contiguous().numpy(), _bands(n), code_BK.contiguous().numpy(), out)
            return torch.from_numpy(out)
        left, right = _sides(code_BK, n, plane_BPHW)
        return (left[:, None] @ plane_BPHW[:, :, None] @ right[:, None].transpose(-1, -2)).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (code_BK,) = ctx.saved_tensors
        grad = grads[0].unflatten(1, (-1, code_BK.shape[1]))
        left, right = _sides(code_BK, ctx.side, grad)
        return (left[:, None].transpose(-1, -2) @ grad @ right[:, None]).sum(2), None, None


def _sides(code_BK: Tensor, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """R_u and R_v of each channel, (B, K, n, n) each."""
    table = torch.from_numpy(np.array(axis_matrices(n))).to(like)
    code_BK = code_BK.to(like.device)
    return table[code_BK // 8], table[code_BK % 8]


@lru_cache(maxsize=8)
def _bands(n: int) -> np.ndarray:
    """The three diagonals of R_u, float32 (8, 3, n): [u, k, i] = R[u, i, i + k - 1], 0 outside."""
    padded = np.pad(axis_matrices(n), ((0, 0), (0, 0), (1, 1)))
    row = np.arange(n)
    return np.stack([padded[:, row, row + k] for k in range(_TAPS)], axis=1).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _expand(plane: np.ndarray, band: np.ndarray, code: np.ndarray, out: np.ndarray) -> None:
    """Fill out[b, p·K + k] = R_u plane[b, p] R_vᵀ with u, v = divmod(code[b, k], 8)."""
    faces, planes, n, _ = plane.shape
    count = code.shape[1]
    row = np.zeros(n + 2, np.float32)
    for b in range(faces):
        for p in range(planes):
            for k in range(count):
                u, v = code[b, k] // 8, code[b, k] % 8
                target = out[b, p * count + k]
                for i in range(n):
                    above, below = max(i - 1, 0), min(i + 1, n - 1)  # at the edges the weight is 0
                    first, middle, last = band[u, 0, i], band[u, 1, i], band[u, 2, i]
                    for j in range(n):
                        row[j + 1] = first * plane[b, p, above, j] + middle * plane[b, p, i, j] + last * plane[b, p, below, j]
                    for j in range(n):
                        target[i, j] = band[v, 0, j] * row[j] + band[v, 1, j] * row[j + 1] + band[v, 2, j] * row[j + 2]
