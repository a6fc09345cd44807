"""Pixels to light and skin: what shines on a fitted head and how its skin sends it back.

Shaded skin is tone · Σ_k light_k H_k(normal), so tone and light enter as a product a channel: nine products are found by linear least squares on the
visible skin, robustly (Huber weights: hair, glasses, shadows and highlights are no Lambertian skin), then divided by Bayes' rule between a skin of the known range
of human skin and a light of nearly no colour. Tone and brightness of one picture cannot be told apart better than such a prior.
Axes: N faces, Q sampled pixels, 9 harmonics, 3 channels; colours are the picture's own sRGB numbers in [0, 1], as in `render`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.check import check
from ..core.progress import track
from .fit import Fit
from .light import LAMBERT_9, sh_basis
from .morphable import PARTS, MorphableHead
from .render import render

SKIN_MEAN_RGB = np.array([0.74, 0.56, 0.47])
"""Albedo of the middle of the range of human skin, sRGB numbers."""

_SKIN_SLOPE = np.array([0.22, 0.31, 0.36])
"""One standard deviation from the middle towards dark skin, as logarithms: blue falls fastest."""
_SKIN_OWN = 0.05
_LIGHT_LEVEL = 0.85
_LIGHT_SPREAD, _LIGHT_COLOUR = 0.30, 0.12
_BLOCK = 64
_STRIDE = 2
_ROBUST_ROUNDS = 4
_SIDEWAYS = 0.15
_NEAREST_TO_FRONT = 0.75


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """Light and skin of fitted faces.

    Attributes:
        light_N93: coefficients of `light`.
        tone_N3: skin albedo, sRGB numbers in [0, 1].
        error_N: root of the robust mean squared error of the explained pixels; 1 = from black to white.
        pixels_N: number of skin pixels it rests on.
    """

    light_N93: np.ndarray
    tone_N3: np.ndarray
    error_N: np.ndarray
    pixels_N: np.ndarray


def fit_appearance(head: MorphableHead, fit: Fit, image_NHWC: np.ndarray, *, ridge: float = 0.02) -> Appearance:
    """Fit light and skin tone to the faces.

    Args:
        fit: of the same faces, in the pixels of the images.
        image_NHWC: uint8 RGB, square.
        ridge: pull of the directional light towards 0, per pixel; keeps what the visible normals do not show from growing.
    """
    check("image_NHWC", image_NHWC, f"{len(fit)} H H 3")
    parts = []
    for start in track(range(0, len(fit), _BLOCK), "light and skin"):
        rows = slice(start, start + _BLOCK)
        basis_NQ9, use_NQ = _skin(head, fit, rows, image_NHWC.shape[1])
        colour_NQ3 = image_NHWC[rows, ::_STRIDE, ::_STRIDE].reshape(len(use_NQ), -1, 3).astype(np.float32) / 255.0
        use_NQ &= (colour_NQ3.max(2) < 0.985) & (colour_NQ3.max(2) > 0.02)
        parts.append(_solve(basis_NQ9, use_NQ, colour_NQ3, ridge))
    if not parts:
        return Appearance(light_N93=np.empty((0, 9, 3), np.float32), tone_N3=np.empty((0, 3), np.float32), error_N=np.empty(0, np.float32), pixels_N=np.empty(0, np.int64))
    product_N93, error_N, mean_N3, pixels_N = (np.concatenate(column) for column in zip(*parts))
    tone_N3 = divide(mean_N3)
    return Appearance(light_N93=(product_N93 / tone_N3[:, None]).astype(np.float32), tone_N3=tone_N3.astype(np.float32), error_N=error_N.astype(np.float32), pixels_N=pixels_N)


def divide(shaded_N3: np.ndarray) -> np.ndarray:
    """Return the likeliest skin albedo, (N, 3), behind mean colours of shaded skin: both skin and light are log-normal."""
    skin_33 = np.outer(_SKIN_SLOPE, _SKIN_SLOPE) + np.eye(3) * _SKIN_OWN**2
    light_33 = np.full((3, 3), _LIGHT_SPREAD**2) + np.eye(3) * _LIGHT_COLOUR**2
    share_33 = skin_33 @ np.linalg.inv(skin_33 + light_33)
    beyond_N3 = np.log(np.maximum(shaded_N3, 1e-3)) - np.log(SKIN_MEAN_RGB) - np.log(_LIGHT_LEVEL)
    return np.clip(np.exp(np.log(SKIN_MEAN_RGB) + beyond_N3 @ share_33.T), 0.02, 1.0)


def _skin(head: MorphableHead, fit: Fit, rows: slice, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Basis of the sampled pixels, (N, Q, 9) float32, and which of them show the face's skin, (N, Q)."""
    vertices_NV3 = head.vertices(fit.identity_NK[rows], fit.expression_NE[rows])
    picture = render(head, vertices_NV3, fit.camera(rows), fit.pose_N3[rows], albedo=_front(head), size_px=side, layers=("normals", "albedo"))
    normal_NQ3 = picture.normals[:, ::_STRIDE, ::_STRIDE].reshape(len(vertices_NV3), -1, 3)
    front_NHW = (picture.parts == 1 + PARTS.index("skin")) & (picture.albedo[..., 0] > _NEAREST_TO_FRONT)
    use_NQ = front_NHW[:, ::_STRIDE, ::_STRIDE].reshape(len(vertices_NV3), -1) & (normal_NQ3[..., 2] > _SIDEWAYS)
    return sh_basis(normal_NQ3).astype(np.float32), use_NQ


def _front(head: MorphableHead) -> np.ndarray:
    """1 at vertices of the face, 0 at ears, neck and upper forehead (hair hangs there), as an albedo (1, V, 3): the renderer carries it to the pixels."""
    point_L3, (_, y_V, z_V) = head.mean_V3[head.landmark_68], head.mean_V3.T
    top, bottom = point_L3[:, 1].min(), point_L3[:, 1].max()
    # A quarter of dlib's points, the sides of the jaw line, lie farther back than the face's own skin.
    inside_V = (y_V > top - 0.2 * (bottom - top)) & (y_V < bottom) & (z_V > np.quantile(point_L3[:, 2], 0.25))
    return np.repeat(inside_V.astype(np.float32)[None, :, None], 3, axis=2)


def _solve(basis_NQ9: np.ndarray, use_NQ: np.ndarray, colour_NQ3: np.ndarray, ridge: float) -> tuple[np.ndarray, ...]:
    """(products of tone and light, robust error, mean shaded colour, pixels) of a block."""
    pull_9 = ridge * np.where(np.arange(9) > 0, np.square(LAMBERT_9[0]), 1e-4).astype(np.float32)
    count_N = use_NQ.sum(1)
    weight_NQ = use_NQ.astype(np.float32)
    for _ in range(_ROBUST_ROUNDS):
        weighted_NQ9 = basis_NQ9 * weight_NQ[:, :, None]
        total_N = np.maximum(weight_NQ.sum(1), 1e-6)[:, None, None]
        normal_N99 = np.swapaxes(weighted_NQ9, 1, 2) @ basis_NQ9 / total_N + np.diag(pull_9)
        product_N93 = np.linalg.solve(normal_N99, np.swapaxes(weighted_NQ9, 1, 2) @ colour_NQ3 / total_N)
        shaded_NQ3 = basis_NQ9 @ product_N93
        error_NQ = np.abs(shaded_NQ3 - colour_NQ3).mean(2)
        scale_N = _median(error_NQ, use_NQ)
        weight_NQ = use_NQ * np.minimum(1.0, 1.5 * scale_N[:, None] / np.maximum(error_NQ, 1e-6))
    error_N = np.sqrt((weight_NQ * error_NQ**2).sum(1) / np.maximum(weight_NQ.sum(1), 1e-6))
    mean_N3 = (shaded_NQ3 * weight_NQ[:, :, None]).sum(1) / np.maximum(weight_NQ.sum(1), 1e-6)[:, None]
    return product_N93, error_N, mean_N3, count_N


def _median(value_NQ: np.ndarray, use_NQ: np.ndarray) -> np.ndarray:
    """Median over the used pixels of each row; 1 where there are none."""
    with np.errstate(all="ignore"):
        hidden_NQ = np.sort(np.where(use_NQ, value_NQ, np.inf), axis=1)
    middle_N = np.maximum(use_NQ.sum(1) // 2, 0)
    found_N = hidden_NQ[np.arange(len(hidden_NQ)), middle_N.clip(max=hidden_NQ.shape[1] - 1)]
    return np.where(np.isfinite(found_N), np.maximum(found_N, 1e-3), 1.0)
