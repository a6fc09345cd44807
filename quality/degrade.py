"""Damage for faces, drawn from a seed: the copies a quality score is trained and judged on. Axes: N images, H W C.

Strengths run from 0 (hardly visible) to 1 (hardly a face), each in units of the 112-pixel side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..core.check import check
from ..core.errors import UserError, near_names
from ..core.seeds import derive_seed, numpy_rng

Damage = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""uint8 (H, W, 3), strength 0..1, generator → uint8 (H, W, 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedFaces:
    """Damaged copies in the order of their originals.

    Attributes:
        image_NHWC: uint8 RGB.
        kinds: what was done to each, a key of `DAMAGES`.
        strength_N: how strongly, 0..1, float32.
    """

    image_NHWC: np.ndarray
    kinds: tuple[str, ...]
    strength_N: np.ndarray


def blur(image_HWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur, standard deviation 0.7 to 5 pixels."""
    return np.asarray(Image.fromarray(image_HWC).filter(ImageFilter.GaussianBlur(0.7 + 4.3 * strength)))


def noise(image_HWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise on every sample, standard deviation 8 to 88 of 255."""
    grain_HWC = (8.0 + 80.0 * strength) * rng.standard_normal(image_HWC.shape, np.float32)
    return np.clip(np.rint(image_HWC + grain_HWC), 0, 255).astype(np.uint8)


def low_resolution(image_HWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Shrink by averaging to 56 (strength 0) down to 10 pixels (1) a side, geometric in between, and enlarge again (bicubic)."""
    height, width = image_HWC.shape[:2]
    ratio = 0.5 * (10.0 / 56.0) ** strength
    small = Image.fromarray(image_HWC).resize((max(1, round(width * ratio)), max(1, round(height * ratio))), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def occlusion(image_HWC: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Cover a rectangle of 8 % to 50 % of the image, aspect 1/2 to 2, anywhere inside, with one random colour."""
    height, width = image_HWC.shape[:2]
    area, aspect = (0.08 + 0.42 * strength) * height * width, float(np.exp(rng.uniform(-0.69, 0.69)))
    tall, wide = min(height, round((area / aspect) ** 0.5)), min(width, round((area * aspect) ** 0.5))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    covered_HWC = image_HWC.copy()
    covered_HWC[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    return covered_HWC


DAMAGES: dict[str, Damage] = {"blur": blur, "noise": noise, "low_resolution": low_resolution, "occlusion": occlusion}


def degrade(image_NHWC: np.ndarray, *, kinds: Sequence[str] = tuple(DAMAGES), strongest: float = 0.5, seed: int = 0, copy: int = 0) -> DamagedFaces:
    """Return one damaged copy of each face; kind and strength are drawn uniformly from (seed, copy, row) alone.

    Args:
        image_NHWC: uint8 RGB, (N, H, W, 3); left as it is.
        kinds: keys of `DAMAGES` to draw from.
        strongest: strengths are drawn from 0 to this. Beyond 0.5 a small recogniser's embeddings fall together, whoever is shown.
        copy: another number gives other copies of the same faces.

    Raises:
        UserError: an unknown kind, or none.
    """
    check("image_NHWC", image_NHWC, "N H W 3")
    unknown = [kind for kind in kinds if kind not in DAMAGES]
    if unknown or not kinds:
        raise UserError(f"unknown damage {unknown[0]!r}; {near_names(unknown[0], DAMAGES)}" if unknown else f"no kind of damage given; expected some of {', '.join(DAMAGES)}")
    damaged_NHWC, chosen, strength_N = np.empty_like(image_NHWC), [], np.empty(len(image_NHWC), np.float32)
    for row, image_HWC in enumerate(image_NHWC):
        rng = numpy_rng(derive_seed(seed, "degrade", copy, row))
        kind, strength_N[row] = kinds[int(rng.integers(len(kinds)))], strongest * rng.random()
        damaged_NHWC[row] = DAMAGES[kind](image_HWC, float(strength_N[row]), rng)
        chosen.append(kind)
    return DamagedFaces(image_NHWC=damaged_NHWC, kinds=tuple(chosen), strength_N=strength_N)
