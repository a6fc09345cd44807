"""SDD-FIQA quality labels: how far an image's cosines to its own identity lie from its cosines to others. Ou et al., CVPR 2021.

Q_i = W1(S^P_i, S^N_i), 1-Wasserstein distance of the cosines to the other images of the identity and to images of other identities
(recognition.md §7.1). Axes: N images, D embedding, R rows of a block, P pool.
"""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np

from ..core.errors import UserError
from ..core.seeds import derive_seed, numpy_rng
from .embeddings import checked_embeddings

Mode = Literal["published", "exact", "pool"]

_BLOCK_CELLS = 4_000_000


def sdd_fiqa(
    embed_ND: np.ndarray,
    identity_N: np.ndarray,
    *,
    mode: Mode = "published",
    seed: int = 0,
    draws: int = 24,
    rounds: int = 12,
    pool: int = 288,
    signed: bool = False,
    raw: bool = False,
) -> np.ndarray:
    """Return quality labels 0..100 relative to this data set, float32, (N,), larger is better; NaN for identities with one image.

    The distances are averaged over the rounds and normalised once, as the paper's expectation asks (the released code normalises each round).

    Args:
        embed_ND: unit rows of a trained recogniser.
        mode: "published": `rounds` times, `draws` positives and `draws` negatives of each image, drawn without replacement (fewer where
            fewer exist). "exact": all positives and all negatives. "pool": all positives against one pool of `pool` images that all
            rows share (24 x 12 as in the publication, for one matrix product).
        seed: the draws depend on it and on the image's row, on nothing else.
        signed: guard against wrong labels: 0 where the mean positive lies below the mean negative. W1 has no sign, so an image under
            the wrong name scores high without it.
        raw: return the distances W1 themselves, in cosine units.

    Raises:
        UserError: NaN embeddings, fewer than two identities, or a pool that holds no other identity for some image.
    """
    embed_ND, identity_N = checked_embeddings(embed_ND, identity_N)
    order = np.argsort(identity_N, kind="stable")
    _, start_I, count_I = np.unique(identity_N[order], return_index=True, return_counts=True)
    if start_I.size < 2:
        raise UserError("SDD-FIQA compares with other identities, but there is only one; expected at least two identities")
    if min(draws, rounds, pool) < 1:
        raise UserError(f"draws {draws}, rounds {rounds}, pool {pool}; expected at least 1 of each")
    sorted_ND = embed_ND[order]
    start_N, count_N = np.repeat(start_I, count_I), np.repeat(count_I, count_I)
    if mode == "published":
        key = np.uint64(derive_seed(seed, "sdd_fiqa"))
        sorted_N = _drawn_distances(sorted_ND, start_N, count_N, order, draws, rounds, key, signed)
    elif mode in ("exact", "pool"):
        size = len(order)
        drawn = np.arange(size) if mode == "exact" or pool >= size else np.sort(numpy_rng(seed, "sdd_fiqa", "pool").choice(size, pool, replace=False))
        sorted_N = _pool_distances(sorted_ND, start_N, count_N, drawn, signed)
    else:
        raise UserError(f"unknown mode '{mode}' of SDD-FIQA; expected published, exact or pool")
    distance_N = np.empty(len(order), np.float32)
    distance_N[order] = sorted_N
    return distance_N if raw else normalise_labels(distance_N)


def normalise_labels(distance_N: np.ndarray) -> np.ndarray:
    """Map finite values to 0..100 by minimum and maximum, float32; NaN stays NaN; equal values all become 100 (none is worse)."""
    known_N = np.isfinite(distance_N)
    if not known_N.any():
        return np.full(distance_N.shape, np.nan, np.float32)
    least, most = float(distance_N[known_N].min()), float(distance_N[known_N].max())
    if most == least:
        return np.where(known_N, 100.0, np.nan).astype(np.float32)
    return (100.0 * (distance_N - least) / (most - least)).astype(np.float32)


def wasserstein_1d(first: np.ndarray, second: np.ndarray) -> float:
    """1-Wasserstein distance of two samples of any sizes: the area between their distribution functions."""
    return float(_area_between(np.sort(np.asarray(first, np.float32)), np.sort(np.asarray(second, np.float32))))


@numba.njit(nogil=True, cache=True)
def _area_between(first: np.ndarray, second: np.ndarray) -> float:
    i, j, total = 0, 0, 0.0
    here = min(first[0], second[0])
    while i < first.size or j < second.size:
        if j == second.size or (i < first.size and first[i] <= second[j]):
            there = first[i]
            total += abs(i / first.size - j / second.size) * (there - here)
            i += 1
        else:
            there = second[j]
            total += abs(i / first.size - j / second.size) * (there - here)
            j += 1
        here = there
    return total


@numba.njit(nogil=True, cache=True)
def _guarded(positive: np.ndarray, negative: np.ndarray, signed: bool) -> float:
    if signed and positive.mean() < negative.mean():
        return 0.0
    return _area_between(positive, negative)


@numba.njit(nogil=True, cache=True)
def _dot(embed_ND: np.ndarray, a: int, b: int) -> float:
    total = np.float32(0.0)
    for d in range(embed_ND.shape[1]):
        total += embed_ND[a, d] * embed_ND[b, d]
    return total


@numba.njit(nogil=True, cache=True)
def _next(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """One step of splitmix64: the new state and 64 random bits."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    bits = state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, bits ^ (bits >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _choose(out: np.ndarray, count: int, limit: int, state: np.uint64) -> np.uint64:
    """Fill out[:count] with distinct numbers below `limit` (Floyd's algorithm: no rejection loop); return the new state."""
    for k in range(count):
        top = limit - count + k
        state, bits = _next(state)
        pick = np.int64(((bits >> np.uint64(32)) * np.uint64(top + 1)) >> np.uint64(32))
        for earlier in range(k):
            if out[earlier] == pick:
                pick = top
                break
        out[k] = pick
    return state


@numba.njit(nogil=True, cache=True)
def _drawn_distances(embed_ND, start_N, count_N, order_N, draws, rounds, key, signed):
    size = embed_ND.shape[0]
    result = np.full(size, np.nan, np.float32)
    picks = np.empty(draws, np.int64)
    for row in range(size):
        start, count = start_N[row], count_N[row]
        if count < 2:
            continue
        positive = np.empty(min(draws, count - 1), np.float32)
        negative = np.empty(min(draws, size - count), np.float32)
        _, state = _next(key + np.uint64(order_N[row]) * np.uint64(0xD1342543DE82EF95))
        total = 0.0
        for _ in range(rounds):
            state = _choose(picks, positive.size, count - 1, state)
            for k in range(positive.size):
                other = start + picks[k]
                positive[k] = _dot(embed_ND, row, other + (other >= row))  # the image is not its own positive
            state = _choose(picks, negative.size, size - count, state)
            for k in range(negative.size):
                negative[k] = _dot(embed_ND, row, picks[k] + (count if picks[k] >= start else 0))
            total += _guarded(np.sort(positive), np.sort(negative), signed)
        result[row] = total / rounds
    return result


def _pool_distances(embed_ND: np.ndarray, start_N: np.ndarray, count_N: np.ndarray, pool_P: np.ndarray, signed: bool) -> np.ndarray:
    result = np.full(len(embed_ND), np.nan, np.float32)
    pooled_PD = embed_ND[pool_P]
    own_from_N, own_to_N = np.searchsorted(pool_P, start_N), np.searchsorted(pool_P, start_N + count_N)
    lonely_N = (own_to_N - own_from_N == pool_P.size) & (count_N >= 2)
    if lonely_N.any():
        raise UserError(f"the pool of {pool_P.size} images holds no other identity for {int(lonely_N.sum())} images; enlarge `pool`")
    step = max(1, _BLOCK_CELLS // pool_P.size)
    for begin in range(0, len(embed_ND), step):
        rows = np.arange(begin, min(begin + step, len(embed_ND)))
        cos_RP = embed_ND[rows] @ pooled_PD.T
        column_P = np.arange(pool_P.size)
        own_RP = (column_P >= own_from_N[rows, None]) & (column_P < own_to_N[rows, None])
        cos_RP[own_RP] = np.inf  # sorted to the end and left out there
        cos_RP.sort(axis=1)
        valid_R = pool_P.size - (own_to_N - own_from_N)[rows]
        _block_distances(embed_ND, start_N, count_N, rows, cos_RP, valid_R, signed, result)
    return result


@numba.njit(nogil=True, cache=True)
def _block_distances(embed_ND, start_N, count_N, rows, cos_RP, valid_R, signed, result):
    for r in range(rows.size):
        row = rows[r]
        start, count = start_N[row], count_N[row]
        if count < 2:
            continue
        positive = np.empty(count - 1, np.float32)
        for k in range(count - 1):
            positive[k] = _dot(embed_ND, row, start + k + (start + k >= row))
        positive.sort()
        result[row] = _guarded(positive, cos_RP[r, : valid_R[r]], signed)
