"""Improved ResNets (IR-18, 34, 50, 100): 24.02, 34.13, 43.59 and 65.15 M parameters at embed_dim=512.

Source: He et al. 2016 (pre-activation) with the face-recognition changes of ArcFace (CVPR 2019, section 3); the shortcut and
the head are those of TFace and CurricularFace, so insightface weights do not fit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backbones import BACKBONES, init_convolutions, last_side, scaled


class IRBlock(nn.Module):
    """BN, 3×3, BN, PReLU, 3×3 with the stride, BN; plus the shortcut, with no activation after the sum."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        # Equal channel counts: the shortcut only drops pixels. A 1×1 max-pool is that, without parameters.
        same = nn.MaxPool2d(1, stride)
        self.shortcut = same if c_in == c_out else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.path(x_BCHW) + self.shortcut(x_BCHW)


class ImprovedResNet(nn.Module):
    """112×112 RGB in [-1, 1] → raw embedding (B, embed_dim).

    Args:
        embed_dim: length of the embedding.
        width: factor on every channel count (1 = published).
        dropout: probability before the last linear layer (TFace 0.4, insightface 0).
        affine: learned scale and offset in the last normalisation (published: none).
        shrink: factor of an average pooling of the input (published: 1).
    """

    units: tuple[int, int, int, int]

    def __init__(self, *, embed_dim: int = 512, width: float = 1.0, dropout: float = 0.0, affine: bool = False, shrink: int = 1) -> None:
        super().__init__()
        c = scaled(64, width)
        self.pool = nn.AvgPool2d(shrink)
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.PReLU(c))
        blocks: list[nn.Module] = []
        for channels, units in zip((64, 128, 256, 512), self.units):
            c_out = scaled(channels, width)
            blocks += [IRBlock(c if unit == 0 else c_out, c_out, 2 if unit == 0 else 1) for unit in range(units)]
            c = c_out
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.BatchNorm2d(c), nn.Dropout(dropout))
        self.project = nn.Linear(c * last_side(shrink) ** 2, embed_dim)
        self.norm = nn.BatchNorm1d(embed_dim, affine=affine)
        init_convolutions(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(self.pool(image_BCHW)))).flatten(1)
        # The last layers stay in float32 under autocast: their output is normalised and compared.
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.project(x.float()))


@BACKBONES.register("ir-18")
class IR18(ImprovedResNet):
    """2.60 GMAC."""

    units = (2, 2, 2, 2)


@BACKBONES.register("ir-34")
class IR34(ImprovedResNet):
    """4.45 GMAC."""

    units = (3, 4, 6, 3)


@BACKBONES.register("ir-50")
class IR50(ImprovedResNet):
    """6.30 GMAC."""

    units = (3, 4, 14, 3)


@BACKBONES.register("ir-100")
class IR100(ImprovedResNet):
    """12.08 GMAC."""

    units = (3, 13, 30, 3)
