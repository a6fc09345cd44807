"""Can two protected templates of one person be told from those of two people without the keys? The system measure D_sys.

Source: Gomez-Barrero et al., "General framework to evaluate unlinkability in biometric template protection systems", IEEE TIFS 2018; the measure that
reports of the ISO/IEC 30136 type use. Two differences from the public script: the sum D·y·Δ over all bins (its trapezoid over bin centres halves the
two end bins: fully separated scores gave 0.972 in place of 1), and nothing of numpy that numpy 2 took away. Axes: C bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.check import check
from ...core.errors import UserError
from ...core.seeds import numpy_rng

LEAST_MATED, LEAST_NON_MATED = 10_000, 100_000
"""Below these numbers of scores even identical distributions give a D_sys that cannot be called 0: with 100 bins 0.016 at 10^4 / 10^5, but
0.093 at 1,000 / 1,000 and 0.32 at 1,000 / 100 (consumers.md §10)."""
MOST_BINS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlinkability:
    """D_sys of a set of linkage scores.

    Attributes:
        d_sys: 0 = the scores say nothing about linkage, 1 = fully linkable.
        floor: what the same numbers of scores give where there is nothing to link (mean over permutations of the labels).
        floor_high: 95 % quantile of that; a D_sys at or below it is not told from 0.
        mated, non_mated, bins: sizes.
        resolved: whether there are at least LEAST_MATED and LEAST_NON_MATED scores; if not, report the floor beside the value.
    """

    d_sys: float
    floor: float
    floor_high: float
    mated: int
    non_mated: int
    bins: int
    resolved: bool


def d_sys(mated: np.ndarray, non_mated: np.ndarray, *, omega: float = 1.0, permutations: int = 20) -> Unlinkability:
    """Return D_sys of linkage scores with its finite-sample floor.

    Args:
        mated: linkage scores of templates of one person under different keys; non_mated: of two people. Any scale.
        omega: prior odds p(mated) / p(non-mated).
        permutations: random relabellings for the floor.

    Raises:
        UserError: no scores of a kind, fewer than 10 mated ones, NaN or infinite scores, or odds that are not positive.
    """
    mated, non_mated = (np.asarray(scores, np.float64).ravel() for scores in (mated, non_mated))
    if mated.size < 10 or not non_mated.size:
        raise UserError(f"{mated.size} mated and {non_mated.size} non-mated linkage scores; expected at least 10 and 1 ({LEAST_MATED:,} and {LEAST_NON_MATED:,} for a D_sys worth reporting)")
    if not (np.isfinite(mated).all() and np.isfinite(non_mated).all()):
        raise UserError("linkage scores hold NaN or infinite values; expected finite numbers: look at the templates they came from")
    # As in the reference: one bin for ten mated scores, 100 at most. Integer division, or numpy refuses the number of bins.
    bins = max(1, min(mated.size // 10, MOST_BINS))
    value = _from_scores(mated, non_mated, bins, omega)
    rng, both = numpy_rng("unlinkability", "floor"), np.concatenate((mated, non_mated))
    shuffled = [rng.permutation(both) for _ in range(permutations)]
    floors = [_from_scores(scores[: mated.size], scores[mated.size :], bins, omega) for scores in shuffled] or [float("nan")]
    return Unlinkability(
        d_sys=value, floor=float(np.mean(floors)), floor_high=float(np.quantile(floors, 0.95)), mated=mated.size, non_mated=non_mated.size, bins=bins,
        resolved=mated.size >= LEAST_MATED and non_mated.size >= LEAST_NON_MATED,
    )  # fmt: skip


def local_linkability(mated_C: np.ndarray, non_mated_C: np.ndarray, omega: float = 1.0) -> np.ndarray:
    """D(s) of each bin from the two densities (or shares): 0 where LR·ω ≤ 1, else 2·LRω / (1 + LRω) - 1; 1 where only mated scores fall, (C,) in [0, 1]."""
    check("non_mated_C", non_mated_C, str(len(mated_C)), lo=0.0)
    check("mated_C", mated_C, "C", lo=0.0)
    if not 0.0 < omega < np.inf:
        raise UserError(f"omega is {omega}, expected positive prior odds (1 = as likely mated as not)")
    # The same with both densities multiplied out: no division by an empty bin.
    odds_C, against_C = omega * np.asarray(mated_C, float), np.asarray(non_mated_C, float)
    total_C = odds_C + against_C
    return np.clip(np.divide(odds_C - against_C, total_C, out=np.zeros_like(total_C), where=total_C > 0), 0.0, None)


def d_sys_of_shares(mated_C: np.ndarray, non_mated_C: np.ndarray, omega: float = 1.0) -> float:
    """D_sys = Σ D(s) p(s | mated) from the share of scores in each bin (each sums to 1)."""
    return float(local_linkability(mated_C, non_mated_C, omega) @ np.asarray(mated_C, float))


def _from_scores(mated: np.ndarray, non_mated: np.ndarray, bins: int, omega: float) -> float:
    low, high = min(mated.min(), non_mated.min()), max(mated.max(), non_mated.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return 0.0  # every score is the same, to the rounding of float32: nothing to tell by
    shares = [np.histogram(scores, bins, (low, high))[0] / scores.size for scores in (mated, non_mated)]
    return d_sys_of_shares(*shares, omega)
