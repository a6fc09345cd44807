"""EyeSeg's network: a small encoder-decoder that gives each pixel a direction and a concentration.

The paper's architecture is not public [C]: a U-Net below a million parameters whose finest level has half the picture's side, so that one processor core keeps
up with a camera. Axes: B images, K classes, D numbers of a direction, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KAPPA_LEAST = 1e-6
LOG_KAPPA_MOST = 6.0
"""exp(6) ≈ 400: at eight numbers that is a cosine of .991 and wrong once in e^-200; more only makes a wrong one cost infinitely much."""

SIDE_STEP = 16
"""Both sides of a picture must be multiples of this."""


class EyeTrunk(nn.Module):
    """Pictures → features at half their side, (B, widths[0], H/2, W/2).

    Args:
        widths: channels at 1/2, 1/4, 1/8, 1/16 of the picture's side.
        dropout: of whole channels of the result; 0 but for the Monte-Carlo baseline.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = conv(4, widths[0])
        self.down = nn.ModuleList(nn.Sequential(conv(low, high, stride=2), conv(high, high)) for low, high in zip(widths, widths[1:]))
        # The widest steps see the whole picture: what is an eye depends on what is around it.
        self.middle = nn.Sequential(*(conv(widths[-1], widths[-1], dilation=reach) for reach in (2, 4)))
        self.up = nn.ModuleList(conv(high + low, low) for low, high in zip(widths[::-1][1:], widths[::-1]))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, image_B1HW: Tensor) -> Tensor:
        height, width = image_B1HW.shape[-2:]
        if height % SIDE_STEP or width % SIDE_STEP:
            raise ValueError(f"the picture is {height}x{width}; expected sides that are multiples of {SIDE_STEP}")
        # Channels last: on the CPU these narrow convolutions run twice as fast (benchmarks/eyeseg.py), and nothing here is a GroupNorm.
        folded_B4HW = F.pixel_unshuffle(standardised(image_B1HW), 2).contiguous(memory_format=torch.channels_last)
        levels = [self.stem(folded_B4HW)]
        for part in self.down:
            levels.append(part(levels[-1]))
        x = self.middle(levels.pop())
        for part in self.up:
            x = part(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), levels.pop()], dim=1))
        return self.dropout(x)


class EyeSegNet(nn.Module):
    """Pictures → directions μ, concentrations κ and class prototypes w.

    Args:
        widths: see `EyeTrunk`.
        dim: D, numbers of a direction.
        classes: K.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), dim: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.dim, self.classes = dim, classes
        self.trunk = EyeTrunk(widths)
        self.direction = nn.Conv2d(widths[0], dim, 1)
        self.concentration = nn.Sequential(conv(widths[0], widths[0]), nn.Conv2d(widths[0], 1, 1))
        nn.init.constant_(self.concentration[-1].bias, 2.0)
        if dim < classes:
            raise ValueError(f"dim is {dim} for {classes} classes; expected as many numbers as classes or more, so that the prototypes can stand equally far apart")
        self.register_buffer("prototype_KD", simplex(classes, dim))

    def forward(self, image_B1HW: Tensor, *, detach_concentration: bool = False) -> tuple[Tensor, Tensor]:
        """Return μ, (B, D, H, W) unit over D, and κ, (B, H, W).

        Args:
            image_B1HW: grey in [-1, 1]; sides that are multiples of 16.
            detach_concentration: κ learns without moving the trunk (the spec's first epochs).
        """
        x = self.trunk(image_B1HW)
        log_kappa_B1HW = self.concentration(x.detach() if detach_concentration else x)
        both = doubled(torch.cat([self.direction(x), log_kappa_B1HW], dim=1))
        return F.normalize(both[:, : self.dim], dim=1), bounded(both[:, self.dim]).exp() + KAPPA_LEAST

    def cosines(self, mu_BDHW: Tensor) -> Tensor:
        """Return the cosines to the class prototypes, (B, K, H, W)."""
        return F.conv2d(mu_BDHW, self.prototype_KD[:, :, None, None])


class PlainSegNet(nn.Module):
    """The same trunk with one layer of class scores: what EyeSeg is compared with."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96), classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = EyeTrunk(widths, dropout)
        self.score = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """Return logits, (B, K, H, W), of grey pictures in [-1, 1]."""
        return doubled(self.score(self.trunk(image_B1HW)))


def standardised(image_B1HW: Tensor) -> Tensor:
    """Mean 0, deviation 1 for each picture: exposure and gain are not the eye's."""
    mean, deviation = image_B1HW.mean((2, 3), keepdim=True), image_B1HW.std((2, 3), keepdim=True)
    return (image_B1HW - mean) / (deviation + 0.02)


def simplex(classes: int, dim: int) -> Tensor:
    """Return unit prototypes, (K, D), as far apart as K can be: every two at the cosine -1/(K - 1).

    They are given, not learned. Learned ones fall together (measured: cosines above 0.97, with or without the density's gradient): κ then makes up for the small
    angles, is as large as it may be everywhere, and says nothing.
    """
    corner_KK = torch.eye(classes) - 1.0 / classes
    return F.pad(F.normalize(corner_KK, dim=1), (0, dim - classes))


def bounded(log_kappa: Tensor) -> Tensor:
    """Return log κ bent smoothly under `LOG_KAPPA_MOST`: a clamp would give a pixel that is too sure no way back, and the easy background drives all there."""
    return LOG_KAPPA_MOST - F.softplus(LOG_KAPPA_MOST - log_kappa)


def doubled(x_BCHW: Tensor) -> Tensor:
    """Twice the side, bilinear."""
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="bilinear", align_corners=False)


def conv(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation=dilation, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
