"""SDD-FIQA against scipy, the worked examples, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, wasserstein_distance

from facefoundry.core.errors import UserError
from facefoundry.quality.sdd_fiqa import normalise_labels, sdd_fiqa, wasserstein_1d


def faces(people=40, shots=8, seed=0, dim=32):
    """Unit rows whose distance from the identity's centre varies from image to image."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.2, 2.0, (people, shots, 1))
    rows = (rng.standard_normal((people, 1, dim)) + noise * rng.standard_normal((people, shots, dim))).reshape(-1, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), np.repeat(np.arange(people), shots)


def slow_exact(embed, identity, signed=False):
    """W1 by scipy, one image at a time."""
    result = np.full(len(embed), np.nan)
    for i in range(len(embed)):
        cos = embed.astype(np.float64) @ embed[i].astype(np.float64)
        positive = cos[(identity == identity[i]) & (np.arange(len(embed)) != i)]
        negative = cos[identity != identity[i]]
        if positive.size:
            result[i] = 0 if signed and positive.mean() < negative.mean() else wasserstein_distance(positive, negative)
    return result


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [([0.9, 0.8, 0.7], [0.1, 0, -0.1], 0.8), ([0.9, 0.8], [0.1, 0, -0.1], 0.85), ([0.5, 0.1], [0.3, 0.3], 0.2), ([0.6], [0, 0.2, 0.4], 0.4)],
)
def test_worked_example_7_1(first, second, distance):
    assert wasserstein_1d(first, second) == pytest.approx(distance, abs=1e-6)
    assert wasserstein_1d(second, first) == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize(
    ("rounds", "each_then_mean", "mean_then_once"),
    [([[0.2, 0.5, 0.8], [0.3, 0.5, 0.6]], [0, 58.333, 100], [0, 55.556, 100]), ([[0.2, 0.5, 0.8], [0.55, 0.5, 0.9]], [6.25, 25, 100], [0, 26.3158, 100])],
)
def test_worked_example_7_2(rounds, each_then_mean, mean_then_once):
    rounds = np.array(rounds)
    assert normalise_labels(rounds.mean(axis=0)) == pytest.approx(mean_then_once, abs=1e-3)
    assert np.mean([normalise_labels(one) for one in rounds], axis=0) == pytest.approx(each_then_mean, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_wasserstein_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    first, second = (np.round(rng.normal(size=rng.integers(1, 40)), seed % 4).astype(np.float32) for _ in range(2))
    assert wasserstein_1d(first, second) == pytest.approx(wasserstein_distance(first, second), abs=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("mode", ["exact", "pool"])
def test_exact_equals_the_slow_reference(mode, signed):
    embed, identity = faces(12, 5)
    identity[0], identity[3] = 7, 99  # a wrong label, an identity with one image
    shuffle = np.random.default_rng(1).permutation(len(embed))
    embed, identity = embed[shuffle], identity[shuffle]
    got = sdd_fiqa(embed, identity, mode=mode, pool=10**6, signed=signed, raw=True)
    assert np.allclose(got, slow_exact(embed, identity, signed), atol=2e-6, equal_nan=True)
    assert np.isnan(got).sum() == 1


def test_published_equals_exact_where_everything_is_drawn():
    embed, identity = faces(6, 4)
    published = sdd_fiqa(embed, identity, mode="published", draws=24, rounds=3, raw=True)  # 3 positives, 20 negatives: fewer than 24 each
    assert np.allclose(published, slow_exact(embed, identity), atol=2e-6)


def test_published_draws_are_right_in_the_mean():
    embed, identity = faces(20, 8)
    # The mean of positives minus negatives is unbiased under drawing; W1 equals it where the two do not overlap.
    embed[:, 0] += 0.0
    separate = np.eye(20, 32, dtype=np.float32)[identity] + 0.05 * embed
    separate /= np.linalg.norm(separate, axis=1, keepdims=True)
    many = sdd_fiqa(separate, identity, draws=4, rounds=2000, raw=True)
    assert np.abs(many - slow_exact(separate, identity)).max() < 2e-3


def test_published_ranks_like_exact():
    embed, identity = faces(120, 12, dim=64)
    exact = sdd_fiqa(embed, identity, mode="exact")
    assert spearmanr(sdd_fiqa(embed, identity), exact).statistic > 0.97
    assert spearmanr(sdd_fiqa(embed, identity, mode="pool"), exact).statistic > 0.99


@pytest.mark.parametrize("mode", ["published", "exact", "pool"])
def test_range_seed_and_invariance(mode):
    embed, identity = faces()
    label = sdd_fiqa(embed, identity, mode=mode, pool=64)
    assert label.dtype == np.float32 and label.min() == 0 and label.max() == 100
    assert np.array_equal(label, sdd_fiqa(embed, identity, mode=mode, pool=64))
    renamed = 1000 - identity * 3
    assert np.allclose(sdd_fiqa(embed, renamed, mode="exact"), sdd_fiqa(embed, identity, mode="exact"), atol=1e-3)
    if mode != "exact":
        assert not np.array_equal(label, sdd_fiqa(embed, identity, mode=mode, pool=64, seed=1))


def test_permuting_the_images_permutes_the_labels():
    embed, identity = faces()
    shuffle = np.random.default_rng(0).permutation(len(embed))
    exact = sdd_fiqa(embed, identity, mode="exact")
    assert np.allclose(sdd_fiqa(embed[shuffle], identity[shuffle], mode="exact"), exact[shuffle], atol=1e-3)


def test_affine_map_of_cosines_changes_nothing():
    values = np.random.default_rng(0).uniform(0, 1, (30, 2, 8))
    plain = np.array([wasserstein_1d(*pair) for pair in values])
    mapped = np.array([wasserstein_1d(*(0.4 * pair + 0.3)) for pair in values])
    assert np.allclose(normalise_labels(plain), normalise_labels(mapped), atol=1e-3)


def test_an_image_is_not_its_own_positive():
    embed, identity = faces(5, 2)
    for mode in ("published", "exact", "pool"):
        got = sdd_fiqa(embed, identity, mode=mode, raw=True)
        assert np.allclose(got, slow_exact(embed, identity), atol=2e-6)


def test_signed_guard_catches_wrong_labels():
    embed, identity = faces(20, 8)
    embed[0] = -embed[1:8].mean(axis=0) / np.linalg.norm(embed[1:8].mean(axis=0))  # the opposite of its identity
    assert sdd_fiqa(embed, identity, mode="exact", raw=True)[0] > 0.1
    assert sdd_fiqa(embed, identity, mode="exact", signed=True, raw=True)[0] == 0
    assert sdd_fiqa(embed, identity, signed=True, raw=True)[0] == 0


def test_labels_without_spread_or_without_any():
    assert normalise_labels(np.array([0.3, 0.3, np.nan])).tolist()[:2] == [100, 100]
    assert np.isnan(normalise_labels(np.array([np.nan, np.nan]))).all()
    embed, _ = faces(3, 1)
    assert np.isnan(sdd_fiqa(embed, np.arange(3))).all()


def test_bad_input():
    embed, identity = faces(4, 3)
    with pytest.raises(UserError, match="at least two identities"):
        sdd_fiqa(embed, np.zeros(12, int))
    with pytest.raises(UserError, match="unknown mode 'fast'"):
        sdd_fiqa(embed, identity, mode="fast")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="draws 0"):
        sdd_fiqa(embed, identity, draws=0)
    with pytest.raises(UserError, match="one identity for each image"):
        sdd_fiqa(embed, identity[:-1])
    with pytest.raises(UserError, match="row 0: 2"):
        sdd_fiqa(2 * embed, identity)
    with pytest.raises(UserError, match="enlarge `pool`"):
        sdd_fiqa(embed, identity, mode="pool", pool=1)
    embed[5, 2] = np.nan
    with pytest.raises(UserError, match="row 5: nan"):
        sdd_fiqa(embed, identity)
