"""Which rows a training step sees, and in which augmented form: a function of (seed, step), of nothing else.

A resumed training asks for the same step and gets the same bits; no iterator has a state to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        target_N: what belongs to each row: labels, or teacher rows (N, D); or several such tensors.
        batch: rows of a step over all processes together.
        seed: of the order and of the augmentation.
        groups_N: identity of each row where every identity shall be drawn equally often, else None.
        times_N: how often each row counts in a pass (0 = not at all), or None for once each; memory holds every image once.
        each: images of one identity that lie side by side, for losses over pairs; above 1 every step has batch / each different
            identities out of those with two images and more, and no image twice where an identity has enough of them.
    """

    def __init__(
        self,
        image_NHWC: np.ndarray,
        target_N: Tensor | tuple[Tensor, ...],
        *,
        batch: int,
        seed: int,
        changes: AugmentConfig,
        groups_N: np.ndarray | None = None,
        times_N: np.ndarray | None = None,
        each: int = 1,
    ) -> None:
        self._image_NHWC, self._changes = image_NHWC, changes
        self._targets = target_N if isinstance(target_N, tuple) else (target_N,)
        self._place_P = np.arange(len(image_NHWC)) if times_N is None else np.repeat(np.arange(len(image_NHWC)), times_N)
        self.batch, self._each, self._seed, self._groups_N = batch, each, seed, None if groups_N is None else np.asarray(groups_N)[self._place_P]
        self._epoch, self._order_N = -1, np.empty(0, np.int64)
        if len(self._place_P) < batch:
            raise UserError(f"the data has {len(self._place_P)} faces, less than one batch of {batch}; pass more faces or a smaller 'batch'")
        self._groups = _Groups(np.unique(self._place_P), np.asarray(groups_N), batch, each, seed) if each > 1 else None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data; the rest of a pass is dropped."""
        return len(self._place_P) // self.batch

    def rows(self, step: int) -> np.ndarray:
        """Return the indices of the rows of a step, (batch,) int64."""
        if self._groups is not None:
            return self._groups.rows(step)
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order_N = epoch, self._place_P[self._order(epoch)]
        return self._order_N[place * self.batch : (place + 1) * self.batch]

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, ...]:
        """Return this process's share of a step: augmented images, (batch/world, 3, 112, 112) in [-1, 1], and their targets.

        The images of an identity that lie side by side stay with one process.

        Raises:
            UserError: the processes cannot share the rows evenly.
        """
        if self.batch % (self._each * world):
            raise UserError(f"{world} processes cannot share {self.batch} rows of a step in groups of {self._each} evenly; choose a multiple of {self._each * world}")
        row_B = self.rows(step).reshape(-1, self._each)[rank::world].ravel()
        generator = torch.Generator().manual_seed(derive_seed(self._seed, step, rank, "augment"))
        image_BCHW = augment(to_float(self._image_NHWC[row_B]), self._changes, generator)
        return image_BCHW, *(target_N[torch.from_numpy(row_B)] for target_N in self._targets)

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self._place_P)
        if self._groups_N is None:
            return epoch_order(count, epoch, self._seed)
        rng = numpy_rng(self._seed, epoch, "order")
        by_group = np.argsort(self._groups_N, kind="stable")
        _, start_G, size_G = np.unique(self._groups_N[by_group], return_index=True, return_counts=True)
        rounds = -(-count // len(start_G))
        group_N = np.concatenate([rng.permutation(len(start_G)) for _ in range(rounds)])[:count]
        return by_group[start_G[group_N] + rng.integers(0, size_G[group_N])]


class JointBatches:
    """Steps put together of several kinds of rows (sources, branches), each with its own order and changes; the kinds lie one after the other.

    An epoch is one pass of the first kind.
    """

    def __init__(self, parts: Sequence[Batches]) -> None:
        self._parts = parts

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the first kind's data."""
        return self._parts[0].steps_per_epoch

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, ...]:
        """Return this process's share of every kind of rows."""
        return tuple(torch.cat(columns) for columns in zip(*(part(step, rank, world) for part in self._parts)))


class _Groups:
    """Different identities, `each` images of each."""

    def __init__(self, row_M: np.ndarray, groups_N: np.ndarray, batch: int, each: int, seed: int) -> None:
        if batch % each:
            raise UserError(f"{batch} rows cannot hold groups of {each} images of an identity; choose a multiple of {each}")
        self._row_M = row_M[np.argsort(groups_N[row_M], kind="stable")]
        _, start_G, size_G = np.unique(groups_N[self._row_M], return_index=True, return_counts=True)
        self._start_G, self._size_G = start_G[size_G > 1], size_G[size_G > 1]
        self._wanted, self._each, self._seed = batch // each, each, seed
        if len(self._start_G) < self._wanted:
            raise UserError(f"{len(self._start_G)} identities have two images or more, but a step of {batch} rows in groups of {each} needs {self._wanted}; choose fewer rows or more images an identity")

    def rows(self, step: int) -> np.ndarray:
        turn, place = divmod(step, len(self._start_G) // self._wanted)
        order_G = numpy_rng(self._seed, turn, "identities").permutation(len(self._start_G))
        group_P = order_G[place * self._wanted : (place + 1) * self._wanted]
        size_P = self._size_G[group_P]
        key_PM = numpy_rng(self._seed, step, "images").random((self._wanted, int(size_P.max())))
        key_PM[np.arange(key_PM.shape[1]) >= size_P[:, None]] = np.inf
        # The first `size` places are a permutation of the identity's images; with too few images it starts again.
        turned_PM = key_PM.argsort(1, kind="stable")
        chosen_PK = np.take_along_axis(turned_PM, np.arange(self._each) % size_P[:, None], 1)
        return self._row_M[self._start_G[group_P][:, None] + chosen_PK].ravel()
