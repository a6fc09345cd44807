"""What a perceptual distance needs: a network that shows its maps, and the distance of paired images in them.

The form of LPIPS without its learned weights (Zhang et al., CVPR 2018, eq. 1, w = 1). Not LPIPS: another network and no calibration on human judgements. Its
numbers compare with those of the same network only. Axes: B images, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class FeatureNetwork(Protocol):
    """Gives the feature maps of images.

    Attributes:
        name: stands beside every number made with it.
    """

    name: str

    def maps(self, image_BCHW: Tensor) -> list[Tensor]:
        """float32 RGB in [-1, 1], (B, 3, 112, 112) → maps (B, C, H, W) from fine to coarse; the last one's mean over positions is the pooled feature."""
        ...


class LiveFeatureNetwork(FeatureNetwork, Protocol):
    """One whose maps can be learnt from."""

    def live_maps(self, image_BCHW: Tensor) -> list[Tensor]:
        """`maps` with a gradient to the picture: for losses."""
        ...


def paired_distances(map_L: Sequence[Tensor], other_L: Sequence[Tensor]) -> Tensor:
    """Distance of each image of a batch to its partner in another, (B,), with gradients: mean over layers of the mean over positions of |a/|a| - b/|b||^2."""
    total = torch.zeros((), device=map_L[0].device)
    for one_BCHW, other_BCHW in zip(map_L, other_L, strict=True):
        gap_BCHW = F.normalize(one_BCHW, dim=1) - F.normalize(other_BCHW, dim=1)
        total = total + gap_BCHW.square().sum(1).mean((1, 2))
    return total / len(map_L)


def perceptual_loss(eyes: LiveFeatureNetwork, found_BCHW: Tensor, wanted_BCHW: Tensor, share: float) -> Tensor:
    """Mean `paired_distances` of the first `share` of a batch's pictures (one at least) to what they shall look like; the gradient reaches `found` alone.

    Looking costs more than a small decoder. Which images come first changes with every epoch's order.
    """
    count = max(1, round(share * len(found_BCHW)))
    wanted_L = [part.clone() for part in eyes.maps(wanted_BCHW[:count].detach())]  # clones leave inference mode
    return paired_distances(eyes.live_maps(found_BCHW[:count]), wanted_L).mean()
