"""Random draws for compiled loops: distinct numbers from a state that belongs to a row, never to a thread or a global generator."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def next_state(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """One step of splitmix64: the new state and 64 random bits."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    bits = state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state, bits ^ (bits >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def row_state(key: np.uint64, row: int) -> np.uint64:
    """The first state of a row."""
    return next_state(key + np.uint64(row) * np.uint64(0xD1342543DE82EF95))[1]


@numba.njit(nogil=True, cache=True)
def choose(out: np.ndarray, count: int, limit: int, state: np.uint64) -> np.uint64:
    """Fill out[:count] with distinct numbers below `limit` (Floyd's algorithm: no rejection loop); return the new state."""
    for k in range(count):
        top = limit - count + k
        state, bits = next_state(state)
        pick = np.int64(((bits >> np.uint64(32)) * np.uint64(top + 1)) >> np.uint64(32))
        for earlier in range(k):
            if out[earlier] == pick:
                pick = top
                break
        out[k] = pick
    return state
