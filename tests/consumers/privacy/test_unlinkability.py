"""D_sys: the worked values of consumers.md §10, the end bins, the floor, numpy 2."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.privacy.unlinkability import d_sys, d_sys_of_shares, local_linkability
from facefoundry.core.errors import UserError
from scipy.stats import norm


def test_worked_values():
    mated, other = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.3, 0.2, 0.1])
    assert local_linkability(mated, other) == pytest.approx([0, 0, 0.2, 0.6])
    assert d_sys_of_shares(mated, other) == pytest.approx(0.30)
    assert d_sys_of_shares(mated, other, omega=0.1) == 0.0
    assert d_sys_of_shares(np.array([0, 0.25, 0.25, 0.5]), np.array([0.5, 0.25, 0.25, 0])) == pytest.approx(0.5)  # the trapezoid says .25


def test_end_bins_count_in_full():
    scores = np.random.default_rng(0).random(1000) * 0.001
    assert d_sys(1.0 - scores, scores).d_sys == 1.0  # the public script: about .5 to .97


@pytest.mark.parametrize("gap, expected", [(0.25, 0.0574), (0.5, 0.1282), (1, 0.2935), (2, 0.6165), (3, 0.8346), (4, 0.9430)])
def test_equal_gaussians(gap, expected):
    edge = np.linspace(-9, 9 + gap, 8001)
    mated, other = np.diff(norm.cdf(edge, gap)), np.diff(norm.cdf(edge))
    assert d_sys_of_shares(mated, other) == pytest.approx(expected, abs=2e-4)


def test_local_measure_against_the_formula():
    rng = np.random.default_rng(1)
    mated, other = rng.dirichlet(np.ones(30)), rng.dirichlet(np.ones(30))
    for omega in (0.3, 1.0, 4.0):
        ratio = mated / other * omega
        slow = [0.0 if r <= 1 else 2 * r / (1 + r) - 1 for r in ratio]
        assert local_linkability(mated, other, omega) == pytest.approx(slow)


@pytest.mark.parametrize("sizes, floor", [((1000, 1000), 0.093), ((10_000, 100_000), 0.016), ((1000, 100), 0.32)])
def test_finite_sample_floor(sizes, floor):
    rng = np.random.default_rng(2)
    found = d_sys(rng.standard_normal(sizes[0]), rng.standard_normal(sizes[1]), permutations=8)
    assert found.floor == pytest.approx(floor, rel=0.25) and found.d_sys < 1.5 * floor and found.floor <= found.floor_high
    assert found.resolved is (sizes == (10_000, 100_000))


def test_few_scores_give_whole_bins():
    found = d_sys(np.linspace(0, 1, 55), np.linspace(0, 1, 500))
    assert found.bins == 5


def test_equal_scores_say_nothing():
    assert d_sys(np.ones(50), np.ones(50)).d_sys == 0.0


@pytest.mark.parametrize("mated, other, words", [([1.0] * 5, [0.0], "at least 10"), ([1.0] * 20, [], "at least 10"), ([np.nan] * 20, [0.0] * 20, "NaN")])
def test_bad_scores(mated, other, words):
    with pytest.raises(UserError, match=words):
        d_sys(np.array(mated), np.array(other))


def test_bad_odds():
    with pytest.raises(UserError, match="omega"):
        d_sys(np.arange(20.0), np.arange(20.0), omega=0.0)
