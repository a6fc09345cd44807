"""Close-range eyes: labels against a slow ray caster in plain numpy, gaze against the picture, blur that moves nothing, both looks."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.euler import rotations
from facefoundry.styles_3dmm.eye_camera import defocus, smear
from facefoundry.styles_3dmm.eye_kernel import IRIS_DEPTH_MM, lid_edges, label_of, paint_eye, ripple
from facefoundry.styles_3dmm.eyes import EYE_LABELS, draw_eye, render_eyes


def slow_labels(eye, size):
    """Every pixel's ray met with the plane of the iris by the textbook: P · g = d, distance in space to the disc's centre."""
    y_px, x_px = np.mgrid[: size[0], : size[1]].astype(np.float64)
    right, down = x_px - eye.x_px, y_px - eye.y_px
    x = eye.side * (right * eye.cos_roll + down * eye.sin_roll) / eye.scale
    y = (-right * eye.sin_roll + down * eye.cos_roll) / eye.scale
    gaze = np.asarray(eye.gaze)
    point = np.stack([x, y, (IRIS_DEPTH_MM - x * gaze[0] - y * gaze[1]) / gaze[2]], -1)
    assert np.allclose(point @ gaze, IRIS_DEPTH_MM)
    across = np.cross((0.0, 1.0, 0.0), gaze) / np.linalg.norm(np.cross((0.0, 1.0, 0.0), gaze))
    up = np.cross(gaze, across)
    hole = IRIS_DEPTH_MM * gaze + eye.pupil_x * across + eye.pupil_y * up
    t = (x + eye.width) / (2 * eye.width)
    s = t.clip(0, 1)
    upper = -eye.tilt * t - eye.upper * 4 * s**eye.upper_skew * (1 - s**eye.upper_skew)
    lower = -eye.tilt * t + eye.lower * 4 * s**eye.lower_skew * (1 - s**eye.lower_skew)
    label = np.where(np.linalg.norm(point - IRIS_DEPTH_MM * gaze, axis=-1) < eye.iris_mm, 2, 1)
    label[(label == 2) & (np.linalg.norm(point - hole, axis=-1) < eye.pupil_mm)] = 3
    label[~((t > 0) & (t < 1) & (y > upper) & (y < lower))] = 0
    return label


@pytest.mark.parametrize("seed", range(6))
def test_labels_are_those_of_a_slow_ray_caster(seed):
    eye, *_ = draw_eye(np.random.default_rng(seed), (60, 80), infrared=bool(seed % 2))
    colour, label = np.empty((60, 80, 3), np.float32), np.empty((60, 80), np.uint8)
    paint_eye(eye, colour, label)
    assert (label != slow_labels(eye, (60, 80))).sum() <= 1 and np.isfinite(colour).all() and colour.min() >= 0
    assert label_of.py_func(eye, *(float(value) for value in (0.0, 0.3))) == label_of(eye, 0.0, 0.3)


def test_the_iris_lies_where_the_gaze_says():
    """The centre of a fully seen pupil, minus the eyeball's, over the scale is the gaze itself."""
    gaze = np.array([[25.0, 0.0], [-25.0, 0.0], [0.0, 12.0], [0.0, -12.0], [18.0, 8.0]])
    for row, degrees in enumerate(gaze):
        eye, _, gaze_3 = draw_eye(np.random.default_rng(row), (120, 160), infrared=False, gaze_2=degrees, augment=False)
        made = render_eyes([1], size_px=(120, 160), gaze_deg=degrees[None], augment=False, look="visible")
        assert np.allclose(made.gaze_B3[0], rotations(np.array([[*degrees, 0.0]]))[0] @ (0, 0, 1), atol=1e-6)
        assert np.sign(gaze_3[0]) == np.sign(degrees[0]) and np.sign(-gaze_3[1]) == np.sign(degrees[1])
        right = (eye.side * eye.gaze[0] * eye.cos_roll - eye.gaze[1] * eye.sin_roll, eye.side * eye.gaze[0] * eye.sin_roll + eye.gaze[1] * eye.cos_roll)
        assert np.allclose(right, gaze_3[:2], atol=1e-9)  # the eye's frame and the picture's agree


def test_pupil_and_iris_centres_are_those_of_the_labels():
    made, close = render_eyes(range(40), size_px=(150, 200)), 0
    for label, pupil_px, opening in zip(made.label_BHW, made.pupil_px, made.opening_B):
        y, x = np.nonzero(label == EYE_LABELS.index("pupil"))
        ringed = len(y) > 30 and opening > 0.25 and not np.isin(label[[max(y.min() - 1, 0), min(y.max() + 1, 149)]][:, x.min() : x.max() + 1], [0, 1]).any()
        if ringed and x.min() > 0 and x.max() < 199 and y.min() > 0 and y.max() < 149:
            close += 1
            assert np.hypot(x.mean() - pupil_px[0], y.mean() - pupil_px[1]) < 0.7
    assert close >= 8


def test_labels_nest_and_bright_parts_are_bright():
    made = render_eyes(range(30), size_px=(100, 160), augment=False, look="visible")
    grey = made.image_BHWC.mean(-1)
    means = np.array([[grey[k][made.label_BHW[k] == value].mean() for value in (1, 2, 3)] for k in range(30) if all((made.label_BHW[k] == value).sum() > 20 for value in (1, 2, 3))])
    assert len(means) > 20 and (means[:, 0] > means[:, 1]).mean() > 0.9 and (means[:, 1] > means[:, 2]).mean() > 0.6


def test_infrared_is_grey_with_a_dark_pupil():
    made = render_eyes(range(20), size_px=(100, 160), look="infrared", augment=False)
    assert made.infrared_B.all() and np.ptp(made.image_BHWC.astype(int), axis=-1).max() == 0
    darker = [np.median(image[label == 3]) < np.median(image[label == 2]) for image, label in zip(made.image_BHWC[..., 0], made.label_BHW) if (label == 3).sum() > 30]
    assert len(darker) > 10 and np.mean(darker) == 1.0


def test_an_eye_depends_on_its_seed_alone_and_not_on_the_size():
    whole, part = render_eyes([3, 4, 5], size_px=(90, 144)), render_eyes([4], size_px=(90, 144))
    assert np.array_equal(whole.image_BHWC[1], part.image_BHWC[0]) and not np.array_equal(whole.image_BHWC[0], whole.image_BHWC[1])
    large = render_eyes([4], size_px=(180, 288))
    assert np.allclose(large.gaze_B3, part.gaze_B3) and np.allclose((large.pupil_px + 0.5) / 2, part.pupil_px + 0.5, atol=0.6)
    assert abs((large.label_BHW > 0).mean() - (part.label_BHW > 0).mean()) < 0.01
    assert render_eyes([]).image_BHWC.shape == (0, 400, 640, 3)


def test_the_range_of_openings_gazes_and_sizes():
    made = render_eyes(range(120), size_px=(60, 96))
    share = (made.label_BHW > 0).mean((1, 2))
    assert made.opening_B.min() < 0.12 and np.median(made.opening_B) > 0.25 and 0.15 < made.infrared_B.mean() < 0.55
    assert np.abs(made.gaze_deg_B2).max() <= 38 and made.gaze_deg_B2[:, 0].std() > 10 and share.min() < 0.02 < 0.2 < share.max()


def test_blur_keeps_the_mean_and_the_place():
    picture = np.zeros((41, 41, 3), np.float32)
    picture[20, 20] = 1.0
    for blurred in (defocus(picture, 2.0), smear(picture, 9.0, 0.0), smear(picture, 8.0, 1.1)):
        y, x = np.mgrid[:41, :41]
        assert blurred.sum() == pytest.approx(3.0, rel=1e-3)
        assert (blurred[..., 0] * x).sum() == pytest.approx(20.0, abs=0.05) and (blurred[..., 0] * y).sum() == pytest.approx(20.0, abs=0.05)
    flat = smear(picture, 9.0, 0.0)[..., 0]
    assert np.count_nonzero(flat[20]) == 9 and np.count_nonzero(flat.sum(1)) == 1


def test_lids_meet_at_the_corners_and_never_cross():
    for seed in range(40):
        eye, *_ = draw_eye(np.random.default_rng(seed), (60, 80), infrared=False)
        for x in np.linspace(-1.3, 1.3, 53) * eye.width:
            upper, lower = lid_edges(eye, x)
            assert upper <= lower and (abs(x) < eye.width or upper == lower)


def test_noise_is_smooth_and_fills_its_range():
    line = np.array([ripple(0.01 * k, 0.37, 5) for k in range(6000)])
    assert np.abs(np.diff(line)).max() < 0.08 and line.min() < -0.5 and line.max() > 0.5 and abs(line.mean()) < 0.1
    assert ripple(3.3, 4.4, 5) != ripple(3.3, 4.4, 6) and ripple.py_func(3.3, 4.4, 5) == pytest.approx(ripple(3.3, 4.4, 5), abs=1e-9)


def test_bad_gaze_is_refused():
    with pytest.raises(ValueError, match="40 degrees"):
        render_eyes([1], gaze_deg=np.array([[50.0, 0.0]]))
    with pytest.raises(ValueError, match="yaw and pitch"):
        render_eyes([1, 2], gaze_deg=np.zeros((1, 2)))
