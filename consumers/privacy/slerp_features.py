"""Where SlerpFace's groups come from: any embedder's vector cut into pieces, or a network's last map with a learned attention.

Axes: B faces, G groups, C numbers of a group, H W of a map.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.types import Embedder
from ...recognition.backbones import BackboneConfig

Weights = Literal["even", "energy"]


class GroupFeatures(Protocol):
    """Faces in, groups and their importance out.

    Attributes:
        name: of what computes them; groups, width: sizes.
    """

    name: str
    groups: int
    width: int

    def __call__(self, image_BCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """float32 RGB in [-1, 1], (B, 3, 112, 112) → groups (B, G, C) and weights (B, G), shares that sum to 1."""
        ...


class VectorGroups:
    """The vector of any embedder, cut into groups of neighbouring numbers [C]: SlerpFace for recognisers without a map, such as dlib.

    Args:
        width: numbers of a group (published 16).
        weights: "even" = 1/G each; "energy" = a group's share of the squared length, which keeps the score nearest to the plain cosine but is stored
            in the clear with the template: it is the same under every key and can be linked (see benchmarks/claims/slerpface.py).
    """

    def __init__(self, embedder: Embedder, *, width: int = 16, weights: Weights = "even") -> None:
        if embedder.dim % width:
            raise UserError(f"embeddings of '{embedder.name}' have {embedder.dim} numbers, which cannot be cut into groups of {width}; choose a divisor as width")
        self._embedder, self._weights = embedder, weights
        self.name, self.groups, self.width = embedder.name, embedder.dim // width, width

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return self.cut(self._embedder(image_BCHW).double().cpu().numpy())

    def cut(self, embed_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return groups and weights of embeddings that are there already."""
        feature_BGC = embed_BD.reshape(len(embed_BD), self.groups, self.width)
        if self._weights == "even":
            return feature_BGC, np.full(feature_BGC.shape[:2], 1.0 / self.groups)
        energy_BG = np.square(feature_BGC).sum(axis=2)
        return feature_BGC, energy_BG / energy_BG.sum(axis=1, keepdims=True)


class MapGroups(nn.Module):
    """A backbone's last map, brought to C channels: one group a cell, with an attention that weighs the cells (an xCos-style module).

    Published: IR-50, 512x7x7 → 1x1 convolution + BN → 16x7x7, added to that of the mirrored face; attention of two 3x3 blocks and a 3x3 convolution to
    one channel, softmax over the 49 cells. forward(image_BCHW) → √w_g · unit(t_g), flattened: its cosine is the matching score of equally weighted
    faces, and a margin head on it trains what is matched. The published training loss is not known; this is ours [C].
    """

    name = "map-groups"

    def __init__(self, trunk: BackboneConfig, width: int = 16) -> None:
        super().__init__()
        network = trunk.build()
        self.trunk = nn.Sequential(network.pool, network.stem, network.blocks)
        with torch.no_grad():
            shape = self.trunk.eval()(torch.zeros(1, 3, 112, 112)).shape
        self.trunk.train()
        self.groups, self.width = int(shape[2] * shape[3]), width
        self.to_groups = nn.Sequential(nn.Conv2d(shape[1], width, 1, bias=False), nn.BatchNorm2d(width))
        self.attention = nn.Sequential(_block(width), _block(width), nn.Conv2d(width, 1, 3, 1, 1, bias=False), nn.BatchNorm2d(1), nn.PReLU(1))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        feature_BGC, weight_BG = self.group(image_BCHW)
        return (nn.functional.normalize(feature_BGC, dim=2) * weight_BG.sqrt()[..., None]).flatten(1)

    def group(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return groups, (B, G, C), and weights, (B, G)."""
        # Both halves in one pass: batch statistics then see what they see in use.
        both = self.to_groups(self.trunk(torch.cat((image_BCHW, image_BCHW.flip(3))))).float()
        map_BCHW = both[: len(image_BCHW)] + both[len(image_BCHW) :]
        return map_BCHW.flatten(2).transpose(1, 2), self.attention(map_BCHW).flatten(1).softmax(dim=1)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width))
