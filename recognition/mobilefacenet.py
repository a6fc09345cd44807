"""MobileFaceNet: 1.199 M parameters and 0.221 GMAC at embed_dim=512, width=1.

Source: Chen et al., "MobileFaceNets", CCBR 2018 (arXiv 1804.07573); layer table as used by TFace.
"""

from __future__ import annotations

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


# (inner channels, output channels, stride of the first block, residual blocks after it): rows 3-8 of the table.
STAGES = ((128, 64, 2, 4), (256, 128, 2, 6), (512, 128, 2, 0))


@BACKBONES.register("mobilefacenet")
class MobileFaceNet(nn.Module):
    """112×112 RGB in [-1, 1] → raw embedding (B, embed_dim).

    Args:
        embed_dim: length of the embedding.
        width: factor on every channel count (1 = published; channels are rounded to multiples of 8).
        dropout: must be 0; the published network has none.
        affine: learned scale and offset in the last normalisation (published: none).
        shrink: factor of an average pooling of the input (published: 1).
    """

    def __init__(self, *, embed_dim: int = 512, width: float = 1.0, dropout: float = 0.0, affine: bool = False, shrink: int = 1) -> None:
        super().__init__()
        if dropout:
            raise UserError(f"mobilefacenet has no dropout layer, got dropout={dropout}; use 0")
        c = scaled(64, width)
        last = scaled(512, width)
        self.pool = nn.AvgPool2d(shrink)
        self.stem = nn.Sequential(ConvUnit(3, c, kernel=3, stride=2, padding=1), ConvUnit(c, c, kernel=3, padding=1, groups=c))
        blocks: list[nn.Module] = []
        for inner, out, stride, repeats in STAGES:
            c_out = scaled(out, width)
            blocks.append(Bottleneck(c, scaled(inner, width), c_out, stride=stride, residual=False))
            c = c_out
            blocks += [Bottleneck(c, scaled(inner, width), c, stride=1, residual=True) for _ in range(repeats)]
        # Row 8: the 7×7 residual blocks have 256 inner channels, not the 512 of the block before them.
        blocks += [Bottleneck(c, scaled(256, width), c, stride=1, residual=True) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks)
        self.spread = ConvUnit(c, last)
        self.gather = ConvUnit(last, last, kernel=last_side(shrink), groups=last, linear=True)
        self.project = nn.Linear(last, embed_dim, bias=False)
        self.norm = nn.BatchNorm1d(embed_dim, affine=affine)
        init_convolutions(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x = self.gather(self.spread(self.blocks(self.stem(self.pool(image_BCHW))))).flatten(1)
        # The last layers stay in float32 under autocast: their output is normalised and compared.
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.project(x.float()))
