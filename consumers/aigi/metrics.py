"""How a detector is judged: average precision, accuracy by class, and the released code's way from answers to scores. Axes: N images."""

from __future__ import annotations

import numpy as np

from ...core.errors import UserError
from ...core.stats import check_scores


def average_precision(score_N: np.ndarray, fake_N: np.ndarray) -> float:
    """Area under precision over recall of "fake" as a step function, tied scores taken together."""
    return float(np.mean(precisions(score_N, fake_N)))


def precisions(score_N: np.ndarray, fake_N: np.ndarray) -> np.ndarray:
    """Return for each fake the precision at the threshold that just takes it, (fakes,); their mean is the average precision."""
    score_N, fake_N = check_scores(score_N, fake_N)
    fakes, reals = np.sort(score_N[fake_N]), np.sort(score_N[~fake_N])
    if not len(fakes):
        raise UserError("no fake among the pictures; average precision needs at least one")
    hits_F, alarms_F = (len(known) - np.searchsorted(known, score_N[fake_N], "left") for known in (fakes, reals))
    return hits_F / (hits_F + alarms_F)


def accuracies(score_N: np.ndarray, fake_N: np.ndarray, threshold: float = 0.5) -> dict[str, float]:
    """Share of right answers among the real, among the fake, and the mean of the two ("balanced")."""
    score_N, fake_N = check_scores(score_N, fake_N)
    real, fake = float(np.mean(score_N[~fake_N] < threshold)), float(np.mean(score_N[fake_N] >= threshold))
    return {"real": real, "fake": fake, "balanced": (real + fake) / 2}


def answer_score(fake_N: np.ndarray, real_N: np.ndarray, *, release_compatible: bool = False) -> np.ndarray:
    """Score of "fake" from the probabilities of the two answer words at the answer's place.

    P(fake) / (P(fake) + P(real)). As released: the hard answer, 1 or 0 (a tie is "real"), so that average precision knows one threshold only.
    """
    fake_N, real_N = np.asarray(fake_N, np.float64), np.asarray(real_N, np.float64)
    if release_compatible:
        return (fake_N > real_N).astype(np.float64)
    return fake_N / np.maximum(fake_N + real_N, np.finfo(np.float64).tiny)
