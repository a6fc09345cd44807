"""Attacks A4 and A5: learn to read the identity embedding out of what the server sees, from faces of the attacker's own.

After FaceLinkGen (a student network, loss 1 - cosine) for pictures and FEM (a perceptron between embedding spaces) for templates; both as described
second hand in consumers.md §9. What it finds is linked with photos, or drawn as a face by `template_inversion`.
Axes: N faces of the attacker, B faces, S numbers seen, C H W, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....core.check import check, check_unit_rows
from ....core.training import LoopConfig, fresh
from ....recognition.backbones import BackboneConfig
from ....recognition.kd import cosine_loss
from .training import AttackBatches, Observe, train_attack


class MapSettings(LoopConfig):
    """The attacker's training.

    Attributes:
        hidden: width of the perceptron for templates.
        width: of the MobileFaceNet for pictures.
    """

    optimiser: Literal["sgd", "adamw"] = "adamw"
    steps: int = Field(1500, ge=0)
    batch: int = Field(128, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    hidden: int = Field(512, ge=8)
    width: float = Field(0.25, gt=0)


class VectorReader(nn.Module):
    """Template → embedding: the best linear map, and two hidden layers that begin at nothing and learn what it misses."""

    def __init__(self, numbers: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))
        self.line = nn.Linear(numbers, dim)
        self.path = nn.Sequential(nn.Linear(numbers, hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(0.2), nn.Linear(hidden, dim))

    def begin(self, seen_NS: Tensor, embed_ND: Tensor) -> None:
        """Fit the scale of what is seen, and the linear map by ridge regression."""
        self.mean.copy_(seen_NS.mean(0))
        self.spread.copy_(seen_NS.std(0).clamp_min(1e-8))
        scaled_NS = ((seen_NS - self.mean) / self.spread).double()
        middle_D = embed_ND.double().mean(0)
        gram = scaled_NS.T @ scaled_NS + 0.03 * len(scaled_NS) * torch.eye(scaled_NS.shape[1], dtype=torch.float64)
        with torch.no_grad():
            self.line.weight.copy_(torch.linalg.solve(gram, scaled_NS.T @ (embed_ND.double() - middle_D)).T)
            self.line.bias.copy_(middle_D)
            self.path[-1].weight.zero_()
            self.path[-1].bias.zero_()

    def forward(self, seen_BS: Tensor) -> Tensor:
        x = (seen_BS.float().flatten(1) - self.mean) / self.spread
        return self.line(x) + self.path(x)


class MapReader(nn.Module):
    """Protected picture → embedding: the channels, normalised, into a MobileFaceNet of that many."""

    def __init__(self, channels: int, side: int, dim: int, width: float) -> None:
        super().__init__()
        self.scale = nn.BatchNorm2d(channels, affine=False)
        self.network = BackboneConfig(embed_dim=dim, width=width, channels=channels, side=side, affine=True).build()

    def forward(self, seen_BCHW: Tensor) -> Tensor:
        return self.network(self.scale(seen_BCHW.float()))


def train_reader(observe: Observe, image_NHWC: np.ndarray, embed_ND: np.ndarray, settings: MapSettings, out: Path) -> nn.Module:
    """Train on pairs of what the server sees, (B, S) or (B, C, H, H), and the embedding of the same face, unit (N, D)."""
    check_unit_rows("embed_ND", embed_ND)
    check("embed_ND", embed_ND, f"{len(image_NHWC)} D")
    target_ND, dim = torch.from_numpy(np.asarray(embed_ND, np.float32)), embed_ND.shape[1]
    first = observe(image_NHWC[:1], 0)

    def build() -> nn.Module:
        if first.ndim == 2:
            reader = VectorReader(first.shape[1], dim, settings.hidden)
            reader.begin(observe(image_NHWC, 0).float(), target_ND)
            return reader
        return MapReader(first.shape[1], check("what the server sees", first, "B C H H")["H"], dim, settings.width)

    batches = AttackBatches(observe, image_NHWC, lambda row_B: target_ND[torch.from_numpy(row_B)], settings)
    return train_attack(fresh(build, settings.seed, "reader"), lambda found_BD, wanted_BD: cosine_loss(F.normalize(found_BD), wanted_BD), batches, settings, out, about=(image_NHWC, target_ND.numpy()), label="embedding attack")


@torch.inference_mode()
def read(network: nn.Module, seen_B: Tensor, batch: int = 256) -> np.ndarray:
    """Return the embeddings read out, unit float32 (B, D)."""
    return F.normalize(torch.cat([network(part) for part in seen_B.split(batch)]).float()).numpy()
