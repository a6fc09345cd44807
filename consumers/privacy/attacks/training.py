"""What the learned attacks share: batches of faces that the attacker protects anew at every step, and their loop.

The method is public; its secrets are not. So the attacker imitates clients: each time a face is seen, under other draws. Axes: N faces, B of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ....core.seeds import derive_seed
from ....core.training import LoopConfig, data_digest, run_loop, step_rows

Observe = Callable[[np.ndarray, int], Tensor]
"""(faces uint8 (B, 112, 112, 3), seed of the imitated clients) → what the server sees of them, (B, …)."""


class AttackBatches:
    """Steps of (what is seen, what is wanted).

    Args:
        target: rows → what the attack shall find of these faces, (B, …).
    """

    def __init__(self, observe: Observe, image_NHWC: np.ndarray, target: Callable[[np.ndarray], Tensor], config: LoopConfig) -> None:
        self._observe, self._image_NHWC, self._target, self._seed = observe, image_NHWC, target, config.seed
        self._batch = min(config.batch, len(image_NHWC))
        self.steps_per_epoch = len(image_NHWC) // self._batch

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, ...]:
        row_B = step_rows(len(self._image_NHWC), self._batch, step, self._seed)[rank::world]
        with torch.no_grad():
            seen = self._observe(self._image_NHWC[row_B], derive_seed(self._seed, step, rank, "clients"))
        return seen.float().clone(), self._target(row_B)


class AttackObjective(nn.Module):
    """A network and the loss between what it finds and what is wanted."""

    def __init__(self, network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self._loss = network, loss

    def forward(self, seen: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        return {"loss": self._loss(self.network(seen), wanted)}


def train_attack(network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batches: AttackBatches, config: LoopConfig, out: Path, *, about: tuple[np.ndarray, ...], label: str) -> Any:
    """Train a network on the attacker's faces and return it; `about` is the data, for the digest of the resume state."""
    run_loop(AttackObjective(network, loss), batches, config, out, data=data_digest(*about), label=label)
    return network.eval()
