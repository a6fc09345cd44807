"""Improved ResNets (IR-18, 34, 50, 100, IR-SE-50): 24.02, 34.13, 43.59, 65.15 and 43.81 M parameters at embed_dim=512.

Source: He et al. 2016 (pre-activation) with the face-recognition changes of ArcFace (CVPR 2019, section 3); squeeze and excitation: Hu et al., CVPR
2018. Shortcut and head are those of TFace and CVLface; insightface's and CurricularFace's variants are in `ir_variants`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .backbones import BACKBONES, init_convolutions, last_side, scaled


class SqueezeExcite(nn.Module):
    """Each channel times a factor in 0...1 that two layers make of the channels' means (reduction 16)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, max(1, channels // 16), 1, bias=False)
        self.fc2 = nn.Conv2d(max(1, channels // 16), channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.fc2(self.fc1(x_BCHW.mean((2, 3), keepdim=True)).relu()).sigmoid()


class IRBlock(nn.Module):
    """BN, 3×3, BN, PReLU, 3×3 with the stride, BN; plus the shortcut, with no activation after the sum.

    Args:
        squeeze: squeeze and excitation after the last BN.
        middle_norm: the BN between the first convolution and PReLU.
        pooled: where channel counts are equal and the stride is not 1 the shortcut drops pixels; False: it is a convolution there.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, squeeze: bool = False, middle_norm: bool = True, pooled: bool = True) -> None:
        super().__init__()
        middle = [nn.BatchNorm2d(c_out)] if middle_norm else []
        self.path = nn.Sequential(
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False),
            *middle,
            nn.PReLU(c_out),
            nn.Conv2d(c_out, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            *([SqueezeExcite(c_out)] if squeeze else []),
        )
        # A 1×1 max-pool drops pixels and has no parameters.
        same = c_in == c_out and (pooled or stride == 1)
        self.shortcut = nn.MaxPool2d(1, stride) if same else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

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
        channels, side: of the input (published: 3 and 112).
    """

    units: ClassVar[tuple[int, int, int, int]]
    squeeze: ClassVar[bool] = False
    middle_norm: ClassVar[bool] = True
    pooled: ClassVar[bool] = True

    def __init__(self, *, embed_dim: int = 512, width: float = 1.0, dropout: float = 0.0, affine: bool = False, shrink: int = 1, channels: int = 3, side: int = 112) -> None:
        super().__init__()
        c = scaled(64, width)
        self.pool = nn.AvgPool2d(shrink)
        self.stem = nn.Sequential(nn.Conv2d(channels, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.PReLU(c))
        blocks: list[nn.Module] = []
        for channels, units in zip((64, 128, 256, 512), self.units):
            c_out = scaled(channels, width)
            for unit in range(units):
                first = unit == 0
                blocks.append(IRBlock(c if first else c_out, c_out, 2 if first else 1, squeeze=self.squeeze, middle_norm=self.middle_norm, pooled=self.pooled))
            c = c_out
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.BatchNorm2d(c), nn.Dropout(dropout))
        self.project = nn.Linear(c * last_side(shrink, side) ** 2, embed_dim)
        self.norm = nn.BatchNorm1d(embed_dim, affine=affine)
        init_convolutions(self)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.tail(self.blocks(self.stem(self.pool(image_BCHW))))

    def tail(self, x_BCHW: Tensor) -> Tensor:
        """Last map of `blocks` → raw embeddings."""
        x = self.last(x_BCHW).flatten(1)
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


@BACKBONES.register("ir-se-50")
class IRSE50(ImprovedResNet):
    """6.30 GMAC."""

    units = (3, 4, 14, 3)
    squeeze = True


@BACKBONES.register("ir-100")
class IR100(ImprovedResNet):
    """12.08 GMAC."""

    units = (3, 13, 30, 3)
