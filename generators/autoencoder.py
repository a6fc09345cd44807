"""Autoencoders: faces ↔ latents. The bundled one is small; any module with `encode`, `decode` and `latent_shape` serves."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.config import Config
from .attention import zeroed
from .registry import AUTOENCODERS


class Autoencoder(Protocol):
    """What a latent generator needs of its first stage.

    Attributes:
        latent_shape: (channels, height, width) of the latent of one 112×112 face.
    """

    latent_shape: tuple[int, int, int]

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """float RGB in [-1, 1], (B, 3, 112, 112) → latents of about unit variance."""
        ...

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """Latents → float RGB, about [-1, 1], (B, 3, 112, 112)."""
        ...


@AUTOENCODERS.register("patch")
class PatchAutoencoderConfig(Config):
    """Attributes: `patch` divides 112; `channels` principal components a patch; `width`, `blocks` of the decoder;
    `detail_width` of the two convolutions at full resolution."""

    patch: int = 7
    channels: int = 16
    width: int = 128
    blocks: int = 3
    detail_width: int = 16

    @model_validator(mode="after")
    def _patches_tile_the_face(self) -> Self:
        if self.patch < 1 or 112 % self.patch or not 1 <= self.channels <= 3 * self.patch**2:
            raise ValueError(f"patch {self.patch}, channels {self.channels}: expected a patch that divides 112 and 1 to 3 * patch**2 channels")
        return self

    def build(self) -> PatchAutoencoder:
        """Return the network, its basis not yet fitted."""
        return PatchAutoencoder(self)


class PatchAutoencoder(nn.Module):
    """Principal components of image patches in, a learned decoder out.

    The encoder is linear and fixed, so that a better decoder never invalidates a trained denoiser. The decoder's residual network
    starts at zero: training begins at the PCA's quality (34 dB with 16 of 147 components) and only improves on it. Latent channels
    keep the square root of their natural spread: between whitening (detail weighs as much as shape) and the raw spectrum (detail
    drowns in the first noise level).
    """

    def __init__(self, config: PatchAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        side, pixels = 112 // config.patch, 3 * config.patch**2
        self.latent_shape = (config.channels, side, side)
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.eye(pixels)[: config.channels])
        self.register_buffer("scale", torch.ones(config.channels))
        self.decoder = ResidualNet(config.channels, pixels, config.width, config.blocks)
        self.detail = nn.Sequential(
            nn.Conv2d(3, config.detail_width, 3, padding=1), nn.SiLU(), zeroed(nn.Conv2d(config.detail_width, 3, 3, padding=1))
        )

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [-1, 1] → (B, channels, 112/patch, 112/patch)."""
        patches = F.pixel_unshuffle(image_BCHW, self.config.patch)
        return torch.einsum("bphw,cp->bchw", patches - self.mean[:, None, None], self.basis.to(patches.dtype)) * self.scale[:, None, None]

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """(B, channels, h, w) → (B, 3, 112, 112), about [-1, 1] (not clamped)."""
        linear = torch.einsum("bchw,cp->bphw", latent_BCHW / self.scale[:, None, None], self.basis.to(latent_BCHW.dtype)) + self.mean[:, None, None]
        image_BCHW = F.pixel_shuffle(linear + self.decoder(latent_BCHW), self.config.patch)
        return image_BCHW + self.detail(image_BCHW)

    @torch.no_grad()
    def fit_basis(self, image_BCHW: Tensor) -> None:
        """Set mean, basis and scale from the principal components of the patches of sample images."""
        rows = F.pixel_unshuffle(image_BCHW, self.config.patch).movedim(1, -1).flatten(0, -2).double()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        keep = values.argsort(descending=True)[: self.config.channels]
        spread = values[keep].sqrt()
        # Channel c has spread sqrt(spread_c) after scaling; one factor brings the mean variance over channels to 1.
        scale = spread.rsqrt() / spread.mean().sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(vectors[:, keep].T)
        self.scale.copy_(scale)


def reconstruction(back_BCHW: Tensor, image_BCHW: Tensor, gradient: float) -> tuple[Tensor, Tensor]:
    """Return |x - x̂| + `gradient` · |∇x - ∇x̂| (means; ∇ = horizontal and vertical differences) and the PSNR in dB."""
    edges = sum(F.l1_loss(back_BCHW.diff(dim=d), image_BCHW.diff(dim=d)) for d in (-1, -2))
    return F.l1_loss(back_BCHW, image_BCHW) + gradient * edges, 10 * torch.log10(4 / F.mse_loss(back_BCHW, image_BCHW))


class ResidualNet(nn.Module):
    """Convolutions at latent resolution with a zero-initialised last layer."""

    def __init__(self, c_in: int, c_out: int, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(c_in, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(16, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(16, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.out = zeroed(nn.Conv2d(width, c_out, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(F.silu(x))
