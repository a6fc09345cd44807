"""Do identities stay apart? Nearest other centre, uniqueness, the pairs most easily confused (generators.md (c) 2 and 6).

Centres are unit rows in the order of the identities. Axes: I identities, D embedding, R rows of a block, A accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK_CELLS = 8_000_000
_GREEDY_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """What one pass over all pairs of centres finds.

    Attributes:
        nearest_I: cosine to the nearest other centre, float32; empty for a single identity.
        neighbour_I: which one it is.
        literal_I: DCFace's literal uniqueness: cosine < threshold to ALL earlier centres.
        close: pairs with a cosine >= threshold.
        closest: the pairs (first, second, cosine) with the largest cosines, largest first.
    """

    nearest_I: np.ndarray
    neighbour_I: np.ndarray
    literal_I: np.ndarray
    close: int
    closest: tuple[tuple[int, int, float], ...]


def separation(centre_ID: np.ndarray, threshold: float, *, closest: int = 24) -> Separation:
    """Compare all centres with all others, in blocks of 32 MB."""
    count = len(centre_ID)
    nearest_I, neighbour_I = np.empty(count, np.float32), np.zeros(count, np.int64)
    literal_I, close, best = np.ones(count, bool), 0, []
    if count < 2:
        return Separation(nearest_I=nearest_I[:0], neighbour_I=neighbour_I[:0], literal_I=literal_I, close=0, closest=())
    for begin, cos_RI in _blocks(centre_ID):
        rows = np.arange(begin, begin + len(cos_RI))
        cos_RI[np.arange(rows.size), rows] = -np.inf
        neighbour_I[rows] = cos_RI.argmax(axis=1)
        nearest_I[rows] = cos_RI[np.arange(rows.size), neighbour_I[rows]]
        earlier_RI = np.where(np.arange(count) < rows[:, None], cos_RI, -np.inf)
        literal_I[rows] = earlier_RI.max(axis=1) < threshold
        close += int((earlier_RI >= threshold).sum())
        best = _largest(best, earlier_RI, begin, closest)
    return Separation(nearest_I=nearest_I, neighbour_I=neighbour_I, literal_I=literal_I, close=close, closest=tuple(best))


def greedy_unique(centre_ID: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy packing: an identity is accepted when its cosine is < threshold to all accepted before it.

    Returns:
        int64 (I,): -1 where accepted, else the accepted identity it collides with (the earliest). U_class = share of -1. The literal count of
        `separation` compares with all earlier centres, rejected ones too, and is never larger.
    """
    owner_I = np.full(len(centre_ID), -1, np.int64)
    accepted: list[int] = []
    for begin in range(0, len(centre_ID), _GREEDY_ROWS):
        block_RD = centre_ID[begin : begin + _GREEDY_ROWS]
        if accepted:
            hit_RA = block_RD @ centre_ID[accepted].T >= threshold
            owner_I[begin : begin + len(block_RD)] = np.where(hit_RA.any(axis=1), np.asarray(accepted)[hit_RA.argmax(axis=1)], -1)
        hit_RR = block_RD @ block_RD.T >= threshold
        for row in range(len(block_RD)):
            if owner_I[begin + row] < 0:
                accepted.append(begin + row)
                later = np.flatnonzero(hit_RR[row, row + 1 :]) + begin + row + 1
                owner_I[later[owner_I[later] < 0]] = begin + row
    return owner_I


def unique_curve(unique_I: np.ndarray, *, every: int = 1000) -> list[tuple[int, int]]:
    """How many of the first n identities are unique, for n = every, 2 * every, ... and all."""
    total = len(unique_I)
    return [(n, int(unique_I[:n].sum())) for n in [*range(every, total, every), total]]


def _blocks(centre_ID: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _BLOCK_CELLS // len(centre_ID))
    for begin in range(0, len(centre_ID), step):
        yield begin, centre_ID[begin : begin + step] @ centre_ID.T


def _largest(best: list[tuple[int, int, float]], earlier_RI: np.ndarray, begin: int, count: int) -> list[tuple[int, int, float]]:
    floor = best[-1][2] if len(best) == count else -np.inf
    row, column = np.nonzero(earlier_RI > floor)
    cos = earlier_RI[row, column]
    if cos.size > count:
        top = np.argpartition(-cos, count - 1)[:count]
        row, column, cos = row[top], column[top], cos[top]
    found = [(int(c), begin + int(r), float(value)) for r, c, value in zip(row, column, cos)]
    return sorted(best + found, key=lambda pair: (-pair[2], pair[0], pair[1]))[:count]
