"""The artifact branch: neighbouring-pixel residual and a short convolutional expert whose tokens are places of the image.

Source: NPR (Tan et al., CVPR 2024, arXiv 2312.10461) as TranX-Adapter uses it (consumers.md §8): the residual of 2×2 blocks against their first pixel, which shows
how a generator enlarged; resizing before it destroys the cue. Axes: B images, C H W, N tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...core.check import check
from ...core.config import Config


def npr(image_BCHW: Tensor) -> Tensor:
    """Return (x - up₂(down₂(x)))·2/3, nearest neighbour; an odd edge is cut; every (even, even) pixel is 0."""
    check("image_BCHW", image_BCHW, "B C H W")
    even_BCHW = image_BCHW[:, :, : image_BCHW.shape[2] // 2 * 2, : image_BCHW.shape[3] // 2 * 2]
    return (even_BCHW - even_BCHW[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)) * (2.0 / 3.0)


def artifact_view(image_BCHW: Tensor, side: int) -> Tensor:
    """The middle `side`×`side` pixels, never resized; an image smaller than that is tiled first."""
    height, width = image_BCHW.shape[2:]
    image_BCHW = image_BCHW.repeat(1, 1, -(-side // height), -(-side // width))
    top, left = (image_BCHW.shape[2] - side) // 2, (image_BCHW.shape[3] - side) // 2
    return image_BCHW[:, :, top : top + side, left : left + side]


class ArtifactConfig(Config):
    """The expert.

    Attributes:
        widths: channels at 1/2 and 1/4 of the side (the released one: a ResNet-50 up to its second stage, 512 channels at 1/8).
        grid: tokens a side after pooling; 14 gives the paper's 196.
        side: pixels of its view of the image.
        residual: look at NPR; false: at the pixels.
        release_compatible: cut the map into tokens as the released file does, channels and places mixed: only for weights trained with it.
    """

    widths: tuple[int, int] = (32, 64)
    grid: int = Field(14, ge=1)
    side: int = Field(112, ge=8)
    residual: bool = True
    release_compatible: bool = False


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation and a shortcut (He et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        )
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.path(x_BCHW) + self.shortcut(x_BCHW))


def tokens_of(map_BCHW: Tensor, *, release_compatible: bool = False) -> Tensor:
    """Feature map → one token a place, row by row, (B, H·W, C); as released: the same memory read as if channels came last."""
    size, channels = map_BCHW.shape[:2]
    return map_BCHW.reshape(size, -1, channels) if release_compatible else map_BCHW.flatten(2).mT


class ArtifactBranch(nn.Module):
    """Image → artifact tokens and how fake each looks.

    forward((B, 3, H, W) in [-1, 1]) → (tokens (B, N, C), logits of "fake" (B, N)), N = grid².
    """

    def __init__(self, config: ArtifactConfig) -> None:
        super().__init__()
        self.config, (narrow, wide) = config, config.widths
        self.width = wide
        self.stem = nn.Sequential(nn.Conv2d(3, narrow, 3, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(narrow, narrow, 1), ResidualBlock(narrow, wide, 2))
        self.pool, self.head = nn.AdaptiveAvgPool2d(config.grid), nn.Linear(wide, 1)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        view_BCHW = artifact_view(image_BCHW, self.config.side)
        # Pixels in [-1, 1] have NPR's of a few hundredths: brought to the size of normalised inputs.
        seen_BCHW = npr(view_BCHW) * 8.0 if self.config.residual else view_BCHW
        token_BNC = tokens_of(self.pool(self.blocks(self.stem(seen_BCHW))), release_compatible=self.config.release_compatible)
        return token_BNC, self.head(token_BNC)[..., 0]
