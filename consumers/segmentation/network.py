"""EyeSeg's network: a small encoder-decoder that gives each pixel a direction and a concentration.

The paper's architecture is not public [C]: a U-Net below a million parameters that works at half the picture's side, so that a processor core keeps up with
a camera. Axes: B images, K classes, D numbers of a direction, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KAPPA_LEAST = 1e-6
LOG_KAPPA_MOST = 7.0
"""exp(7) ≈ 1,100: at eight numbers a pixel that sure is wrong once in e^-700; more only makes a wrong one cost infinitely much."""


class EyeSegNet(nn.Module):
    """Pictures → directions μ, concentrations κ and class prototypes w.

    Args:
        widths: channels at 1/2, 1/4, 1/8, 1/16 of the picture's side.
        dim: D, numbers of a direction.
        classes: K.
        dropout: before the heads; 0 for the method, above it for the Monte-Carlo baseline.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 64), dim: int = 8, classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.classes = dim, classes
        self.stem = _block(1, widths[0], stride=2)
        self.down = nn.ModuleList(_block(low, high, stride=2) for low, high in zip(widths, widths[1:]))
        self.middle = _block(widths[-1], widths[-1], dilation=2)
        self.up = nn.ModuleList(_block(high + low, low) for low, high in zip(widths[::-1][1:], widths[::-1]))
        self.trunk_out = _block(widths[0], widths[0])
        self.dropout = nn.Dropout2d(dropout)
        self.direction = nn.Conv2d(widths[0], dim, 1)
        self.concentration = nn.Sequential(_block(widths[0], widths[0]), nn.Conv2d(widths[0], 1, 1))
        nn.init.constant_(self.concentration[-1].bias, 2.0)
        self.prototype_KD = nn.Parameter(torch.linalg.qr(torch.randn(dim, max(classes, 1)))[0].T.contiguous())

    def forward(self, image_B1HW: Tensor, *, detach_concentration: bool = False) -> tuple[Tensor, Tensor]:
        """Return μ, (B, D, H, W) unit over D, and κ, (B, H, W).

        Args:
            image_B1HW: grey in [-1, 1]; sides that are multiples of 16.
            detach_concentration: κ learns without moving the trunk (the spec's first epochs).
        """
        height, width = image_B1HW.shape[-2:]
        if height % 16 or width % 16:
            raise ValueError(f"the picture is {height}x{width}; expected sides that are multiples of 16")
        levels = [self.stem(standardised(image_B1HW))]
        for part in self.down:
            levels.append(part(levels[-1]))
        x = self.middle(levels.pop())
        for part in self.up:
            x = part(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), levels.pop()], dim=1))
        x = self.dropout(self.trunk_out(x))
        log_kappa_B1HW = self.concentration(x.detach() if detach_concentration else x)
        rough_BDHW = self.direction(x)
        both = F.interpolate(torch.cat([rough_BDHW, log_kappa_B1HW], dim=1), size=(height, width), mode="bilinear", align_corners=False)
        mu_BDHW, log_kappa_BHW = F.normalize(both[:, : self.dim], dim=1), both[:, self.dim]
        return mu_BDHW, log_kappa_BHW.clamp(max=LOG_KAPPA_MOST).exp() + KAPPA_LEAST

    def cosines(self, mu_BDHW: Tensor) -> Tensor:
        """Return the cosines to the class prototypes, (B, K, H, W)."""
        return torch.einsum("bdhw,kd->bkhw", mu_BDHW, F.normalize(self.prototype_KD, dim=1))


def standardised(image_B1HW: Tensor) -> Tensor:
    """Mean 0, deviation 1 for each picture: exposure and gain are not the eye's."""
    mean, deviation = image_B1HW.mean((2, 3), keepdim=True), image_B1HW.std((2, 3), keepdim=True)
    return (image_B1HW - mean) / (deviation + 0.02)


def _block(inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Depthwise and pointwise convolutions where they save arithmetic, a plain one on the grey picture."""
    first = (
        [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)]
        if inputs == 1
        else [nn.Conv2d(inputs, inputs, 5, stride, 2 * dilation, dilation=dilation, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1, bias=False)]
    )
    return nn.Sequential(*first, nn.BatchNorm2d(outputs), nn.PReLU(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs, bias=False), nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.PReLU(outputs))
