"""Bootstrap over identities: the images of a person are not independent, so people are drawn, not images.

Axes: I identities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..core.seeds import numpy_rng
from ..core.stats import Interval

DRAWS, LEVEL = 200, 0.95
NOTHING = Interval(value=float("nan"), low=float("nan"), high=float("nan"))


def resamples(identities: int, *, draws: int = DRAWS, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each identity was drawn, int64 (I,), `draws` times; the same seed gives the same draws to every figure."""
    rng = numpy_rng(seed, "bootstrap identities")
    for _ in range(draws):
        yield np.bincount(rng.integers(identities, size=identities), minlength=identities)


def mean_interval(value_I: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of one number an identity with its percentile interval; NaN numbers are left out.

    Where each number already depends on the other identities (nearest centre, uniqueness), they stand fixed while identities are drawn: two
    copies of a drawn identity would otherwise collide with each other.
    """
    value_I = np.asarray(value_I, np.float64)
    known_I = np.isfinite(value_I)
    if not known_I.any():
        return NOTHING
    known = value_I[known_I]
    means = [float(times @ known) / known.size for times in resamples(known.size, draws=draws, seed=seed)]
    return around(float(known.mean()), means if known.size > 1 else [])


def around(value: float, drawn: Sequence[float], level: float = LEVEL) -> Interval:
    """Return a value with the percentiles of its bootstrap draws; NaN bounds where there are none."""
    finite = np.asarray([number for number in drawn if np.isfinite(number)])
    if not finite.size:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(finite, ((1 - level) / 2, (1 + level) / 2))
    return Interval(value=value, low=float(low), high=float(high))
