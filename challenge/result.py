"""One result with everything a reader asks of it: figures, intervals, DET with a band, groups, hardest pairs, what the threshold cost.

Terms are those of ISO/IEC 19795-1: mated and non-mated comparison trials, false match rate (FMR), false non-match rate (FNMR), failure to
acquire (FTA), DET. Rates are shares. Axes: P comparison trials (pairs), R rates of the DET.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.stats import auc, bootstrap, check_scores, eer, split_scores
from .embedding import Mark
from .verification import best_threshold, kfold_accuracy

TABLE_FMR = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_DET_POINTS = 60
HARDEST = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """Scored comparison trials.

    Attributes:
        name: what was scored ("LFW folds 7-8"); system: which recogniser.
        score_P: similarities; same_P: True for mated trials.
        paths: the two images of each trial.
        people_P2: the two people of each trial, (P, 2), where known: intervals then draw people, not pairs, which is the honest form.
        fold_P: protocol folds, where there are any.
        decision_P: decisions made with a threshold from elsewhere (training people), where there are any.
        group_P: a group of each trial (race, database, ...), where known.
        list_P: which list each trial is from: trials of a list share one threshold; None = all are of one.
        marks: images that failed.
    """

    name: str
    system: str
    score_P: np.ndarray
    same_P: np.ndarray
    paths: Sequence[tuple[str, str]] = ()
    people_P2: np.ndarray | None = None
    fold_P: np.ndarray | None = None
    decision_P: np.ndarray | None = None
    group_P: np.ndarray | None = None
    list_P: np.ndarray | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict)


def evaluate(trials: Trials, *, draws: int = 200, level: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Return the figures of a result as plain numbers, lists and dictionaries, ready for JSON.

    Args:
        draws: bootstrap draws of the intervals; level: their coverage.

    Raises:
        UserError: scores that are not finite, or no mated or no non-mated trials.
    """
    score_P, same_P = check_scores(trials.score_P, trials.same_P)
    mated, non_mated = split_scores(score_P, same_P)
    right_P, accuracy = _accuracy(trials, score_P, same_P)
    fmr_R = _rates(non_mated.size)
    band = _Band(fmr_R)
    draw = {"identity_P2": trials.people_P2, "draws": draws, "level": level, "seed": seed}
    bootstrap(band, score_P, same_P, **draw)
    low_V, high_V = np.quantile(band.drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
    share = bootstrap(lambda value, _: float(value.mean()), right_P.astype(float), same_P, **draw)
    absent = sum(mark.absent for mark in trials.marks.values())
    images = {path for pair in trials.paths for path in pair}
    return {
        "name": trials.name,
        "system": trials.system,
        "trials": {"mated": int(mated.size), "non_mated": int(non_mated.size), "images": len(images), "people": _count(trials.people_P2)},
        "interval": {"level": level, "draws": draws, "drawn": "people" if trials.people_P2 is not None else "pairs"},
        "accuracy": {**accuracy, "low": share.low, "high": share.high},
        "auc": {"value": band.whole[0], "low": float(low_V[0]), "high": float(high_V[0])},
        "eer": {"value": band.whole[1], "low": float(low_V[1]), "high": float(high_V[1])},
        "fnmr_at_fmr": [_fnmr_row(rate, mated, non_mated, fmr_R, low_V[2:], high_V[2:]) for rate in TABLE_FMR],
        "det": {"fmr": fmr_R.tolist(), "fnmr": band.whole[2:].tolist(), "low": low_V[2:].tolist(), "high": high_V[2:].tolist()},
        "threshold": _threshold(trials, score_P, same_P),
        "groups": _groups(trials, right_P, same_P),
        "hardest": {"mated": _hardest(trials, score_P, same_P, 1), "non_mated": _hardest(trials, score_P, ~same_P, -1)},
        "failure_to_acquire": {"images": absent, "rate": absent / len(images) if images else 0.0, "marked": {name: mark.reason for name, mark in trials.marks.items()}},
    }


class _Band:
    """A bootstrap statistic that keeps the whole vector (AUC, EER, FNMR at each rate) of every draw; `whole` is that of all trials."""

    def __init__(self, fmr_R: np.ndarray) -> None:
        self._fmr_R = fmr_R
        self._rows: list[np.ndarray] = []

    def __call__(self, score_P: np.ndarray, same_P: np.ndarray) -> float:
        mated, non_mated = split_scores(score_P, same_P)
        self._rows.append(np.concatenate(([auc(score_P, same_P), eer(score_P, same_P)], fnmr_at(mated, non_mated, self._fmr_R))))
        return float(self._rows[-1][0])

    @property
    def drawn(self) -> np.ndarray:
        return np.array(self._rows[:-1])

    @property
    def whole(self) -> np.ndarray:
        return self._rows[-1]  # `bootstrap` asks for the statistic of all pairs last


def fnmr_at(mated: np.ndarray, non_mated: np.ndarray, fmr_R: np.ndarray) -> np.ndarray:
    """Return FNMR at each false match rate by the conservative rule of `core.stats`, from sorted scores."""
    allowed_R = np.floor(fmr_R * non_mated.size + 1e-9).astype(np.int64)
    threshold_R = np.nextafter(non_mated[np.maximum(non_mated.size - 1 - allowed_R, 0)], np.inf)
    threshold_R[allowed_R >= non_mated.size] = -np.inf
    return np.searchsorted(mated, threshold_R, "left") / mated.size


def _rates(non_mated: int) -> np.ndarray:
    return np.unique(np.concatenate((np.geomspace(min(1.0 / non_mated, 0.5), 1.0, _DET_POINTS), [rate for rate in TABLE_FMR if rate * non_mated >= 1])))


def _accuracy(trials: Trials, score_P: np.ndarray, same_P: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which trials were decided rightly, and the figure with its name: by decisions, k-fold, or the best threshold (optimistic)."""
    if trials.decision_P is not None:
        right_P = np.asarray(trials.decision_P, bool) == same_P
        return right_P, {"value": float(right_P.mean()), "rule": "decisions with the transferred threshold"}
    if trials.fold_P is not None and np.unique(trials.fold_P).size > 1:
        grid = np.abs(score_P).max() <= 1.0 + 1e-3
        folds = kfold_accuracy(score_P, same_P, trials.fold_P, form="grid" if grid else "exact")
        home_P = np.unique(trials.fold_P, return_inverse=True)[1]
        right_P = (score_P > folds.threshold_F[home_P] if grid else score_P >= folds.threshold_F[home_P]) == same_P
        return right_P, {"value": folds.mean, "std": folds.std, "rule": f"{len(folds.accuracy_F)}-fold, {'the 400 thresholds of the field' if grid else 'grid-free optimum'}", "folds": folds.accuracy_F.tolist()}
    right_P = (score_P >= best_threshold(score_P, same_P)) == same_P
    return right_P, {"value": float(right_P.mean()), "rule": "best threshold of these very trials (optimistic)"}


def _fnmr_row(rate: float, mated: np.ndarray, non_mated: np.ndarray, fmr_R: np.ndarray, low_R: np.ndarray, high_R: np.ndarray) -> dict[str, Any]:
    """A row of the table; rates below one non-mated trial cannot be resolved and carry no figure."""
    if rate * non_mated.size < 1 - 1e-9:
        return {"fmr": rate, "resolved": False, "fnmr": None, "low": None, "high": None, "rule_of_three": 3.0 / non_mated.size}
    place = int(np.argmin(np.abs(fmr_R - rate)))
    value = float(fnmr_at(mated, non_mated, np.array([rate]))[0])
    return {"fmr": rate, "resolved": True, "fnmr": value, "low": min(float(low_R[place]), value), "high": max(float(high_R[place]), value, 3.0 / mated.size if value == 0 else 0.0)}


def _threshold(trials: Trials, score_P: np.ndarray, same_P: np.ndarray) -> dict[str, Any] | None:
    """What a threshold from elsewhere cost: accuracy with it, against the best of these trials, for each list by itself."""
    if trials.decision_P is None:
        return None
    decision_P = np.asarray(trials.decision_P, bool)
    list_P = trials.list_P if trials.list_P is not None else np.zeros(score_P.size, int)
    ideal_P = np.zeros(score_P.size, bool)
    for name in np.unique(list_P):
        rows = list_P == name
        ideal_P[rows] = score_P[rows] >= best_threshold(score_P[rows], same_P[rows])
    used, best = float(np.mean(decision_P == same_P)), float(np.mean(ideal_P == same_P))
    accepted, refused = score_P[decision_P], score_P[~decision_P]
    return {
        "lowest_accepted": float(accepted.min()) if accepted.size else None,
        "highest_refused": float(refused.max()) if refused.size else None,
        "accuracy": used,
        "best_accuracy": best,
        "loss": best - used,
        "fmr": float(np.mean(decision_P[~same_P])),
        "fnmr": float(np.mean(~decision_P[same_P])),
    }


def _groups(trials: Trials, right_P: np.ndarray, same_P: np.ndarray) -> list[dict[str, Any]]:
    if trials.group_P is None:
        return []
    rows = []
    for name in np.unique(trials.group_P):
        part = trials.group_P == name
        mated, non_mated = part & same_P, part & ~same_P
        rates = {"fnmr": float(np.mean(~right_P[mated])) if mated.any() else None, "fmr": float(np.mean(~right_P[non_mated])) if non_mated.any() else None}
        rows.append({"group": str(name), "trials": int(part.sum()), "accuracy": float(right_P[part].mean()), **rates, "auc": auc(trials.score_P[part], same_P[part]) if mated.any() and non_mated.any() else None})
    return rows


def _hardest(trials: Trials, score_P: np.ndarray, rows_P: np.ndarray, direction: int) -> list[dict[str, Any]]:
    """Return the mated trials of lowest score, or the non-mated ones of highest."""
    if not trials.paths:
        return []
    rows = np.flatnonzero(rows_P)
    order = rows[np.argsort(direction * score_P[rows], kind="stable")[:HARDEST]]
    return [{"pair": int(row) + 1, "score": float(score_P[row]), "images": list(trials.paths[row])} for row in order]


def _count(people_P2: np.ndarray | None) -> int | None:
    return None if people_P2 is None else int(np.unique(people_P2).size)


def people_of(paths: Sequence[tuple[str, str]], same_P: np.ndarray) -> np.ndarray | None:
    """Return the people of each trial by the folder of the image, or None where folders contradict the labels."""
    people_P2 = np.array([[path.rpartition("/")[0] for path in pair] for pair in paths])
    if not len(people_P2) or ((people_P2[:, 0] == people_P2[:, 1]) != same_P).any():
        return None
    return people_P2



def groups_of_people(table: Mapping[str, str], people_P2: np.ndarray) -> np.ndarray:
    """Return the group of each trial from a table of person and group; trials of two groups are "across groups".

    Raises:
        UserError: a person without a group.
    """
    lost = sorted(set(people_P2.ravel().tolist()) - set(table))
    if lost:
        raise UserError(f"the table of groups lacks {len(lost)} people, e.g. {lost[0]}; expected a line person,group for each")
    return np.array([table[first] if table[first] == table[second] else "across groups" for first, second in people_P2.tolist()])
