"""Score statistics against sorting by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from facefoundry.core.errors import UserError
from facefoundry.core.stats import auc, bootstrap, d_prime, eer, fdr, fnmr_at_fmr, operating_point, tar_at_far

MATED = [0.9, 0.8, 0.7, 0.6, 0.3]
NON_MATED = [0.65, 0.5, 0.4, 0.2, 0.1, 0.05, 0.0]
EXAMPLE = np.array(MATED + NON_MATED), np.array([1] * 5 + [0] * 7)


def draw(seed, digits=None, count=400):
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.4
    score = 0.3 * rng.standard_normal(count) + 0.35 * same
    return (score if digits is None else np.round(score, digits)), same


@pytest.mark.parametrize(
    ("far", "rule", "fmr", "tar"),
    [(0.1, "nearest", 1 / 7, 0.8), (0.1, "conservative", 0, 0.6), (0.05, "nearest", 0, 0.6), (0.05, "conservative", 0, 0.6), (0.25, "nearest", 1 / 7, 0.8)],
)
def test_worked_example_of_tar_at_far(far, rule, fmr, tar):
    point = operating_point(*EXAMPLE, far, rule)
    assert (point.fmr, point.tar) == (pytest.approx(fmr), pytest.approx(tar))
    assert tar_at_far(*EXAMPLE, far, rule) == point.tar
    assert point.resolved == (far >= 1 / 7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("far", [0.0, 0.01, 0.1, 0.33, 1.0])
def test_rules_against_references(seed, far):
    score, same = draw(seed, digits=1 if seed % 2 else None)
    mated, non_mated = score[same], score[~same]
    allowed = int(far * len(non_mated) + 1e-9)
    fitting = [t for t in np.append(score, np.inf) if (non_mated >= t).sum() <= allowed]
    assert fnmr_at_fmr(score, same, far) == (mated < min(fitting)).mean() == pytest.approx(1 - tar_at_far(score, same, far))
    fpr, tpr, _ = roc_curve(same, score, drop_intermediate=True)
    nearest = np.abs(fpr - far) == np.abs(fpr - far).min()
    assert tar_at_far(score, same, far, "nearest") == pytest.approx(tpr[nearest].max())


def test_rate_that_floating_point_would_floor_down():
    score = np.concatenate((np.arange(100) / 100, [0.705]))
    same = np.arange(101) == 100
    assert operating_point(score, same, 0.29).fmr == 0.29


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_auc_is_exact_with_ties(digits):
    score, same = draw(5, digits)
    pairs = [(m > n) + (m == n) / 2 for m in score[same] for n in score[~same]]
    assert auc(score, same) == sum(pairs) / len(pairs) == pytest.approx(roc_auc_score(same, score), abs=1e-12)


def test_eer_lies_between_the_two_rates_where_they_cross():
    score, same = draw(6)
    value = eer(score, same)
    points = [((score[~same] >= t).mean(), (score[same] < t).mean()) for t in np.sort(score)]
    before = max(p for p in points if p[1] <= p[0])
    assert min(max(p) for p in points) >= value >= min(before)
    assert eer(*EXAMPLE) == pytest.approx(0.2, abs=0.06)
    assert eer(np.array([0.1, 0.9]), np.array([0, 1])) == 0.0
    assert eer(np.array([0.9, 0.1]), np.array([0, 1])) == 1.0
    assert eer(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5


def test_d_prime_and_fdr():
    score, same = np.array([1.0, 3.0, -1.0, 0.0, 1.0]), np.array([1, 1, 0, 0, 0])
    spread = 1.0 + 2 / 3
    assert fdr(score, same) == pytest.approx(4 / spread)
    assert d_prime(score, same) == pytest.approx(2 / np.sqrt(spread / 2))
    assert d_prime(-score, same) == pytest.approx(-2 / np.sqrt(spread / 2))


def test_bootstrap_is_seeded_and_covers():
    score, same = draw(7)
    first, again, other = (bootstrap(auc, score, same, draws=200, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert first.low < first.value == auc(score, same) < first.high


def test_bootstrap_over_identities_is_wider_where_pairs_share_people():
    rng = np.random.default_rng(8)
    people = rng.standard_normal((30, 8))
    shots = people[:, None] + 0.7 * rng.standard_normal((30, 6, 8))
    flat = shots.reshape(-1, 8) / np.linalg.norm(shots.reshape(-1, 8), axis=1, keepdims=True)
    left, right = np.triu_indices(180, 1)
    identity = np.stack((left // 6, right // 6), axis=1)
    score, same = np.sum(flat[left] * flat[right], axis=1), identity[:, 0] == identity[:, 1]
    pairs = bootstrap(auc, score, same, draws=60)
    groups = bootstrap(auc, score, same, identity_P2=identity, draws=60)
    assert groups.low <= groups.value <= groups.high
    assert groups.high - groups.low > 1.5 * (pairs.high - pairs.low)


def test_bad_input():
    with pytest.raises(UserError, match="2 mated and 0 non-mated"):
        auc(np.array([0.1, 0.2]), np.array([1, 1]))
    with pytest.raises(UserError, match="pair 1 is nan"):
        eer(np.array([0.1, np.nan]), np.array([1, 0]))
    with pytest.raises(UserError, match="far is 5"):
        operating_point(*EXAMPLE, 5)
    with pytest.raises(UserError, match="'conservative' or 'nearest'"):
        operating_point(*EXAMPLE, 0.1, "lax")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one of each for every pair"):
        auc(np.zeros(3), np.zeros(2))
