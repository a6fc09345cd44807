"""Which rows a training step sees, and in which augmented form: a function of (seed, step), of nothing else.

A resumed training asks for the same step and gets the same bits; no iterator has a state to be saved.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.images import to_float
from ..core.seeds import derive_seed, numpy_rng
from ..core.training import epoch_order
from .augment import AugmentConfig, augment


class Batches:
    """Training batches held in memory.

    Args:
        image_NHWC: uint8 faces, (N, 112, 112, 3).
        target_N: what belongs to each row: labels, or teacher rows (N, D).
        batch: rows of a step over all processes together.
        seed: of the order and of the augmentation.
        groups_N: identity of each row where every identity shall be drawn equally often, else None.
    """

    def __init__(self, image_NHWC: np.ndarray, target_N: Tensor, *, batch: int, seed: int, changes: AugmentConfig, groups_N: np.ndarray | None = None) -> None:
        if len(image_NHWC) < batch:
            raise UserError(f"the data has {len(image_NHWC)} faces, less than one batch of {batch}; pass more faces or a smaller 'batch'")
        self._image_NHWC, self._target_N, self._changes = image_NHWC, target_N, changes
        self._batch, self._seed, self._groups_N = batch, seed, groups_N
        self._epoch, self._order_N = -1, np.empty(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data; the rest of a pass is dropped."""
        return len(self._image_NHWC) // self._batch

    def rows(self, step: int) -> np.ndarray:
        """Return the indices of the rows of a step, (batch,) int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, self._order(epoch)
        return self._order_N[place * self._batch : (place + 1) * self._batch]

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Return this process's share of a step: augmented images, (batch/world, 3, 112, 112) in [-1, 1], and their targets."""
        row_B = self.rows(step)[rank::world]
        generator = torch.Generator().manual_seed(derive_seed(self._seed, step, rank, "augment"))
        image_BCHW = augment(to_float(self._image_NHWC[row_B]), self._changes, generator)
        return image_BCHW, self._target_N[torch.from_numpy(row_B)]

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self._image_NHWC)
        if self._groups_N is None:
            return epoch_order(count, epoch, self._seed)
        rng = numpy_rng(self._seed, epoch, "order")
        by_group = np.argsort(self._groups_N, kind="stable")
        _, start_G, size_G = np.unique(self._groups_N[by_group], return_index=True, return_counts=True)
        rounds = -(-count // len(start_G))
        group_N = np.concatenate([rng.permutation(len(start_G)) for _ in range(rounds)])[:count]
        return by_group[start_G[group_N] + rng.integers(0, size_G[group_N])]
