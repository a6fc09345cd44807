"""Where styles come from: the protocols between MorphFace and whatever draws and renders heads.

DECA and FLAME may not be used for products, nor to train networks for them; behind this door any other renderer can stand (generators.md §3.2).
Axes: B images, P numbers of a style code, 9 map channels, S side of the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.face_style import FaceStyle
from ..core.seeds import derive_seed, numpy_rng


class StyleMaps(Protocol):
    """Renders style codes.

    Attributes:
        fingerprint: of all that decides the maps beside the codes; maps are cached under it.
        size_px: S.
    """

    fingerprint: str
    size_px: int

    def __call__(self, code_BP: np.ndarray) -> np.ndarray:
        """Style codes → maps as `style_encoder` reads them, (B, 9, S, S) float32 in [-1, 1]."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnStyles:
    """Styles of images in the order of the request: codes (B, P), and what the record keeps of them."""

    code_BP: np.ndarray
    styles: tuple[FaceStyle, ...]


class StyleSource(Protocol):
    """Draws styles for images of virtual people and renders them."""

    def draw(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> DrawnStyles:
        """Return the styles of images; row i depends on anchor i (through `subject_rng`: whose habits) and seeds[i] alone."""
        ...

    def render(self, code_BP: np.ndarray) -> np.ndarray:
        """Return the maps of codes, (B, 9, S, S) float32 in [-1, 1]."""
        ...


def subject_rng(anchor_D: np.ndarray) -> np.random.Generator:
    """Return the random numbers of a virtual subject: the same for every image of one anchor, wherever and with whomever it is made."""
    return numpy_rng(np.ascontiguousarray(anchor_D, dtype="<f4").tobytes().hex(), "style subject")


def image_rng(seed: int) -> np.random.Generator:
    """Return the random numbers of an image's style."""
    return numpy_rng(derive_seed(seed, "style"), "style image")


class ToyStyles:
    """Random plaids whose stripes follow the code; for `tiny()` and tests."""

    fingerprint = "toy"

    def __init__(self, size_px: int = 16, numbers: int = 6) -> None:
        self.size_px = size_px
        self._wave_P9 = np.random.default_rng(0).normal(size=(numbers, 9))

    def draw(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> DrawnStyles:
        habit_BP = [subject_rng(anchor_D).normal(size=len(self._wave_P9)) for anchor_D in anchor_BD]
        code_BP = np.stack([habit + image_rng(seed).normal(size=len(habit)) for habit, seed in zip(habit_BP, seeds)]).astype(np.float32)
        return DrawnStyles(code_BP=code_BP, styles=tuple(FaceStyle(pose_deg=tuple(row[:3].tolist())) for row in code_BP))

    def render(self, code_BP: np.ndarray) -> np.ndarray:
        phase_B9 = code_BP @ self._wave_P9
        grid_SS = np.add.outer(np.linspace(-3, 3, self.size_px), np.linspace(-2, 2, self.size_px))
        return np.sin(phase_B9[:, :, None, None] + grid_SS).astype(np.float32)

    def __call__(self, code_BP: np.ndarray) -> np.ndarray:
        return self.render(code_BP)
