"""Statistics of similarity scores: AUC, EER, FNMR@FMR, TAR@FAR, d', FDR and bootstrap intervals.

Scores are similarities, larger = same person; `same` is True for mated pairs. FMR(t) = P(non-mated >= t), FNMR(t) = P(mated < t).
Axes: P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .errors import UserError
from .seeds import numpy_rng

FarRule = Literal["conservative", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """One threshold and the two rates there.

    Attributes:
        threshold: a pair is accepted when its score >= threshold; inf accepts nothing.
        fmr: share of non-mated pairs accepted (= FAR).
        tar: share of mated pairs accepted (= 1 - FNMR).
        resolved: False when the wanted rate was below 1 / non-mated pairs, so that the rate is nominal only.
    """

    threshold: float
    fmr: float
    tar: float
    resolved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A statistic on all pairs and its percentile bootstrap interval."""

    value: float
    low: float
    high: float


def check_scores(score_P: np.ndarray, same_P: np.ndarray, names: Sequence[object] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores as float64 and the labels as bool.

    Args:
        names: what to call the pairs in a message; their index without it.

    Raises:
        UserError: different lengths, labels other than 0 and 1, or a score that is NaN or infinite (names the first such pair).
    """
    score_P, label_P = np.asarray(score_P, dtype=np.float64), np.asarray(same_P)
    if score_P.ndim != 1 or score_P.shape != label_P.shape:
        raise UserError(f"scores have shape {score_P.shape} and labels {label_P.shape}; expected one of each for every pair")
    if not np.isin(label_P, (0, 1)).all():
        raise UserError("labels hold values other than 0 and 1; expected 1 (same person) or 0 for every pair")
    bad_P = ~np.isfinite(score_P)
    if bad_P.any():
        first = int(np.argmax(bad_P))
        called = f"{first} ({names[first]})" if names is not None else str(first)
        raise UserError(f"the score of pair {called} is {score_P[first]} ({int(bad_P.sum())} such pairs); expected finite similarities: embed a fallback crop where no face is found")
    return score_P, label_P.astype(bool)


def split_scores(score_P: np.ndarray, same_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted mated and the sorted non-mated scores; both kinds must be there."""
    score_P, same_P = check_scores(score_P, same_P)
    mated, non_mated = np.sort(score_P[same_P]), np.sort(score_P[~same_P])
    if not mated.size or not non_mated.size:
        raise UserError(f"{mated.size} mated and {non_mated.size} non-mated pairs; expected at least one of each")
    return mated, non_mated


def auc(score_P: np.ndarray, same_P: np.ndarray) -> float:
    """Area under the ROC = P(mated > non-mated) + P(equal) / 2, counted in integers: exact, ties included."""
    mated, non_mated = split_scores(score_P, same_P)
    below = np.searchsorted(non_mated, mated, "left").sum(dtype=np.int64)
    upto = np.searchsorted(non_mated, mated, "right").sum(dtype=np.int64)
    return (int(below) + int(upto)) / (2 * mated.size * non_mated.size)


def eer(score_P: np.ndarray, same_P: np.ndarray) -> float:
    """Equal error rate: where FMR = FNMR on the polygon through the operating points of all distinct thresholds."""
    mated, non_mated = split_scores(score_P, same_P)
    threshold = np.append(np.unique(np.concatenate((mated, non_mated))), np.inf)
    fmr = 1.0 - np.searchsorted(non_mated, threshold, "left") / non_mated.size
    fnmr = np.searchsorted(mated, threshold, "left") / mated.size
    gap = fnmr - fmr
    after = int(np.argmax(gap >= 0.0))  # gap runs from -1 to 1 and never falls
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(fmr[before] + share * (fmr[after] - fmr[before]))


def operating_point(score_P: np.ndarray, same_P: np.ndarray, far: float, rule: FarRule = "conservative") -> OperatingPoint:
    """Return the threshold for a wanted false match rate and the rates there.

    conservative: the lowest threshold with #{non-mated >= t} <= floor(far * non-mated); FMR never exceeds `far`.
    nearest: the ROC corner whose FMR lies nearest to `far`, ties to the larger TAR; its FMR may exceed `far` (insightface's IJB rule).
    """
    if not 0.0 <= far <= 1.0:
        raise UserError(f"far is {far}, expected a rate in [0, 1] (1 % is 0.01)")
    mated, non_mated = split_scores(score_P, same_P)
    if rule == "conservative":
        threshold = _strict_threshold(non_mated, far)
    elif rule == "nearest":
        threshold = _nearest_threshold(mated, non_mated, far)
    else:
        raise UserError(f"unknown rule '{rule}' for TAR@FAR; expected 'conservative' or 'nearest'")
    return OperatingPoint(
        threshold=threshold,
        fmr=float(np.mean(non_mated >= threshold)),
        tar=float(np.mean(mated >= threshold)),
        resolved=far * non_mated.size >= 1.0 - 1e-9,
    )


def tar_at_far(score_P: np.ndarray, same_P: np.ndarray, far: float, rule: FarRule = "conservative") -> float:
    """True accept rate at a false accept rate; see `operating_point` for the two rules."""
    return operating_point(score_P, same_P, far, rule).tar


def fnmr_at_fmr(score_P: np.ndarray, same_P: np.ndarray, fmr: float) -> float:
    """False non-match rate at a false match rate by the conservative rule: a count of mated pairs, no interpolation."""
    mated, non_mated = split_scores(score_P, same_P)
    return float(np.mean(mated < _strict_threshold(non_mated, fmr)))


def d_prime(score_P: np.ndarray, same_P: np.ndarray) -> float:
    """Sensitivity index: difference of the two means over the root of the mean variance (ddof 0)."""
    return math.copysign(math.sqrt(2.0 * fdr(score_P, same_P)), _mean_gap(*split_scores(score_P, same_P)))


def fdr(score_P: np.ndarray, same_P: np.ndarray) -> float:
    """Fisher discriminant ratio (difference of means)^2 / (sum of variances), ddof 0; inf where both variances are 0."""
    mated, non_mated = split_scores(score_P, same_P)
    spread = float(mated.var() + non_mated.var())
    return _mean_gap(mated, non_mated) ** 2 / spread if spread > 0.0 else math.inf


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    score_P: np.ndarray,
    same_P: np.ndarray,
    *,
    identity_P2: np.ndarray | None = None,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `statistic(score, same)`.

    Without identities, mated and non-mated pairs are drawn with replacement, each kind by itself. With `identity_P2` (the two
    identities of each pair) identities are drawn; a mated pair counts as often as its identity, a non-mated pair as often as the
    product of its two. That is the honest form where pairs share people: it is wider.
    """
    score_P, same_P = check_scores(score_P, same_P)
    rng = numpy_rng(seed, "bootstrap")
    rows_of = _pair_draw(same_P, rng) if identity_P2 is None else _identity_draw(identity_P2, same_P, rng)
    values: list[float] = []
    for _ in range(10 * draws):
        rows = rows_of()
        kept = same_P[rows]
        if kept.any() and not kept.all():  # few identities: a draw may hold one kind only
            values.append(statistic(score_P[rows], kept))
        if len(values) == draws:
            break
    if len(values) < draws:
        raise UserError(f"only {len(values)} of {10 * draws} bootstrap draws held both kinds of pairs; too few identities, draw pairs instead")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return Interval(value=float(statistic(score_P, same_P)), low=float(low), high=float(high))


def _strict_threshold(non_mated: np.ndarray, rate: float) -> float:
    # 0.29 * 100 is 28.999... in floating point: the nudge keeps floor() at the count that was meant.
    allowed = math.floor(rate * non_mated.size + 1e-9)
    if allowed >= non_mated.size:
        return -math.inf
    return float(np.nextafter(non_mated[non_mated.size - 1 - allowed], np.inf))


def _nearest_threshold(mated: np.ndarray, non_mated: np.ndarray, far: float) -> float:
    threshold = np.unique(np.concatenate((mated, non_mated)))[::-1]
    false = non_mated.size - np.searchsorted(non_mated, threshold, "left")
    true = mated.size - np.searchsorted(mated, threshold, "left")
    if threshold.size > 2:
        # Corners only, as sklearn's roc_curve(drop_intermediate=True) keeps them: the rule is defined on that point set.
        corner = np.concatenate(([True], (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), [True]))
        threshold, false, true = threshold[corner], false[corner], true[corner]
    threshold, false, true = np.append(np.inf, threshold), np.append(0, false), np.append(0, true)
    distance = np.abs(false / non_mated.size - far)
    best = np.flatnonzero(distance == distance.min())
    return float(threshold[best[np.argmax(true[best])]])


def _mean_gap(mated: np.ndarray, non_mated: np.ndarray) -> float:
    return float(mated.mean() - non_mated.mean())


def _pair_draw(same_P: np.ndarray, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    kinds = [np.flatnonzero(same_P), np.flatnonzero(~same_P)]
    return lambda: np.concatenate([rows[rng.integers(rows.size, size=rows.size)] for rows in kinds if rows.size])


def _identity_draw(identity_P2: np.ndarray, same_P: np.ndarray, rng: np.random.Generator) -> Callable[[], np.ndarray]:
    people, index = np.unique(np.asarray(identity_P2), return_inverse=True)
    first_P, second_P = index.reshape(-1, 2).T
    if first_P.size != same_P.size:
        raise UserError(f"{first_P.size} pairs of identities for {same_P.size} scores; expected two identities for every pair")
    every = np.arange(first_P.size)

    def rows() -> np.ndarray:
        times = np.bincount(rng.integers(people.size, size=people.size), minlength=people.size)
        return np.repeat(every, np.where(first_P == second_P, times[first_P], times[first_P] * times[second_P]))

    return rows
