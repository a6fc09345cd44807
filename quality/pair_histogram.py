"""Histogram of the cosines of all pairs, mated and non-mated apart, at the cost of the matrix product alone.

Tiles of the product are counted while they are in cache; nothing of size N x N is stored. Non-mated = all - mated, so the hot loop
needs no mask. Axes: N images, D embedding, K bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from ..core.errors import UserError
from .embeddings import checked_embeddings

ROWS, COLUMNS = 512, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class PairHistogram:
    """Counts of pair cosines in equal bins over [-1, 1]; a pair is counted once.

    Attributes:
        mated_K, non_mated_K: int64 counts; bin k holds -1 + 2k/K <= cosine < -1 + 2(k+1)/K, the last bin also 1.
    """

    mated_K: np.ndarray
    non_mated_K: np.ndarray

    def edges(self) -> np.ndarray:
        """Return the K + 1 borders of the bins."""
        return np.linspace(-1.0, 1.0, self.mated_K.size + 1)

    def threshold_at_fmr(self, fmr: float) -> float:
        """Lowest bin border from which at most `fmr` of the non-mated pairs lie upwards; right to one bin."""
        above_K = np.append(np.cumsum(self.non_mated_K[::-1])[::-1], 0)
        return float(self.edges()[np.argmax(above_K <= fmr * above_K[0] + 1e-9)])


def pair_histogram(embed_ND: np.ndarray, identity_N: np.ndarray, *, bins: int = 4096) -> PairHistogram:
    """Count the cosines of all N (N - 1) / 2 pairs.

    Raises:
        UserError: NaN or unnormalised embeddings, or fewer than two bins.
    """
    if bins < 2:
        raise UserError(f"{bins} bins, expected at least 2")
    embed_ND, identity_N = checked_embeddings(embed_ND, identity_N)
    all_K = np.zeros(bins, np.int64)
    _count_between(embed_ND, all_K)
    mated_K = np.zeros(bins, np.int64)
    order = np.argsort(identity_N, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(identity_N[order])) + 1):
        if rows.size > 1:
            # Each mated cosine is computed again in another product; it may fall one bin beside the first.
            _count_between(embed_ND[rows], mated_K)
    return PairHistogram(mated_K=mated_K, non_mated_K=_subtract(all_K, mated_K))


def _count_between(embed_ND: np.ndarray, count_K: np.ndarray) -> None:
    size = len(embed_ND)
    buffer = np.empty(min(ROWS, size) * min(COLUMNS, size), np.float32)
    for top in range(0, size, ROWS):
        rows = embed_ND[top : top + ROWS]
        for left in range(top, size, COLUMNS):
            columns = embed_ND[left : left + COLUMNS]
            tile = buffer[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.matmul(rows, columns.T, out=tile)
            if left == top:
                _count_upper(tile, count_K)
            else:
                _count(tile, count_K)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _count(tile: np.ndarray, count_K: np.ndarray) -> None:
    flat = tile.ravel()
    last = count_K.size - 1
    scale = np.float32(count_K.size / 2)
    for index in range(flat.size):
        count_K[min(max(np.int32((flat[index] + np.float32(1.0)) * scale), 0), last)] += 1


@numba.njit(nogil=True, cache=True, fastmath=True)
def _count_upper(tile: np.ndarray, count_K: np.ndarray) -> None:
    for row in range(tile.shape[0]):
        _count(tile[row, row + 1 :], count_K)


def _subtract(all_K: np.ndarray, mated_K: np.ndarray) -> np.ndarray:
    """all - mated; where rounding put a pair into neighbouring bins, the deficit moves to the neighbour that has it."""
    non_mated_K = all_K - mated_K
    for k in np.flatnonzero(non_mated_K < 0):
        for near in (k - 1, k + 1):
            if 0 <= near < non_mated_K.size and non_mated_K[k] < 0 < non_mated_K[near]:
                moved = min(-non_mated_K[k], non_mated_K[near])
                non_mated_K[k] += moved
                non_mated_K[near] -= moved
    return non_mated_K
