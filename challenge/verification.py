"""LFW-type verification: k-fold accuracy in two forms, best thresholds, and the rates of `core.stats`.

Follows insightface's protocol (recognition.md §8.1). Scores are cosines of unit embeddings; the squared distance 2 - 2 cos of the
textbook stays inside. Axes: P pairs, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import UserError
from ..core.stats import FarRule, Interval, OperatingPoint, auc, bootstrap, check_scores, eer, fnmr_at_fmr, operating_point, tar_at_far

__all__ = [
    "FarRule",
    "Interval",
    "KFoldResult",
    "OperatingPoint",
    "auc",
    "best_threshold",
    "bootstrap",
    "eer",
    "fnmr_at_fmr",
    "kfold_accuracy",
    "operating_point",
    "tar_at_far",
]

KFoldForm = Literal["grid", "exact"]

_STEP = 0.01
_GRID = np.arange(0, 4, _STEP)  # squared distances 0, 0.01, ..., 3.99: the field's thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class KFoldResult:
    """Accuracy of each fold with the threshold that was best on the other folds.

    Attributes:
        form: "grid" or "exact".
        accuracy_F: share of right decisions in each fold.
        threshold_F: cosine threshold used for each fold; grid: 1 - t / 2 of the squared distance t.
    """

    form: KFoldForm
    accuracy_F: np.ndarray
    threshold_F: np.ndarray

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return float(np.mean(self.accuracy_F))

    @property
    def std(self) -> float:
        """Standard deviation of the fold accuracies, ddof 0 as the field reports it."""
        return float(np.std(self.accuracy_F))


def kfold_accuracy(
    score_P: np.ndarray,
    same_P: np.ndarray,
    folds: int | np.ndarray = 10,
    *,
    form: KFoldForm = "grid",
    names: Sequence[object] | None = None,
) -> KFoldResult:
    """Return the k-fold verification accuracy.

    grid: 400 thresholds 0, 0.01, ..., 3.99 on the squared distance, accepted when strictly below; the *first* of the best on the
    other folds is taken. Accuracies and thresholds equal those of the textbook loop. Needs cosines.
    exact: the optimum over all cuts between scores; see `best_threshold`. Any scale of scores.

    Args:
        score_P: similarities; same_P: 1 or True for mated pairs.
        folds: number of contiguous folds (the order of the pairs matters; the first P % F folds get one pair more), or the fold of
            each pair, (P,), any integers.
        names: what to call the pairs in messages.

    Raises:
        UserError: a NaN score (names the pair), fewer than two folds, or cosines outside [-1, 1] in the grid form.
    """
    score_P, same_P = check_scores(score_P, same_P, names)
    fold_P, count = fold_index(folds, score_P.size)
    if form == "grid":
        return _grid_form(score_P, same_P, fold_P, count)
    if form == "exact":
        return _exact_form(score_P, same_P, fold_P, count)
    raise UserError(f"unknown form '{form}' of k-fold accuracy; expected 'grid' or 'exact'")


def best_threshold(score_P: np.ndarray, same_P: np.ndarray, *, balanced: bool = False) -> float:
    """Return the threshold t whose rule `score >= t` is right most often.

    All cuts between distinct scores are compared by one sort. Neighbouring cuts of equal accuracy form a plateau; the strictest best
    plateau is taken, and t is its midpoint. A plateau that reaches beyond the outermost score ends just outside it.

    Args:
        balanced: maximise (TPR + TNR) / 2 instead of the share of right decisions.
    """
    score_P, same_P = check_scores(score_P, same_P)
    order = np.argsort(-score_P)
    return _best_cut(score_P[order], same_P[order], balanced)


def fold_index(folds: int | np.ndarray, pairs: int) -> tuple[np.ndarray, int]:
    """Return the fold of each pair, numbered from 0, and how many there are; contiguous folds where only a number is given."""
    if isinstance(folds, (int, np.integer)):
        if not 2 <= folds <= pairs:
            raise UserError(f"{folds} folds for {pairs} pairs; expected 2 or more folds, at most one for each pair")
        sizes = np.full(folds, pairs // folds)
        sizes[: pairs % folds] += 1
        return np.repeat(np.arange(folds), sizes), int(folds)
    labels, fold_P = np.unique(np.asarray(folds), return_inverse=True)
    if fold_P.shape != (pairs,) or labels.size < 2:
        raise UserError(f"fold array of shape {np.shape(folds)} with {labels.size} folds for {pairs} pairs; expected the fold of each pair and at least two folds")
    return fold_P, labels.size


def _grid_form(score_P: np.ndarray, same_P: np.ndarray, fold_P: np.ndarray, count: int) -> KFoldResult:
    outside_P = np.abs(score_P) > 1.0 + 1e-3
    if outside_P.any():
        first = int(np.argmax(outside_P))
        raise UserError(f"the score of pair {first} is {score_P[first]:.4g}; the grid form needs cosines in [-1, 1]: normalise the embeddings, or use form='exact'")
    # Threshold number `entry` is the first with distance < threshold; from there on the pair is accepted.
    entry_P = _first_above(2.0 - 2.0 * score_P)
    width = _GRID.size + 1
    gain_FT = np.bincount(fold_P * width + entry_P, np.where(same_P, 1.0, -1.0), count * width).reshape(count, width)[:, :-1]
    size_F = np.bincount(fold_P, minlength=count)
    non_mated_F = np.bincount(fold_P[~same_P], minlength=count)
    right_FT = np.cumsum(gain_FT, axis=1) + non_mated_F[:, None]
    best_F = np.argmax(right_FT.sum(axis=0) - right_FT, axis=1)
    accuracy_F = right_FT[np.arange(count), best_F] / size_F
    return KFoldResult(form="grid", accuracy_F=accuracy_F, threshold_F=1.0 - _GRID[best_F] / 2.0)


def _first_above(distance_P: np.ndarray) -> np.ndarray:
    """Return the index of the first grid value strictly above each distance; 400 where there is none.

    A guess by division, one too low on purpose, then three comparisons: the grid's values are no exact multiples of 0.01.
    """
    below_P = np.clip(distance_P * (1.0 / _STEP) - 1.0, 0, _GRID.size - 3).astype(np.int64)
    return below_P + sum((_GRID[below_P + ahead] <= distance_P).astype(np.int64) for ahead in range(3))


def _exact_form(score_P: np.ndarray, same_P: np.ndarray, fold_P: np.ndarray, count: int) -> KFoldResult:
    order = np.argsort(-score_P)
    sorted_P, label_P, home_P = score_P[order], same_P[order], fold_P[order]
    accuracy_F, threshold_F = np.empty(count), np.empty(count)
    for fold in range(count):
        others = home_P != fold
        threshold_F[fold] = _best_cut(sorted_P[others], label_P[others], False)
        accuracy_F[fold] = np.mean((sorted_P[~others] >= threshold_F[fold]) == label_P[~others])
    return KFoldResult(form="exact", accuracy_F=accuracy_F, threshold_F=threshold_F)


def _best_cut(descending_P: np.ndarray, same_P: np.ndarray, balanced: bool) -> float:
    mated = int(same_P.sum())
    # Integer weights keep ties exact: (TPR + TNR) times mated * non-mated.
    reward, penalty = (same_P.size - mated, mated) if balanced else (1, 1)
    ends = np.append(np.flatnonzero(np.diff(descending_P)), descending_P.size - 1)
    gain = np.append(0, np.cumsum(np.where(same_P, reward, -penalty))[ends])
    first = int(np.argmax(gain))
    beyond = np.flatnonzero(gain[first:] != gain[first])
    last = first + int(beyond[0]) - 1 if beyond.size else gain.size - 1
    # Cut k accepts the k highest distinct scores: its thresholds are (value[k + 1], value[k]].
    value = descending_P[ends]
    edges = np.concatenate(([np.nextafter(value[0], np.inf)], value, [value[-1]]))
    high, low = edges[first], edges[last + 1]
    middle = low + (high - low) / 2.0
    return float(middle if middle > low else high)
