"""The semantic branch of the embedded detector: what stands where in the picture, as tokens.

Stands in for a multimodal model's vision tower (which `multimodal` plugs in): a frozen recogniser's last map, or a small patch transformer trained with the rest.
Axes: B images, M tokens, K channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Self

from ...core.config import Config
from ...core.files import weights_path
from ...recognition.backbones import BackboneConfig
from ...recognition.checkpoint import load_recogniser


class SemanticConfig(Config):
    """The encoder.

    Attributes:
        name: "recogniser": the last map of a MobileFaceNet, frozen; "patches": a transformer over patches, trained.
        weights: of the recogniser, bundled name or path; a detector's file holds them itself.
        backbone: recogniser: its settings; null = as `weights` says.
        side, patch, width, layers, heads: of the transformer.
    """

    name: Literal["recogniser", "patches"] = "recogniser"
    weights: str = "mobilefacenet-small"
    backbone: BackboneConfig | None = None
    side: int = Field(112, ge=8)
    patch: int = Field(16, ge=1)
    width: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)

    def build(self) -> nn.Module:
        """Return the encoder; a recogniser with its trained weights."""
        return PatchTransformer(self) if self.name == "patches" else RecogniserTokens(load_recogniser(weights_path(self.weights))[0])

    def empty(self) -> nn.Module:
        """Return the encoder without reading any file, for weights to be laid in."""
        return PatchTransformer(self) if self.name == "patches" else RecogniserTokens((self.backbone or BackboneConfig()).build())

    def complete(self) -> Self:
        """Return the settings with the recogniser's written out, so that `empty` needs no file."""
        if self.name == "patches" or self.backbone is not None:
            return self
        return self.model_copy(update={"backbone": load_recogniser(weights_path(self.weights))[1]})


class RecogniserTokens(nn.Module):
    """The last map of a MobileFaceNet (7×7), frozen whatever mode the rest is in.

    forward((B, 3, 112, 112) in [-1, 1]) → (B, 49, K)
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.pool, self.stem, self.blocks = network.pool, network.stem, network.blocks
        self.requires_grad_(False).eval()
        with torch.no_grad():
            self.width = self(torch.zeros(1, 3, 112, 112)).shape[2]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the batch statistics are the recogniser's."""
        return super().train(False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.blocks(self.stem(self.pool(image_BCHW))).flatten(2).mT


class PatchTransformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021) with learned places.

    forward((B, 3, side, side) in [-1, 1]) → (B, (side / patch)², width)
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.width = config.width
        self.embed = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, (config.side // config.patch) ** 2, config.width))
        self.layers = nn.ModuleList(encoder_layer(config.width, config.heads) for _ in range(config.layers))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        token_BMK = self.embed(image_BCHW).flatten(2).mT + self.place
        for layer in self.layers:
            token_BMK = layer(token_BMK)
        return token_BMK


def encoder_layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    """A pre-norm transformer layer without dropout, its inner width 4 times the outer."""
    return nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
