"""The table of recognition networks, and how one is built from its settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from ..core.config import Config
from ..core.registry import Registry
from .afa import DualConfig, DualNetwork

BACKBONES: Registry[type[nn.Module]] = Registry("backbone", "facefoundry.recognition")
"""Each entry: `cls(*, embed_dim, width, dropout, affine, shrink, channels, side)`; (B, 3, 112, 112) in [-1, 1] → raw embeddings, (B, embed_dim).

Its parts are pool, stem, blocks and `tail`, in this order; who wants the maps between them runs the parts.
"""


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
        dual: every batch normalisation twice, for clean and attacked faces, with a predictor that fuses them (AFA; `train afa` trains it).
        channels, side: of the input, where that is not a face (the protected representations of consumers/privacy): (B, channels, side, side).
    """

    name: str = "mobilefacenet"
    embed_dim: int = Field(512, ge=1)
    width: float = Field(1.0, gt=0, le=4)
    dropout: float = Field(0.0, ge=0, lt=1)
    affine: bool = False
    shrink: Literal[1, 2] = 1
    dual: DualConfig | None = None
    channels: int = Field(3, ge=1)
    side: int = Field(112, ge=16, le=112)

    def build(self) -> nn.Module:
        """Return the network with fresh weights (drawn from torch's global generator: fork and seed it before)."""
        network = BACKBONES[self.name](**self.model_dump(exclude={"name", "dual"}))
        return DualNetwork(network, self.dual) if self.dual else network


def scaled(channels: int, width: float) -> int:
    """Return `channels * width` rounded to a multiple of 8, at least 8."""
    return max(8, int(channels * width / 8 + 0.5) * 8)


def last_side(shrink: int, side: int = 112) -> int:
    """Height and width of the last feature map: four halvings of side / shrink, rounded up (for 112: 7 or 4)."""
    return -(-side // (16 * shrink))


def init_convolutions(network: nn.Module) -> None:
    """Draw convolution and linear weights from Kaiming-normal, fan-out; normalisation layers start as the identity."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
