"""Use of a codebook: worked values, edges."""

import numpy as np
import pytest

from facefoundry.consumers.tokenizer.usage import density_uniformity, uniformity, usage


def test_worked_values():
    found = uniformity(np.array([3, 1, 4, 2]))
    assert (found["gini"], found["variation"], found["entropy"]) == pytest.approx((0.25, 0.4472, 0.9232), abs=5e-5)


def test_gini_against_all_pairs():
    mass = np.random.default_rng(0).exponential(size=40)
    slow = sum(abs(a - b) for a in mass for b in mass) / (2 * len(mass) ** 2 * mass.mean())
    assert uniformity(mass)["gini"] == pytest.approx(slow)


def test_even_and_collapsed_books():
    even = usage(np.arange(16).reshape(2, 8), 16)
    assert (even.alive, even.perplexity, even.entropy, even.gini, even.variation) == pytest.approx((1, 16, 1, 0, 0))
    one = usage(np.full((3, 4), 5), 16)
    assert (one.alive, one.perplexity, one.entropy) == pytest.approx((1 / 16, 1, 0)) and one.gini == pytest.approx(15 / 16)


def test_perplexity_is_exp_of_entropy():
    token = np.array([0, 0, 0, 1])
    assert usage(token, 8).perplexity == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_density_tells_clumps_from_an_even_spread():
    rng = np.random.default_rng(0)
    even, clumped = rng.uniform(-1, 1, (1500, 4)), np.concatenate([rng.normal(0, 0.02, (700, 4)), rng.uniform(-1, 1, (800, 4))])
    a, b = density_uniformity(even, sample=800), density_uniformity(clumped, sample=800)
    assert a["variation"] < b["variation"] and a["gini"] < b["gini"]
    assert a == density_uniformity(even, sample=800)  # seeded
    assert a["bandwidth"] > 0


def test_bad_input():
    for token in (np.array([], int), np.array([0, 9]), np.array([-1])):
        with pytest.raises(ValueError, match="expected some, from 0 to 7"):
            usage(token, 8)
