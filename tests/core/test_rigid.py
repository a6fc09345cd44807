"""The weak-perspective camera of a rigid body: exact where the body is the one seen, best in the least squares where it is not."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from facefoundry.core.euler import angles, rotations
from facefoundry.core.rigid import weak_perspective

BODY = np.random.default_rng(0).normal(size=(20, 3)) * (40.0, 50.0, 20.0) + (3.0, -5.0, 10.0)


def test_camera_is_recovered_with_scale_and_shift():
    rng = np.random.default_rng(1)
    pose, scale, shift = rng.uniform(-50, 50, (30, 3)), rng.uniform(0.2, 2.0, 30), rng.uniform(-100, 100, (30, 2))
    seen = scale[:, None, None] * (BODY @ rotations(pose)[:, :2].transpose(0, 2, 1)) + shift[:, None]
    turn, found_scale, found_shift = weak_perspective(seen, BODY, rounds=400)
    assert angles(turn) == pytest.approx(pose, abs=0.05)
    assert found_scale == pytest.approx(scale, rel=1e-3)
    assert found_shift == pytest.approx(shift, abs=0.1)


def test_noisy_points_give_the_least_squares_of_a_general_solver():
    rng = np.random.default_rng(2)
    pose = np.array([[20.0, -10.0, 5.0]])
    seen = 0.5 * (BODY @ rotations(pose)[:, :2].transpose(0, 2, 1)) + rng.normal(size=(1, 20, 2))

    def error(x):
        return (x[0] * BODY @ rotations(x[None, 1:4])[0, :2].T + x[4:] - seen[0]).ravel()

    best = least_squares(error, [0.4, 10.0, 0.0, 0.0, 0.0, 0.0]).x
    turn, scale, shift = weak_perspective(seen, BODY, rounds=2000)
    assert angles(turn)[0] == pytest.approx(best[1:4], abs=0.1)
    assert np.array([scale[0], *shift[0]]) == pytest.approx([best[0], *best[4:]], abs=0.02)
