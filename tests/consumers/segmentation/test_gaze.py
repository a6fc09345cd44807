"""Ellipses, gaze from exact masks of rendered eyes, fusion of frames."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.segmentation.gaze import angle_between, fit_ellipse, fuse_gaze, gaze_of, iris_ellipse
from facefoundry.core.seeds import derive_seed
from facefoundry.styles_3dmm.eyes import render_eyes


def on_ellipse(centre, axes, angle, turns) -> np.ndarray:
    x, y = axes[0] * np.cos(turns), axes[1] * np.sin(turns)
    return np.stack([centre[0] + x * np.cos(angle) - y * np.sin(angle), centre[1] + x * np.sin(angle) + y * np.cos(angle)], 1)


@pytest.mark.parametrize("part", [2 * np.pi, np.pi])  # a lid hides half of it
@pytest.mark.parametrize("angle", [0.0, 0.6, 2.5])
def test_ellipse_is_found_again(part, angle):
    found = fit_ellipse(on_ellipse((100.0, 60.0), (30.0, 21.0), angle, np.linspace(0.2, 0.2 + part, 40)))
    np.testing.assert_allclose(found.centre_2, (100, 60), atol=1e-6)
    np.testing.assert_allclose(found.axes_2, (30, 21), atol=1e-6)
    assert np.sin(found.angle - angle) == pytest.approx(0, abs=1e-6)


def test_noise_moves_the_ellipse_little_and_a_line_is_none():
    rng = np.random.default_rng(0)
    points = on_ellipse((10.0, 20.0), (12.0, 10.0), 0.3, np.linspace(0, 2 * np.pi, 200)) + rng.normal(0, 0.3, (200, 2))
    np.testing.assert_allclose(fit_ellipse(points).centre_2, (10, 20), atol=0.15)
    line = np.stack([np.arange(20.0), 2 * np.arange(20.0)], 1)
    assert fit_ellipse(line) is None


@pytest.fixture(scope="module")
def eyes():
    return render_eyes([derive_seed(5, number, "gaze test") for number in range(40)], size_px=(120, 160), augment=False)


def test_gaze_of_exact_masks(eyes):
    found_N2 = np.array([gaze_of(label) for label in eyes.label_BHW])
    error_N = angle_between(found_N2, eyes.gaze_deg_B2)
    assert np.median(error_N) < 6.0 < 0.6 * np.median(angle_between(np.zeros_like(found_N2), eyes.gaze_deg_B2))
    assert np.corrcoef(found_N2[:, 0], eyes.gaze_deg_B2[:, 0])[0, 1] > 0.98
    assert np.corrcoef(found_N2[:, 1], eyes.gaze_deg_B2[:, 1])[0, 1] > 0.8


def test_iris_is_where_it_was_drawn(eyes):
    away = [np.linalg.norm(iris_ellipse(label).centre_2 - place) for label, place in zip(eyes.label_BHW, eyes.iris_px)]
    assert np.median(away) < 0.2


def test_too_little_to_see():
    closed = np.zeros((40, 60), np.uint8)
    assert gaze_of(closed) is None
    closed[20, 10:50] = 1
    assert gaze_of(closed) is None  # white without an iris
    with pytest.raises(ValueError, match="label_HW"):
        gaze_of(closed[None])


def test_fusion_weights_of_the_specification():
    gaze_M2, unsure_M = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), np.array([0.02, 0.1, 0.4])
    look = np.array([0.8, 0.16, 0.04]) @ np.stack([np.sin(np.radians(gaze_M2[:, 0])), np.cos(np.radians(gaze_M2[:, 0]))], 1)
    np.testing.assert_allclose(fuse_gaze(gaze_M2, unsure_M), [np.degrees(np.arctan2(*look)), 0], atol=1e-9)


def test_fusion_of_sure_and_unsure():
    gaze_M2 = np.array([[10.0, -5.0], [-30.0, 20.0]])
    np.testing.assert_allclose(fuse_gaze(gaze_M2, np.array([0.0, 0.5])), gaze_M2[0], atol=1e-5)
    np.testing.assert_allclose(fuse_gaze(gaze_M2[:1], np.array([0.3])), gaze_M2[0])
    np.testing.assert_allclose(fuse_gaze(gaze_M2, np.array([0.2, 0.2])), fuse_gaze(gaze_M2, np.array([0.9, 0.9])))
    with pytest.raises(ValueError, match="uncertainty_M"):
        fuse_gaze(gaze_M2, np.array([0.1]))


def test_angle_between():
    left, right = np.array([[0.0, 0.0], [90.0, 0.0], [20.0, 10.0]]), np.array([[0.0, 30.0], [0.0, 0.0], [20.0, 10.0]])
    np.testing.assert_allclose(angle_between(left, right), [30, 90, 0], atol=1e-5)
