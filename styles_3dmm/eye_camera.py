"""The camera before a close-up: lamps that fall off, a colour cast, what lies beyond the face, focus, motion, noise.

Axes: H W pixels.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d


def photograph(colour_HW3: np.ndarray, rng: np.random.Generator, *, infrared: bool, augment: bool) -> np.ndarray:
    """Return the picture, uint8 (H, W, 3), of albedo times shade, float32 (H, W, 3), which is overwritten."""
    size = colour_HW3.shape[:2]
    if augment and rng.random() < 0.35:
        _beyond_the_face(colour_HW3, rng, infrared)
    colour_HW3 *= _lamps(rng, size, augment)[..., None]
    if augment:
        colour_HW3 = defocus(colour_HW3, float(rng.exponential(0.0025 if infrared else 0.0014) * size[1]) if rng.random() < 0.8 else 0.0)
        if rng.random() < 0.2:
            colour_HW3 = smear(colour_HW3, float(rng.uniform(0.003, 0.02) * size[1]), float(rng.uniform(0, np.pi)))
    if infrared:
        colour_HW3 *= np.exp(rng.normal(-0.75, 0.4)) if augment else 0.6
    elif augment:
        cast_3 = np.exp(rng.normal(0, 0.06, 3) + rng.choice([0.0, 1.0], p=[0.75, 0.25]) * np.array([0.08, -0.22, 0.1]))
        colour_HW3 *= (np.exp(rng.normal(-0.15, 0.45)) * cast_3).astype(np.float32)
    gamma, lift, noise = (rng.uniform(0.8, 1.25), rng.uniform(0, 0.05), rng.uniform(0.002, 0.012 if infrared else 0.025)) if augment else (1.0, 0.0, 0.004)
    grain_HWC = rng.standard_normal((*size, 1 if infrared else 3), np.float32) * np.float32(noise)
    seen_HW3 = np.maximum(colour_HW3, 0.0) ** np.float32(gamma) * np.float32(1 - lift) + np.float32(lift) + grain_HWC
    return (np.clip(seen_HW3, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def defocus(colour_HW3: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the picture out of focus by a Gaussian; less than a quarter of a pixel is none."""
    if sigma_px < 0.25:
        return colour_HW3
    for axis in (0, 1):
        colour_HW3 = gaussian_filter1d(colour_HW3, sigma_px, axis=axis, mode="nearest", truncate=3.0)
    return colour_HW3


def smear(colour_HW3: np.ndarray, length_px: float, angle: float) -> np.ndarray:
    """Return the picture moved by `length_px` along `angle` while the shutter was open; the middle of the way stays in place."""
    count = max(int(length_px) | 1, 3)
    along_S = np.linspace(-0.5, 0.5, count) * length_px
    step_S2 = np.rint(np.stack([along_S * np.sin(angle), along_S * np.cos(angle)], -1)).astype(int)
    edge, (height, width) = int(np.abs(step_S2).max()), colour_HW3.shape[:2]
    wide = np.pad(colour_HW3, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    total = np.zeros_like(colour_HW3)
    for down, right in step_S2:
        total += wide[edge + down : edge + down + height, edge + right : edge + right + width]
    return total / np.float32(count)


def _lamps(rng: np.random.Generator, size: tuple[int, int], augment: bool) -> np.ndarray:
    """Brightness over the picture, (H, W): a slope and a spot, both wide."""
    y, x = (np.linspace(-1, 1, count, dtype=np.float32) for count in size)
    slope_x, slope_y = rng.normal(0, 0.25 if augment else 0.1, 2)
    even = np.float32(rng.uniform(0.25, 1.0) if augment else 0.9)
    spot_x, spot_y = rng.normal(0, 0.5, 2)
    breadth = rng.uniform(0.5, 2.0)
    spot = np.exp(-(((y - spot_y) / breadth) ** 2))[:, None] * np.exp(-(((x - spot_x) / breadth) ** 2))[None]
    if augment and rng.random() < 0.1:  # a rolling shutter under a flickering lamp
        even = even * np.where(y[:, None] > rng.uniform(-0.8, 0.8), np.float32(rng.uniform(0.6, 1.5)), np.float32(1.0))
    return np.maximum((1 + slope_y * y[:, None] + slope_x * x[None]) * (even + (1.15 - even) * spot), 0.05).astype(np.float32)


def _beyond_the_face(colour_HW3: np.ndarray, rng: np.random.Generator, infrared: bool) -> None:
    """Lay something that is no skin over one side or corner: hair, background, the rim of a headset."""
    height, width = colour_HW3.shape[:2]
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    angle, softness = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.12)
    apart_HW = np.cos(angle) * x + np.sin(angle) * y - rng.uniform(0.75, 1.25) + 0.06 * np.sin(x * rng.uniform(2, 9) + y * rng.uniform(2, 9))
    cover_HW1 = (1 / (1 + np.exp(-np.clip(apart_HW / softness, -30, 30))))[..., None].astype(np.float32)
    tone_3 = rng.uniform(0, 0.25) * (np.ones(3) if infrared else rng.uniform(0.6, 1.4, 3))
    colour_HW3 += cover_HW1 * (tone_3.astype(np.float32) - colour_HW3)
