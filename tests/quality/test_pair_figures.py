"""Moments, histogram figures and intervals against the pairs themselves."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.stats import auc, d_prime, eer, fdr, fnmr_at_fmr
from facefoundry.quality.pair_figures import pair_intervals, pair_moments, set_histogram


def people(count=30, shots=(1, 7), seed=0, dim=12, spread=0.8):
    rng = np.random.default_rng(seed)
    index = rng.permutation(np.repeat(np.arange(count), rng.integers(*shots, count)))
    rows = rng.standard_normal((count, dim))[index] + spread * rng.standard_normal((len(index), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), index


def slow(embed, index):
    pairs = [(float(embed[i] @ embed[j]), index[i] == index[j]) for i in range(len(embed)) for j in range(i)]
    return np.array([score for score, _ in pairs]), np.array([same for _, same in pairs])


@pytest.mark.parametrize("shots", [(1, 7), (20, 30)])  # fewer and more images than dimensions
def test_moments_equal_the_pairs(shots):
    embed, index = people(6, shots)
    score, same = slow(embed, index)
    found = pair_moments(embed, index)
    assert (found.mated_pairs, found.non_mated_pairs) == (same.sum(), (~same).sum())
    assert (found.mated_mean, found.mated_std) == pytest.approx((score[same].mean(), score[same].std()), abs=1e-6)
    assert (found.non_mated_mean, found.non_mated_std) == pytest.approx((score[~same].mean(), score[~same].std()), abs=1e-6)
    assert found.fdr == pytest.approx(fdr(score, same), rel=1e-5) and found.d_prime == pytest.approx(d_prime(score, same), rel=1e-5)


def test_figures_agree_with_the_scores():
    embed, index = people()
    score, same = slow(embed, index)
    histogram, images = set_histogram(embed, index)
    found = pair_intervals(embed, index, histogram, pair_moments(embed, index), draws=60)
    assert images == len(embed)
    for name, value in {"auc": auc(score, same), "eer": eer(score, same), "fmr100": fnmr_at_fmr(score, same, 0.01), "fmr1000": fnmr_at_fmr(score, same, 0.001)}.items():
        assert found[name].value == pytest.approx(value, abs=0.02), name
    for name in ("fdr", "d_prime"):
        assert found[name].value == pytest.approx({"fdr": fdr, "d_prime": d_prime}[name](score, same), rel=1e-5)
    assert all(figure.low < figure.value < figure.high for name, figure in found.items() if name != "fmr1000")


def test_interval_covers_the_spread_of_new_people():
    """Intervals over identities must be about as wide as the spread of the figure over fresh draws of people; over pairs they would be far narrower."""
    figures, width = [], []
    for seed in range(12):
        embed, index = people(40, (5, 6), seed)
        histogram, _ = set_histogram(embed, index)
        found = pair_intervals(embed, index, histogram, pair_moments(embed, index), draws=60)["auc"]
        figures.append(found.value)
        width.append(found.high - found.low)
    assert 0.5 < np.mean(width) / (3.92 * np.std(figures)) < 2.0


def test_large_sets_draw_whole_identities():
    embed, index = people(60, (4, 6))
    part, images = set_histogram(embed, index, most=100)
    assert 80 < images <= 100
    assert part.all_C.sum() == images * (images - 1) // 2
    sampled = pair_intervals(embed, index, part, pair_moments(embed, index), draws=20, pairs=500)
    whole = pair_intervals(embed, index, set_histogram(embed, index)[0], pair_moments(embed, index), draws=20)
    assert sampled["auc"].value == pytest.approx(whole["auc"].value, abs=0.05) and sampled["fdr"].value == whole["fdr"].value
    assert sampled["eer"].low < whole["eer"].value < sampled["eer"].high


@pytest.mark.parametrize("index", [np.zeros(5, int), np.arange(5)])
def test_nothing_to_compare(index):
    embed = np.eye(5, dtype=np.float32)
    assert pair_intervals(embed, index, set_histogram(embed, index)[0], pair_moments(embed, index)) == {}
    found = pair_moments(embed, index)
    assert np.isnan(found.mated_mean) != np.isnan(found.non_mated_mean)
