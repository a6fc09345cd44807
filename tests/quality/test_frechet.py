"""FID and KID against closed forms, a matrix root and loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from facefoundry.core.errors import UserError
from facefoundry.quality.frechet import fid, frechet_distance, kid


def test_gaussians_with_commuting_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    a, b, shift = rng.uniform(0, 3, 6), rng.uniform(0, 3, 6), rng.standard_normal(6)
    a[0] = 0.0  # singular: nothing may break
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(shift, turn @ np.diag(a) @ turn.T, np.zeros(6), turn @ np.diag(b) @ turn.T) == pytest.approx(expected, rel=1e-7)  # a root of rounding at the zero eigenvalue


def test_general_covariances_equal_the_matrix_root():
    rng = np.random.default_rng(1)
    a, b = (x @ x.T for x in rng.standard_normal((2, 5, 5)))
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(np.zeros(5), a, np.zeros(5), b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [3, 12, 400])
def test_fid_of_samples_is_the_distance_of_their_moments(size):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((size, 16)), 1.3 * rng.standard_normal((size, 16)) + 0.2
    assert fid(x, y) == pytest.approx(frechet_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T)), rel=1e-6, abs=1e-8)
    assert fid(x, x) == pytest.approx(0, abs=1e-8)
    assert fid(x, x + 3) == pytest.approx(16 * 9, rel=1e-9)


def test_kid_is_the_unbiased_mmd():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((7, 4)), rng.standard_normal((7, 4)) + 1
    k = lambda a, b: (float(a @ b) / 4 + 1) ** 3  # noqa: E731
    own = [np.mean([k(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]) for rows in (x, y)]
    expected = sum(own) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kid(x, y) == (pytest.approx(expected), 0.0)
    mean, spread = kid(rng.standard_normal((300, 4)), rng.standard_normal((300, 4)), subsets=40, size=60)
    assert abs(mean) < 0.1 and spread > 0  # the same law: around zero
    assert kid(x, y, size=5, subsets=3) == kid(x, y, size=5, subsets=3)


@pytest.mark.parametrize("bad", [np.full((4, 3), np.nan), np.zeros((1, 3)), np.zeros((4, 2))])
def test_bad_features(bad):
    with pytest.raises(UserError):
        fid(np.zeros((4, 3)), bad)
