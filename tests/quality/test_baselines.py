"""Comparison scores against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.quality.baselines import certainty_ratio, embedding_norm, ser_fiq, sharpness

RNG = np.random.default_rng(0)


def test_norm():
    assert embedding_norm(np.array([[3.0, 4.0], [0.0, 0.0]])) == pytest.approx([5, 0])


def test_sharpness_is_the_variance_of_the_laplacian():
    from scipy.ndimage import laplace

    image = RNG.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    grey = image @ np.array([0.299, 0.587, 0.114])
    wanted = [laplace(one)[1:-1, 1:-1].var() for one in grey]
    assert sharpness(image) == pytest.approx(wanted, rel=1e-4)
    assert sharpness(np.full((1, 20, 20, 3), 90, np.uint8)) == pytest.approx([0], abs=1e-6)


def test_ser_fiq_formula():
    feature = RNG.normal(size=(4, 16)).astype(np.float32)
    weight = torch.from_numpy(RNG.normal(size=(16, 8)).astype(np.float32))
    seen = []

    def head(x):
        seen.append(x.clone())
        return x @ weight

    got = ser_fiq(feature, head, passes=5, seed=1)
    for score, x, row in zip(got, seen, feature):
        unit = torch.nn.functional.normalize(x @ weight).double()
        distance = np.mean([float((unit[a] - unit[b]).norm()) for a in range(5) for b in range(a)])
        assert score == pytest.approx(2 / (1 + np.exp(distance)), abs=1e-4)
        ratio = (x / torch.from_numpy(row)).numpy()
        assert set(np.round(np.unique(ratio), 4)) <= {0.0, 2.0}  # dropped, or scaled up
    assert np.array_equal(got[2:], ser_fiq(feature[2:], lambda x: x @ weight, passes=5, seed=1))


def test_ser_fiq_prefers_the_stable():
    """Features far along one embedding axis hardly turn under dropout; a balance of many opposed ones does."""
    weight = torch.eye(2).repeat_interleave(32, 0)
    one_axis, balanced = np.r_[np.full(32, 1.0), np.zeros(32)], RNG.normal(size=64)
    stable, shaky = ser_fiq(np.stack([one_axis, balanced]), lambda x: x @ weight)
    assert stable == pytest.approx(1.0, abs=1e-3) and shaky < 0.8
    with pytest.raises(UserError, match="1 passes"):
        ser_fiq(balanced[None], lambda x: x, passes=1)


def test_certainty_ratio_by_the_definition():
    embed = RNG.normal(size=(9, 6)) + 0.5
    embed = (embed / np.linalg.norm(embed, axis=1, keepdims=True)).astype(np.float32)
    person = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    got = certainty_ratio(embed, person)
    for i in range(8):
        centre = {p: embed[(person == p) & (np.arange(9) != i)].mean(axis=0) for p in range(4)}
        cos = {p: float(embed[i] @ c / np.linalg.norm(c)) for p, c in centre.items()}
        assert got[i] == pytest.approx(cos[person[i]] / (max(v for p, v in cos.items() if p != person[i]) + 1), abs=1e-5)
    assert np.isnan(got[8])
    with pytest.raises(UserError, match="only one"):
        certainty_ratio(embed, np.zeros(9))
