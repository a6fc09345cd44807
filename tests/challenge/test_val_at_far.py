"""VAL@FAR against the field's loop, with the interpolation that works."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.challenge.val_at_far import val_at_far
from facefoundry.core.errors import UserError
from scipy.interpolate import interp1d
from sklearn.model_selection import KFold


def textbook(distance, same, target, kind="linear"):
    """Each fold: FAR of 4,000 thresholds on the others, the threshold by interpolation, rates on the fold."""
    grid, val, far, chosen = np.arange(0, 4, 0.001), [], [], []
    for train, test in KFold(10).split(distance):
        far_train = np.array([np.sum(distance[train][~same[train]] < t) / np.sum(~same[train]) for t in grid])
        threshold = float(interp1d(far_train, grid, kind=kind)(target)) if far_train.max() >= target else 0.0
        accept = distance[test] < threshold
        val.append(np.sum(accept & same[test]) / np.sum(same[test]))
        far.append(np.sum(accept & ~same[test]) / np.sum(~same[test]))
        chosen.append(threshold)
    return np.array(val), np.array(far), np.array(chosen)


@pytest.mark.parametrize(("seed", "target"), [(0, 1e-3), (1, 1e-2), (2, 0.1), (3, 0.05)])
def test_equals_the_textbook(seed, target):
    rng = np.random.default_rng(seed)
    same = np.tile(np.repeat([True, False], 20), 10)
    score = np.clip(np.where(same, 0.5, 0.1) + 0.25 * rng.standard_normal(400), -1, 1)
    score = np.round(score, 2) if seed % 2 else score  # on the grid itself: strict comparisons matter
    val, far, threshold = textbook(2 - 2 * score, same, target)
    found = val_at_far(score, same, far=target)
    assert np.allclose(found.threshold_F, threshold, atol=1e-12)
    assert np.array_equal(found.val_F, val) and np.array_equal(found.far_F, far)
    assert found.mean == val.mean() and found.std == val.std() and found.mean_far == far.mean()


def test_the_published_kind_cannot_run():
    # public_code_defects 15: real FAR arrays repeat values, and kind="slinear" refuses them.
    same = np.tile([True, False], 50)
    with pytest.raises(ValueError, match="duplicates"):
        textbook(np.where(same, 0.5, 1.5), same, 0.1, kind="slinear")


def test_a_far_that_is_never_reached_accepts_nothing():
    same = np.tile([True, False], 50)
    found = val_at_far(np.where(same, 1.0, -1.0), same)  # non-mated distances are exactly 4, above the whole grid
    assert found.threshold_F.tolist() == [0.0] * 10 and found.mean == 0.0


def test_bad_input():
    with pytest.raises(UserError, match="no mated or no non-mated"):
        val_at_far(np.linspace(0, 1, 40), np.arange(40) < 20)
    with pytest.raises(UserError, match="far is 2"):
        val_at_far(np.linspace(0, 1, 40), np.arange(40) % 2 == 0, far=2)
