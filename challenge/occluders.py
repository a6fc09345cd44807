"""Drawn occluders on aligned faces: masks, sunglasses, bars; deterministic by seed, for benchmarks of robustness.

They stand where the five points of the ArcFace template stand; an aligned face needs no landmarks of its own. Drawn, not photographed: a
recogniser's loss on them is a lower bound of nothing, only a comparison between recognisers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..core.check import check
from ..core.errors import UserError, near_names
from ..core.seeds import numpy_rng

_OVER = 4  # drawn this much larger, then shrunk: smooth edges
_LEFT_EYE, _RIGHT_EYE, _NOSE = (38.3, 51.7), (73.5, 51.5), (56.0, 71.7)


def occlude(image_HWC: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Return a copy of an aligned uint8 face, (112, 112, 3), with an occluder: "mask", "sunglasses" or "bar".

    Colour, size and place vary with the seed and nothing else.
    """
    check("image_HWC", image_HWC, "112 112 3")
    if kind not in OCCLUDERS:
        raise UserError(f"unknown occluder '{kind}'; {near_names(kind, OCCLUDERS)}")
    rng = numpy_rng(seed, "occluder", kind)
    canvas = Image.new("L", (112 * _OVER, 112 * _OVER), 0)
    colour = OCCLUDERS[kind](ImageDraw.Draw(canvas), rng)
    alpha_HW1 = np.asarray(canvas.resize((112, 112), Image.Resampling.BOX), np.float64)[:, :, None] / 255.0
    shade_HW1 = _shading(image_HWC)
    painted = np.clip(np.array(colour, np.float64) * shade_HW1, 0, 255)
    return np.round(image_HWC * (1 - alpha_HW1) + painted * alpha_HW1).astype(np.uint8)


def _mask(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> tuple[int, int, int]:
    """A surgical mask: from the bridge of the nose over the cheeks to below the chin."""
    top = _NOSE[1] - rng.uniform(6, 14)
    cheek, jaw = rng.uniform(2, 8), rng.uniform(14, 22)
    outline = [(cheek, top + 8), (30, top + 2), (_NOSE[0], top - 3), (82, top + 2), (112 - cheek, top + 8), (112 - jaw, 104), (74, 118), (38, 118), (jaw, 104)]
    _polygon(draw, outline)
    return [(205, 222, 232), (236, 236, 232), (40, 42, 46), (150, 190, 214)][rng.integers(4)]


def _sunglasses(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> tuple[int, int, int]:
    """Two lenses, a bridge and temples."""
    wide, high = rng.uniform(14, 18), rng.uniform(10, 14)
    for x, y in (_LEFT_EYE, _RIGHT_EYE):
        draw.ellipse([_OVER * value for value in (x - wide, y - high, x + wide, y + high)], fill=255)
    for box in ((_LEFT_EYE[0], 48, _RIGHT_EYE[0], 51.5), (0, 46, _LEFT_EYE[0], 49), (_RIGHT_EYE[0], 46, 112, 49)):
        draw.rectangle([_OVER * value for value in box], fill=255)
    return [(18, 18, 20), (46, 30, 22), (30, 34, 52)][rng.integers(3)]


def _bar(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> tuple[int, int, int]:
    """A strip across the face, a fifth to a third of it, at any angle."""
    half, angle = rng.uniform(11, 18), rng.uniform(0, np.pi)
    centre = np.array([56 + rng.uniform(-16, 16), 62 + rng.uniform(-22, 22)])
    along, across = np.array([np.cos(angle), np.sin(angle)]) * 170, np.array([-np.sin(angle), np.cos(angle)]) * half
    _polygon(draw, [tuple(centre + a * along + b * across) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    return tuple(int(value) for value in rng.integers(20, 236, 3))  # type: ignore[return-value]


OCCLUDERS: dict[str, Callable[[ImageDraw.ImageDraw, np.random.Generator], tuple[int, int, int]]] = {"mask": _mask, "sunglasses": _sunglasses, "bar": _bar}


def _polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]]) -> None:
    draw.polygon([(_OVER * x, _OVER * y) for x, y in points], fill=255)


def _shading(image_HWC: np.ndarray) -> np.ndarray:
    """Light and dark of the face, much blurred, around 1: a flat patch would be too easy to tell."""
    grey = Image.fromarray(image_HWC).convert("L").filter(ImageFilter.GaussianBlur(12))
    light_HW = np.asarray(grey, np.float64)
    return np.clip(0.6 + 0.4 * light_HW / max(float(light_HW.mean()), 1.0), 0.5, 1.4)[:, :, None]
