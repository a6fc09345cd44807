"""Exact similarity statistics of all pairs in bounded memory: tiles of a matrix product, each counted into a histogram at once.

The impostor pairs are all pairs minus the genuine ones, so that the hot loop needs no mask; genuine pairs are counted from the very same tiles, hence
the difference is exact, bin by bin (method notes, anchors §5c).

Axes: N embeddings sorted by identity, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch

from ..core.check import check, check_unit_rows

BINS = 4096
"""Bins over [-1, 1]: width 4.9e-4."""

TILE_ROWS, TILE_COLUMNS = 512, 2048
"""4 MiB of float32 cosines: the tile is still in the cache when it is counted."""


@dataclass(frozen=True, kw_only=True)
class PairHistogram:
    """Counts of pairs by similarity; `+` merges the parts of a larger set.

    Attributes:
        all_C: every pair once, int64 (BINS,); bin c holds cosines in [-1 + 2c/BINS, -1 + 2(c+1)/BINS).
        genuine_C: the pairs of one identity among them.
    """

    all_C: np.ndarray
    genuine_C: np.ndarray

    @property
    def impostor_C(self) -> np.ndarray:
        """Pairs of two identities, int64 (BINS,)."""
        return self.all_C - self.genuine_C

    def __add__(self, other: PairHistogram) -> PairHistogram:
        return PairHistogram(all_C=self.all_C + other.all_C, genuine_C=self.genuine_C + other.genuine_C)

    def threshold_at_fmr(self, fmr: float) -> float:
        """Return the lowest bin edge at which at most the share `fmr` of impostor pairs is at or above it.

        Raises:
            ValueError: `fmr` outside (0, 1], or no impostor pairs.
        """
        if not 0.0 < fmr <= 1.0:
            raise ValueError(f"fmr is {fmr}, expected a rate above 0 and up to 1")
        above_C = _at_or_above(self.impostor_C)
        if above_C[0] == 0:
            raise ValueError("there are no impostor pairs (all rows belong to one identity); expected at least two identities")
        return float(edges()[int(np.argmax(above_C <= fmr * above_C[0]))])

    def fmr_at(self, threshold: float) -> float:
        """Return the share of impostor pairs at or above a bin edge (a threshold inside a bin counts the whole bin)."""
        return _share_above(self.impostor_C, threshold)

    def fnmr_at(self, threshold: float) -> float:
        """Return the share of genuine pairs below a bin edge; NaN if there are none."""
        return 1.0 - _share_above(self.genuine_C, threshold)


def edges() -> np.ndarray:
    """Return the BINS + 1 bin edges from -1 to 1, float64."""
    return np.linspace(-1.0, 1.0, BINS + 1)


def pair_histogram(embed_ND: np.ndarray, identity_N: np.ndarray) -> PairHistogram:
    """Count the cosines of all N(N-1)/2 pairs, exactly, in memory of one tile beside the embeddings.

    Args:
        embed_ND: unit float32 rows, (N, D).
        identity_N: labels, (N,); any order.

    Raises:
        ValueError: rows that are not unit length (NaN included), or labels of another length.
    """
    check_unit_rows("embed_ND", embed_ND)
    check("identity_N", np.asarray(identity_N), str(len(embed_ND)))
    order = np.argsort(identity_N, kind="stable")
    sorted_ND = np.ascontiguousarray(embed_ND[order], np.float32)
    _, first_I = np.unique(np.asarray(identity_N)[order], return_index=True)
    end_N = np.repeat([*first_I[1:], len(order)], np.diff([*first_I, len(order)])).astype(np.int64)
    all_C, genuine_C = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for row, column, cos_RC in tiles(sorted_ND):
        count_tile(cos_RC, row, column, all_C)
        _count_genuine(cos_RC, row, column, end_N, genuine_C)
    return PairHistogram(all_C=all_C, genuine_C=genuine_C)


def cross_histogram(embed_ND: np.ndarray, other_MD: np.ndarray) -> np.ndarray:
    """Count the cosines of every row with every row of another set, int64 (BINS,), e.g. minted against real people.

    Raises:
        ValueError: rows that are not unit length (NaN included), or two embedding lengths.
    """
    check_unit_rows("embed_ND", embed_ND)
    check_unit_rows("other_MD", other_MD)
    check("other_MD", other_MD, f"M {embed_ND.shape[1]}")
    counts_C = np.zeros(BINS, np.int64)
    for start in range(0, len(embed_ND), TILE_ROWS):
        for column in range(0, len(other_MD), TILE_COLUMNS):
            cos_RC = embed_ND[start : start + TILE_ROWS].astype(np.float32) @ other_MD[column : column + TILE_COLUMNS].astype(np.float32).T
            count_tile(cos_RC, 0, len(cos_RC), counts_C)
    return counts_C


def tiles(embed_ND: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (first row, first column, cosines) of the tiles that touch the upper triangle; the array is reused by the next tile."""
    rows_ND = torch.from_numpy(embed_ND)
    buffer = torch.empty(TILE_ROWS * TILE_COLUMNS)
    for row in range(0, len(embed_ND), TILE_ROWS):
        part = rows_ND[row : row + TILE_ROWS]
        for column in range(row, len(embed_ND), TILE_COLUMNS):
            other = rows_ND[column : column + TILE_COLUMNS]
            cos_RC = buffer[: len(part) * len(other)].view(len(part), len(other))
            torch.mm(part, other.T, out=cos_RC)
            yield row, column, cos_RC.numpy()


@numba.njit(nogil=True, cache=True)
def count_tile(cos_RC: np.ndarray, row: int, column: int, counts_C: np.ndarray) -> None:
    """Add the cosines right of the diagonal of a tile at (row, column) to int64 counts; cosines beyond ±1 go to the last bins."""
    # Bins first (vectorised), then increments. Four histograms in turn: neighbouring cosines often share a bin, and an increment would wait
    # for the one before. Unsigned positions spare the test for negative indices. Together 0.6 ns a pair instead of 1.8.
    zeroth, first, second, third = np.zeros(BINS, np.int32), np.zeros(BINS, np.int32), np.zeros(BINS, np.int32), np.zeros(BINS, np.int32)
    columns, one = np.uint64(cos_RC.shape[1]), np.uint64(1)
    bin_C = np.empty(cos_RC.shape[1], np.uint16)
    for r in range(cos_RC.shape[0]):
        _find_bins(cos_RC[r], bin_C)
        c = np.uint64(max(0, min(row + r + 1 - column, cos_RC.shape[1])))
        while c + one + one + one < columns:
            zeroth[bin_C[c]] += 1
            first[bin_C[c + one]] += 1
            second[bin_C[c + one + one]] += 1
            third[bin_C[c + one + one + one]] += 1
            c += one + one + one + one
        while c < columns:
            zeroth[bin_C[c]] += 1
            c += one
    for k in range(BINS):
        counts_C[k] += zeroth[k] + first[k] + second[k] + third[k]


@numba.njit(nogil=True, cache=True)
def _count_genuine(cos_RC: np.ndarray, row: int, column: int, end_N: np.ndarray, counts_C: np.ndarray) -> None:
    """Add the pairs of one identity: row r meets the columns after it up to the end of its identity."""
    bin_C = np.empty(cos_RC.shape[1], np.uint16)
    for r in range(cos_RC.shape[0]):
        begin, end = max(0, row + r + 1 - column), min(cos_RC.shape[1], end_N[row + r] - column)
        if begin < end:
            _find_bins(cos_RC[r, begin:end], bin_C)
            for c in range(end - begin):
                counts_C[bin_C[c]] += 1


@numba.njit(nogil=True, cache=True)
def _find_bins(cos_C: np.ndarray, bin_C: np.ndarray) -> None:
    scale, top, zero = np.float32(BINS / 2), np.float32(BINS - 1), np.float32(0)
    for c in range(cos_C.size):
        place = cos_C[c] * scale + scale
        place = place if place > zero else zero
        place = place if place < top else top
        bin_C[c] = np.uint16(np.int32(place))


def _at_or_above(counts_C: np.ndarray) -> np.ndarray:
    """Pairs at or above each of the BINS + 1 edges."""
    return np.append(np.cumsum(counts_C[::-1])[::-1], 0)


def _share_above(counts_C: np.ndarray, threshold: float) -> float:
    above_C = _at_or_above(counts_C)
    first = int(np.clip(np.searchsorted(edges(), threshold, side="right") - 1, 0, BINS)) if threshold > -1.0 else 0
    return float(above_C[first] / above_C[0]) if above_C[0] else float("nan")
