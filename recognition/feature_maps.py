"""The intermediate maps of the bundled recogniser: a stated, offline feature network for perceptual distances, FID and KID.

A recogniser's maps see what tells people apart more than what a picture looks like; numbers made with them compare with each other only, never with
published LPIPS or Inception figures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.device import default_device
from ..core.files import bundled
from .checkpoint import load_network


class MobileFaceNetMaps:
    """Maps of mobilefacenet-small after its stem, each change of resolution and the last 1x1 convolution, from fine to coarse.

    Attributes:
        name: stands beside every number made with it.
    """

    name = "mobilefacenet-small"

    def __init__(self, *, device: torch.device | None = None) -> None:
        network, _ = load_network(bundled("mobilefacenet-small.safetensors"))
        self._device = device or default_device()
        self._network = network.requires_grad_(False).to(self._device)

    def maps(self, image_BCHW: Tensor) -> list[Tensor]:
        """float32 RGB in [-1, 1], (B, 3, 112, 112) → five maps (B, C, H, W)."""
        with torch.inference_mode():
            return self.live_maps(image_BCHW)

    def live_maps(self, image_BCHW: Tensor) -> list[Tensor]:
        """`maps` with a gradient to the picture: for losses."""
        x = self._network.stem(self._network.pool(image_BCHW.to(self._device)))
        found = [x]
        for block in self._network.blocks:
            x = block(x)
            if x.shape[2] == found[-1].shape[2]:
                found[-1] = x  # the last one of each resolution
            else:
                found.append(x)
        return [*found, self._network.spread(x)]
