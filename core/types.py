"""What moves between the floors: batches of faces, and the protocols of networks that make or read them.

Axes: B images, D embedding, C H W channels, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from .face_style import FaceStyle


@dataclass(frozen=True, slots=True)
class FaceBatch:
    """Generated faces in the order of the request.

    Attributes:
        image_BCHW: float32 RGB in [-1, 1], (B, 3, 112, 112).
        seeds: the seed each image was made from.
        passes_B: network evaluations spent on each image (for the books); a partial one counts by its share of the multiply-adds.
        redraws_B: how often each image was drawn again; empty where the generator does not judge its images.
        styles: the style each image was made to show; None where the generator is asked for none.
        landmarks_px: eyes, nose and mouth corners in each image, float32 (B, 5, 2); None where the generator does not know them.
        parts: uint8 (B, 112, 112), what each pixel shows (`styles_3dmm.accessories.LABELS`); None where the generator does not know it.
    """

    image_BCHW: Tensor
    seeds: tuple[int, ...]
    passes_B: tuple[float, ...]
    redraws_B: tuple[int, ...] = ()
    styles: tuple[FaceStyle, ...] | None = None
    landmarks_px: np.ndarray | None = None
    parts: np.ndarray | None = None


@runtime_checkable
class Embedder(Protocol):
    """Faces in, identity embeddings out. All judging, conditioning and filtering goes through it.

    Attributes:
        name: registry name plus whatever else decides the numbers ("dlib", "mobilefacenet-small").
        dim: length of an embedding.
        differentiable: whether gradients pass from the embedding to the image.
    """

    name: str
    dim: int
    differentiable: bool

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """float32 RGB in [-1, 1], (B, 3, 112, 112), ArcFace-aligned → unit float32 rows, (B, dim)."""
        ...


class AttributePredictor(Protocol):
    """Faces in, attributes such as age or head pose out.

    Attributes:
        names: one name with its unit for each column ("yaw_deg").
    """

    names: tuple[str, ...]

    def __call__(self, image_NHWC: np.ndarray) -> np.ndarray:
        """uint8 RGB, (N, 112, 112, 3), ArcFace-aligned → float32 (N, len(names)); NaN = unknown."""
        ...


class Generator(Protocol):
    """Identity anchors and seeds in, faces out."""

    name: str
    anchor_dim: int

    def generate(self, anchor_BD: np.ndarray, seeds: Sequence[int]) -> FaceBatch:
        """Unit identity anchors, (B, anchor_dim) float32, one seed an image → B faces."""
        ...
