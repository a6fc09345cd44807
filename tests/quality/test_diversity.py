"""Spread and manifolds against loops and worked cases."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.quality.diversity import class_recall, identity_dispersion, improved_recall, manifold_figures, vendi_score


def test_dispersion_is_the_trace_of_the_covariance():
    rng = np.random.default_rng(0)
    rows, index = rng.standard_normal((30, 4)).astype(np.float32) + 50, np.repeat([0, 1, 2, 3], [1, 9, 9, 11])
    found = identity_dispersion(rows, index, 4)
    assert np.isnan(found[0])
    for k in (1, 2, 3):
        assert found[k] == pytest.approx(np.trace(np.cov(rows[index == k].T.astype(float), ddof=0)), rel=1e-5)


@pytest.mark.parametrize(("rows", "value"), [(np.eye(5), 5.0), (np.ones((4, 1)), 1.0), (np.eye(3)[[0, 0, 1, 1]], 2.0), (np.eye(2)[[0] * 30 + [1] * 30], 2.0)])
def test_vendi_counts_what_differs(rows, value):
    assert vendi_score(rows) == pytest.approx(value, abs=1e-6)


def test_vendi_is_the_entropy_of_the_kernel():
    rows = np.random.default_rng(1).standard_normal((20, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    value = np.linalg.eigvalsh(rows @ rows.T / 20)
    value = value[value > 1e-12]
    assert vendi_score(rows) == pytest.approx(np.exp(-sum(x * np.log(x) for x in value)))


def slow_figures(real, made, k):
    radius = lambda rows: [sorted(float(np.linalg.norm(a - b)) for j, b in enumerate(rows) if j != i)[k - 1] for i, a in enumerate(rows)]  # noqa: E731
    real_r, made_r = radius(real), radius(made)
    apart = [[float(np.linalg.norm(x - y)) for y in made] for x in real]
    n, m = len(real), len(made)
    return (
        np.mean([any(apart[i][j] <= real_r[i] for i in range(n)) for j in range(m)]),
        np.mean([any(apart[i][j] <= made_r[j] for j in range(m)) for i in range(n)]),
        sum(apart[i][j] <= real_r[i] for i in range(n) for j in range(m)) / (k * m),
        np.mean([any(apart[i][j] <= real_r[i] for j in range(m)) for i in range(n)]),
    )


def test_manifolds_equal_the_loops():
    rng = np.random.default_rng(2)
    real, made = rng.standard_normal((25, 3)), 0.7 * rng.standard_normal((18, 3)) + 0.5
    found = manifold_figures(real, made, k=3)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(slow_figures(real, made, 3))
    assert 0 < found.recall < 1
    assert improved_recall(real, made, k=3) == found.recall
    with pytest.raises(UserError, match="at least 4 of each"):
        manifold_figures(real[:3], made)


def test_class_recall_sees_only_the_own_class():
    line = np.arange(8.0)[:, None]
    real, labels = np.concatenate([line, line + 100]), ["a"] * 8 + ["b"] * 8
    # Class a is covered, class b's copies lie in class a's place: they cover nobody of their own.
    found = class_recall(real, labels, np.concatenate([line, line]), labels, k=2)
    assert found.tolist() == [1.0, 0.0]
    assert np.isnan(class_recall(real, labels, line[:2], ["a", "a"], k=2)).all()
