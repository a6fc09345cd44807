"""The table of recognition networks, and how one is built from its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from ..core.config import Config
from ..core.registry import Registry

BACKBONES: Registry[type[nn.Module]] = Registry("backbone", "facefoundry.recognition")
"""Each entry: `cls(*, embed_dim, width, dropout, affine, shrink)`; (B, 3, 112, 112) in [-1, 1] → raw embeddings, (B, embed_dim)."""


class BackboneConfig(Config):
    """Which network, how wide, how long its embedding.

    Attributes:
        name: key in `BACKBONES`, e.g. "mobilefacenet" or "ir-18".
        embed_dim: length of the embedding.
        width: factor on every channel count of the published network.
        dropout: probability before the last linear layer (IR networks only).
        affine: whether the last batch normalisation learns a scale and an offset for each dimension. The published
            networks have none; a student of another network's embedding needs them to match its unequal variances.
        shrink: average-pool the face by this factor before the first layer; 2 is about four times faster and meant for
            trainings on a CPU. Embeddings still come from 112×112 faces.
    """

    name: str = "mobilefacenet"
    embed_dim: int = Field(512, ge=1)
    width: float = Field(1.0, gt=0, le=4)
    dropout: float = Field(0.0, ge=0, lt=1)
    affine: bool = False
    shrink: Literal[1, 2] = 1

    def build(self) -> nn.Module:
        """Return the network with fresh weights (drawn from torch's global generator: fork and seed it before)."""
        return BACKBONES[self.name](embed_dim=self.embed_dim, width=self.width, dropout=self.dropout, affine=self.affine, shrink=self.shrink)


def scaled(channels: int, width: float) -> int:
    """Return `channels * width` rounded to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def last_side(shrink: int) -> int:
    """Height and width of the last feature map: four halvings of 112 / shrink, rounded up (7 or 4)."""
    return -(-112 // (16 * shrink))


def init_convolutions(network: nn.Module) -> None:
    """Draw convolution and linear weights from Kaiming-normal, fan-out; normalisation layers start as the identity."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
