"""Attack A2: a U-Net learns to turn what the server sees back into the face (the attack all four image methods report).

Published: L1, lr 1e-3, batch 64, ≥ 1 M faces. Ours learns from as many as it is given; its PSNR is a lower bound on what an attacker reaches and no proof
of safety (consumers.md §0.2). Axes: N faces of the attacker, B faces, C H W.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....core.check import check
from ....core.images import to_float
from ....core.training import LoopConfig, fresh
from ..unet import PlainUNet
from .training import AttackBatches, Observe, train_attack


class UnetSettings(LoopConfig):
    """The attacker's training.

    Attributes:
        width: channels at full resolution; doubled at each halving.
        levels: resolutions.
    """

    optimiser: Literal["sgd", "adamw"] = "adamw"
    steps: int = Field(400, ge=0)
    batch: int = Field(16, ge=1)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    width: int = Field(16, ge=4)
    levels: int = Field(3, ge=1, le=5)


class RecoveryNet(nn.Module):
    """What is seen, (B, C, H, W) → RGB in [0, 1], (B, 3, H, W); H and W a multiple of 2^(levels-1)."""

    def __init__(self, channels: int, settings: UnetSettings) -> None:
        super().__init__()
        # What is sent comes in any scale (DC is a thousand times the rest): the net learns from normalised channels.
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.net = PlainUNet(channels, [settings.width * 2**level for level in range(settings.levels)], out=3)

    def forward(self, seen_BCHW: Tensor) -> Tensor:
        return torch.sigmoid(self.net(self.scale(seen_BCHW.float())))


def train_recovery(observe: Observe, image_NHWC: np.ndarray, settings: UnetSettings, out: Path) -> RecoveryNet:
    """Train on the attacker's own faces, uint8 (N, 112, 112, 3); the picture is learned at the resolution of what is seen.

    Args:
        observe: see `training`; must give maps, (B, C, H, H).
        out: folder of the log and the resume state.
    """
    sizes = check("what the server sees", observe(image_NHWC[:1], 0), "B C H H")
    network = fresh(lambda: RecoveryNet(sizes["C"], settings), settings.seed, "unet recovery")
    batches = AttackBatches(observe, image_NHWC, lambda row_B: shown(image_NHWC[row_B], sizes["H"]), settings)
    return train_attack(network, F.l1_loss, batches, settings, out, about=(image_NHWC,), label="U-Net attack")


def shown(image_NHWC: np.ndarray, side: int) -> Tensor:
    """Return uint8 faces as RGB in [0, 1] at a resolution, (N, 3, side, side)."""
    return F.adaptive_avg_pool2d(to_float(image_NHWC) * 0.5 + 0.5, side)


@torch.inference_mode()
def recover(network: nn.Module, seen_BCHW: Tensor, batch: int = 32) -> Tensor:
    """Return the recovered faces, RGB in [0, 1], float32 (B, 3, H, W)."""
    return torch.cat([network(part) for part in seen_BCHW.split(batch)]).float()
