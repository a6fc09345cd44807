"""Images that are there twice: a near-equal perceptual hash AND a high cosine of the embeddings; either alone errs on aligned faces.

Axes: N images, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from ..core.errors import UserError

HASH_BITS, COSINE = 6, 0.9
"""What re-encoding, noise and resampling leave together (see `image_statistics.perceptual_hash`)."""

MOST_CANDIDATES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Row `row` repeats the earlier row `earlier`."""

    row: int
    earlier: int
    bits: int
    cosine: float


def find_duplicates(embed_ND: np.ndarray, hash_N: np.ndarray, *, bits: int = HASH_BITS, cosine: float = COSINE) -> list[Duplicate]:
    """Pairs within `bits` of the 64 and with a cosine >= `cosine`, by row, then by earlier row; anywhere in the set, also across identities."""
    pair_P2 = near_hashes(hash_N, bits)
    found = []
    for begin in range(0, len(pair_P2), 65_536):
        earlier_P, row_P = pair_P2[begin : begin + 65_536].T
        cos_P = np.einsum("pd,pd->p", embed_ND[row_P], embed_ND[earlier_P])
        bits_P = _bit_counts(hash_N[row_P] ^ hash_N[earlier_P])
        found += [Duplicate(row=int(row_P[k]), earlier=int(earlier_P[k]), bits=int(bits_P[k]), cosine=float(cos_P[k])) for k in np.flatnonzero(cos_P >= cosine)]
    return sorted(found, key=lambda pair: (pair.row, pair.earlier))


def near_hashes(hash_N: np.ndarray, bits: int) -> np.ndarray:
    """Pairs (earlier, row) of hashes within `bits` of 64, int64 (P, 2).

    Two hashes within `bits` agree wholly in one of bits + 1 bands (pigeonhole), so only those that share a band are compared: 500,000 hashes in seconds.
    Rows with one equal hash are compared with the first of them and with the one before, not each with each, and only the first meets other hashes: a set
    of half a million equal images has half a million pairs, not 10^11.

    Raises:
        UserError: bits outside 0..16, or more than MOST_CANDIDATES near pairs of different hashes.
    """
    if not 0 <= bits <= 16:
        raise UserError(f"{bits} hash bits; expected 0 to 16 of 64 (different faces are 28 apart)")
    order = np.argsort(hash_N, kind="stable")
    new_N = np.diff(hash_N[order], prepend=~hash_N[order[:1]]) != 0 if len(hash_N) else np.zeros(0, bool)
    starts = np.flatnonzero(new_N)
    size_G = np.diff([*starts, len(order)])
    first_N = np.repeat(order[starts], size_G)
    equal = np.flatnonzero(~new_N)
    chain = np.stack([order[equal - 1], order[equal]], axis=1)
    star = np.stack([first_N[equal], order[equal]], axis=1)
    near = order[starts][_near_distinct(hash_N[order[starts]], bits)] if bits else np.empty((0, 2), np.int64)
    return np.unique(np.sort(np.concatenate((chain, star, near)), axis=1), axis=0).astype(np.int64)


def _near_distinct(hash_G: np.ndarray, bits: int) -> np.ndarray:
    """Index pairs of near hashes, all different; each pair is reported by the first band it shares."""
    cuts = np.linspace(0, 64, bits + 2).round().astype(np.int64)
    masks = np.array([((1 << int(width)) - 1) << int(low) for low, width in zip(cuts[:-1], np.diff(cuts))], dtype=np.uint64)
    parts = []
    for band in range(bits + 1):
        order = np.argsort(hash_G & masks[band], kind="stable")
        out_P2 = np.empty((MOST_CANDIDATES // 8, 2), np.int64)
        found = _compare_runs(hash_G, order, masks, band, bits, out_P2)
        if found > len(out_P2):
            out_P2 = np.empty((min(found, MOST_CANDIDATES), 2), np.int64)
            found = _compare_runs(hash_G, order, masks, band, bits, out_P2)
        if found > MOST_CANDIDATES:
            raise UserError(f"more than {MOST_CANDIDATES:,} pairs of images have hashes within {bits} bits: the set is full of near copies; compare with fewer bits")
        parts.append(out_P2[:found].copy())
    return np.concatenate(parts)


@numba.njit(nogil=True, cache=True)
def _compare_runs(hash_G, order, masks, band, bits, out_P2):
    found, begin = 0, 0
    while begin < order.size:
        key = hash_G[order[begin]] & masks[band]
        end = begin + 1
        while end < order.size and hash_G[order[end]] & masks[band] == key:
            end += 1
        for i in range(begin, end):
            left = hash_G[order[i]]
            for j in range(i + 1, end):
                apart = left ^ hash_G[order[j]]
                if _bits(apart) <= bits and not _agrees_before(apart, masks, band):
                    if found < out_P2.shape[0]:
                        out_P2[found, 0], out_P2[found, 1] = order[i], order[j]
                    found += 1
        begin = end
    return found


@numba.njit(inline="always")
def _agrees_before(apart, masks, band):
    for earlier in range(band):
        if apart & masks[earlier] == 0:
            return True
    return False


@numba.njit(inline="always")
def _bits(x):
    # Sums of ever wider fields; LLVM knows the pattern and emits the processor's own instruction.
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@numba.njit(nogil=True, cache=True)
def _bit_counts(value_P):
    counts = np.empty(value_P.size, np.int64)
    for k in range(value_P.size):
        counts[k] = _bits(value_P[k])
    return counts
