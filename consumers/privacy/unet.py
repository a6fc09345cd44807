"""The plain U-Net of MinusFace's generator: pairs of 3×3 convolutions and ReLUs without normalisation, max-pooling, transposed convolutions, skips.

Source: Ronneberger et al., MICCAI 2015, as released with MinusFace (34,634,624 parameters at 192 channels and widths 64 … 1024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PlainUNet(nn.Module):
    """(B, channels, H, W) → (B, channels or `out`, H, W); H and W multiples of 2^(levels - 1).

    Args:
        widths: channels of the levels, from fine to coarse.
        out: channels of the result; None = as many as come in.
    """

    def __init__(self, channels: int, widths: Sequence[int], out: int | None = None) -> None:
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.first = _pair(channels, widths[0])
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), _pair(a, b)) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 3, stride=2, padding=1, output_padding=1) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(_pair(2 * a, a) for a, _ in reversed(pairs))
        self.last = nn.Conv2d(widths[0], channels if out is None else out, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # By pixels: on a CPU that makes convolutions of 192 channels three times faster.
        maps = [self.first(x_BCHW.contiguous(memory_format=torch.channels_last))]
        for level in self.down:
            maps.append(level(maps[-1]))
        x = maps.pop()
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([maps.pop(), up(x)], 1))
        return self.last(x)


def _pair(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1), nn.ReLU())
