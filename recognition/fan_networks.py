"""The small networks of FAN beside the identity encoders: context encoder, decoder, critics.

Sizes are choices [C] (recognition.md §5.2): a CPU trains them. Axes: B images, D identity, N context, H W.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config


class FanNetworkConfig(Config):
    """Sizes.

    Attributes:
        context_dim: N, length of the non-identity code.
        width: factor on the channels of context encoder and decoder (1 = 128 at 4×4, 32 at 56×56).
        critic: channels of the image critic's first layer.
    """

    context_dim: int = Field(128, ge=1)
    width: float = Field(1.0, gt=0, le=8)
    critic: int = Field(16, ge=1)

    def channels(self) -> tuple[int, ...]:
        """Channels at 4, 7, 14, 28 and 56 pixels."""
        return tuple(max(4, round(base * self.width)) for base in (128, 96, 64, 48, 32))


def _unit(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.GroupNorm(math.gcd(c_out, 4), c_out), nn.LeakyReLU(0.2))


class ContextEncoder(nn.Module):
    """E_N: faces (B, 3, 112, 112) → what is not identity (pose, light, background), (B, N)."""

    def __init__(self, config: FanNetworkConfig) -> None:
        super().__init__()
        *channels, last = config.channels()[::-1]
        steps = zip((3, *channels), (*channels, last))
        self.layers = nn.Sequential(*(_unit(c_in, c_out, 2) for c_in, c_out in steps), nn.Flatten(), nn.Linear(last * 16, config.context_dim))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.layers(image_BCHW)


class Decoder(nn.Module):
    """G: identity (B, D) of any length and context (B, N) → faces (B, 3, 112, 112) in [-1, 1].

    Five enlargements, 4 → 7 → 14 → 28 → 56 → 112; the last one shuffles pixels, which spares convolutions at full size.
    """

    def __init__(self, embed_dim: int, config: FanNetworkConfig) -> None:
        super().__init__()
        self.channels = config.channels()
        self.start = nn.Linear(embed_dim + config.context_dim, self.channels[0] * 16)
        self.blocks = nn.ModuleList(_unit(c_in, c_out) for c_in, c_out in zip(self.channels, self.channels[1:]))
        self.last = nn.Sequential(nn.Conv2d(self.channels[-1], 12, 3, 1, 1), nn.PixelShuffle(2), nn.Tanh())

    def forward(self, identity_BD: Tensor, context_BN: Tensor) -> Tensor:
        # The length of an embedding tells image quality: only its direction is identity. √D brings its entries to unit size.
        direction_BD = F.normalize(identity_BD) * math.sqrt(identity_BD.shape[1])
        x = self.start(torch.cat((direction_BD, context_BN), 1)).unflatten(1, (self.channels[0], 4, 4))
        for side, block in zip((7, 14, 28, 56), self.blocks):
            x = block(F.interpolate(x, (side, side), mode="nearest"))
        return self.last(x)


class FeatureCritic(nn.Sequential):
    """D_feat: unit embeddings (B, D) → score (B, 1): from high or from low resolution?"""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(nn.Linear(embed_dim, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
