"""MobileFaceNet: 1.199 M parameters and 0.221 GMAC at embed_dim=512, width=1.

Source: Chen et al., "MobileFaceNets", CCBR 2018 (arXiv 1804.07573); layer table as used by TFace.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from .backbones import BACKBONES, init_convolutions, last_side, scaled


class ConvUnit(nn.Sequential):
    """Bias-free convolution, batch normalisation and, unless `linear`, a PReLU."""

    def __init__(self, c_in: int, c_out: int, *, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1, linear: bool = False) -> None:
        layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(c_out)]
        if not linear:
            layers.append(nn.PReLU(c_out))
        super().__init__(*layers)


class Bottleneck(nn.Module):
    """1×1 to `inner` channels, depthwise 3×3, 1×1 linear back; plus the input where `residual`."""

    def __init__(self, c_in: int, inner: int, c_out: int, *, stride: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.path = nn.Sequential(
            ConvUnit(c_in, inner),
            ConvUnit(inner, inner, kernel=3, stride=stride, padding=1, groups=inner),
            ConvUnit(inner, c_out, linear=True),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.path(x_BCHW) if self.residual else self.path(x_BCHW)


# (inner channels of the block that halves the side, output channels, inner channels of the residual blocks after it): rows 3-8 of the table.
STAGES = ((128, 64, 128), (256, 128, 256), (512, 128, 256))


@BACKBONES.register("mobilefacenet")
class MobileFaceNet(nn.Module):
    """112×112 RGB in [-1, 1] → raw embedding (B, embed_dim).

    Args:
        embed_dim: length of the embedding.
        width: factor on every channel count (1 = published; channels are rounded to multiples of 8).
        dropout: must be 0; the published network has none.
        affine: learned scale and offset in the last normalisation (published: none).
        shrink: factor of an average pooling of the input (published: 1).
        channels, side: of the input (published: 3 and 112).
    """

    repeats: ClassVar[tuple[int, int, int]] = (4, 6, 2)
    wider: ClassVar[int] = 1
    """Factor on the channels between blocks, not on those inside (insightface)."""

    def __init__(self, *, embed_dim: int = 512, width: float = 1.0, dropout: float = 0.0, affine: bool = False, shrink: int = 1, channels: int = 3, side: int = 112) -> None:
        super().__init__()
        if dropout:
            raise UserError(f"mobilefacenet has no dropout layer, got dropout={dropout}; use 0")
        c = scaled(64 * self.wider, width)
        last = scaled(512, width)
        self.pool = nn.AvgPool2d(shrink)
        self.stem = nn.Sequential(ConvUnit(channels, c, kernel=3, stride=2, padding=1), self._second(c, width))
        blocks: list[nn.Module] = []
        for (inner, out, residual), repeats in zip(STAGES, self.repeats):
            c_out = scaled(out * self.wider, width)
            blocks.append(Bottleneck(c, scaled(inner, width), c_out, stride=2, residual=False))
            c = c_out
            blocks += [Bottleneck(c, scaled(residual, width), c, stride=1, residual=True) for _ in range(repeats)]
        self.blocks = nn.Sequential(*blocks)
        self.spread = ConvUnit(c, last)
        self.gather = ConvUnit(last, last, kernel=last_side(shrink, side), groups=last, linear=True)
        self.project = nn.Linear(last, embed_dim, bias=False)
        self.norm = nn.BatchNorm1d(embed_dim, affine=affine)
        init_convolutions(self)

    def _second(self, channels: int, width: float) -> nn.Module:
        """Row 2: depthwise; where the stem is wider than the table's 64 channels, in groups of several."""
        return ConvUnit(channels, channels, kernel=3, padding=1, groups=scaled(64, width))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.tail(self.blocks(self.stem(self.pool(image_BCHW))))

    def tail(self, x_BCHW: Tensor) -> Tensor:
        """Last map of `blocks` → raw embeddings."""
        x = self.gather(self.spread(x_BCHW)).flatten(1)
        # The last layers stay in float32 under autocast: their output is normalised and compared.
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.project(x.float()))
