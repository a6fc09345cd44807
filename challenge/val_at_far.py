"""VAL@FAR as the field's verification script reports it beside the accuracy (recognition.md §8.1, step 6).

The published function interpolates with scipy's `interp1d(kind="slinear")`, which refuses the repeated FAR values every real list has
(public_code_defects 15). The linear kind is meant; on a plateau it takes the largest threshold, and so does this file.
Axes: P pairs, T thresholds, F folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..core.stats import check_scores
from .verification import fold_index

_GRID = np.arange(0, 4, 0.001)  # squared distances 0, 0.001, ..., 3.999


@dataclass(frozen=True, slots=True, kw_only=True)
class ValAtFar:
    """Validation rate of each held-out fold at the threshold that gives the wanted FAR on the other folds.

    Attributes:
        far: the wanted false accept rate.
        val_F: share of mated pairs accepted; far_F: share of non-mated pairs accepted, in the held-out fold.
        threshold_F: squared distance below which pairs are accepted; 0 where the other folds never reach `far`.
    """

    far: float
    val_F: np.ndarray
    far_F: np.ndarray
    threshold_F: np.ndarray

    @property
    def mean(self) -> float:
        """Mean VAL over the folds."""
        return float(self.val_F.mean())

    @property
    def std(self) -> float:
        """Standard deviation of VAL, ddof 0."""
        return float(self.val_F.std())

    @property
    def mean_far(self) -> float:
        """Mean FAR actually reached on the held-out folds."""
        return float(self.far_F.mean())


def val_at_far(score_P: np.ndarray, same_P: np.ndarray, folds: int | np.ndarray = 10, *, far: float = 1e-3) -> ValAtFar:
    """Return VAL@FAR by the field's rule: 4,000 thresholds, linear interpolation of the threshold over FAR.

    Args:
        score_P: cosines; same_P: True for mated pairs; folds: as in `kfold_accuracy`.

    Raises:
        UserError: NaN scores, `far` outside (0, 1), or a fold without mated or without non-mated pairs.
    """
    score_P, same_P = check_scores(score_P, same_P)
    if not 0.0 < far < 1.0:
        raise UserError(f"far is {far}, expected a rate between 0 and 1 (0.1 % is 0.001)")
    fold_P, count = fold_index(folds, score_P.size)
    distance_P = 2.0 - 2.0 * score_P
    accepts_FT = _accepted(distance_P[~same_P], fold_P[~same_P], count)
    other_F, mated_F = np.bincount(fold_P[~same_P], minlength=count), np.bincount(fold_P[same_P], minlength=count)
    if not (other_F.all() and mated_F.all()):
        raise UserError(f"a fold has no mated or no non-mated pairs (mated: {mated_F.tolist()}, non-mated: {other_F.tolist()}); VAL@FAR needs both in every fold")
    threshold_F = np.zeros(count)
    for fold in range(count):
        far_T = (accepts_FT.sum(0) - accepts_FT[fold]) / (other_F.sum() - other_F[fold])
        if far_T[-1] >= far:
            threshold_F[fold] = np.interp(far, far_T, _GRID)
    accept_P = distance_P < threshold_F[fold_P]
    val_F = np.bincount(fold_P[same_P], accept_P[same_P], count) / mated_F
    far_F = np.bincount(fold_P[~same_P], accept_P[~same_P], count) / other_F
    return ValAtFar(far=far, val_F=val_F, far_F=far_F, threshold_F=threshold_F)


def _accepted(distance_P: np.ndarray, fold_P: np.ndarray, count: int) -> np.ndarray:
    """Count, for each fold and grid value, the distances strictly below it; (F, T)."""
    width = _GRID.size + 1
    entry_P = np.searchsorted(_GRID, distance_P, side="right")
    return np.cumsum(np.bincount(fold_P * width + entry_P, minlength=count * width).reshape(count, width)[:, :-1], axis=1)
