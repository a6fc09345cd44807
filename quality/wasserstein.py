"""The 1-Wasserstein distance of two samples on a line: the area between their distribution functions.

W1 = ∫ |F_a(x) - F_b(x)| dx; for equal sizes this is the mean gap between the sorted values (recognition.md §7.1).
"""

from __future__ import annotations

import numba
import numpy as np

from ..core.errors import UserError


def wasserstein_1d(first: np.ndarray, second: np.ndarray) -> float:
    """Return the distance of two samples of any sizes, in the unit of the values; their order does not matter.

    Raises:
        UserError: an empty sample or one with NaN.
    """
    both = [np.sort(np.asarray(values, np.float32).ravel()) for values in (first, second)]
    if not (both[0].size and both[1].size) or np.isnan([both[0][-1], both[1][-1]]).any():
        raise UserError(f"W1 of samples of {both[0].size} and {both[1].size} values; expected at least one in each and no NaN")
    return float(area_between(*both))


@numba.njit(nogil=True, cache=True)
def area_between(first: np.ndarray, second: np.ndarray) -> float:
    """The same for sorted, non-empty samples without NaN; one pass, for compiled callers."""
    # Reciprocals once: the two divisions of a step would cost more than all the rest of it.
    per_first, per_second = 1.0 / first.size, 1.0 / second.size
    i, j, total = 0, 0, 0.0
    here = float(min(first[0], second[0]))
    while i < first.size and j < second.size:
        height = abs(i * per_first - j * per_second)
        if first[i] <= second[j]:
            there = float(first[i])
            i += 1
        else:
            there = float(second[j])
            j += 1
        total += height * (there - here)
        here = there
    # One sample is used up: its function stands at 1 and the other climbs to it.
    while i < first.size:
        total += (1.0 - i * per_first) * (first[i] - here)
        here = float(first[i])
        i += 1
    while j < second.size:
        total += (1.0 - j * per_second) * (second[j] - here)
        here = float(second[j])
        j += 1
    return total
