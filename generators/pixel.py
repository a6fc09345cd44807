"""No first stage: faces as their own latents, for denoisers in pixel space (ID³'s first choice, generators.md §1.3 [C])."""

from __future__ import annotations

import re

import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UserError
from ..core.files import weights_path
from .autoencoder import Autoencoder
from .train import load_autoencoder

FACE_SPREAD = 0.5
"""About the standard deviation of the pixels of aligned faces in [-1, 1]; latents are divided by it."""


class PixelAutoencoder:
    """Faces in blocks of fold × fold pixels: latents (3 fold², 112/fold, 112/fold), nothing lost, nothing learnt."""

    def __init__(self, fold: int = 1) -> None:
        if fold < 1 or 112 % fold:
            raise UserError(f"pixel blocks of {fold}: expected a number that divides 112 (1, 2, 4, 7, 8, ...)")
        self.fold = fold
        self.latent_shape = (3 * fold**2, 112 // fold, 112 // fold)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [-1, 1] → latents of about unit variance."""
        return F.pixel_unshuffle(image_BCHW, self.fold) / FACE_SPREAD

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Latents → (B, 3, 112, 112), not clamped."""
        return F.pixel_shuffle(latent_BCHW * FACE_SPREAD, self.fold)


def open_autoencoder(name: str) -> Autoencoder:
    """Return an autoencoder: "pixel" (or "pixel2", "pixel4", ... with blocks of that side), a bundled name, or a path."""
    pixel = re.fullmatch(r"pixel(\d*)", name)
    return PixelAutoencoder(int(pixel[1] or 1)) if pixel else load_autoencoder(weights_path(name))
