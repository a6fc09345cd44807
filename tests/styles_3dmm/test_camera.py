"""Cameras: hand-computed projections, the pose convention, the ArcFace framing against the aligner's own transform."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facefoundry.core.template import TEMPLATE_PX, five_points
from facefoundry.recognition.align import similarity_transform
from facefoundry.styles_3dmm.camera import Camera, aligned_pose, arcface_camera, place, project, resize_px
from facefoundry.styles_3dmm.morphable import tiny

POINT_1V3 = np.array([[(10.0, 20.0, 30.0), (0.0, 0.0, 0.0)]])


def test_weak_camera_by_hand():
    seen = project(Camera.weak([2.0], [[50.0, 60.0]]), POINT_1V3, np.zeros((1, 3)))
    assert np.allclose(seen, [[(70.0, 100.0, 30.0), (50.0, 60.0, 0.0)]])


def test_perspective_camera_by_hand():
    camera = Camera.perspective([1000.0], [500.0], [[50.0, 60.0]])
    assert np.allclose(camera.focal_px, 1000)
    seen = project(camera, POINT_1V3, np.zeros((1, 3)))
    # focal · x / (distance - z) = 1000 · 10 / 470
    assert np.allclose(seen, [[(50 + 10000 / 470, 60 + 20000 / 470, 30.0), (50.0, 60.0, 0.0)]], atol=1e-4)


def test_far_perspective_is_weak():
    rng = np.random.default_rng(0)
    vertices, pose, shift = rng.normal(size=(2, 50, 3)) * 80, rng.normal(size=(2, 3)) * 20, np.array([[3.0, 4.0], [5.0, 6.0]])
    far = project(Camera.perspective(np.full(2, 0.7e5), np.full(2, 1e5), shift), vertices, pose)
    assert np.allclose(far, project(Camera.weak(np.full(2, 0.7), shift), vertices, pose), atol=0.4)


@pytest.mark.parametrize(("pose", "nose"), [((90, 0, 0), (1, 0, 0)), ((0, 90, 0), (0, -1, 0)), ((0, 0, 90), (0, 0, 1))])
def test_pose_turns_the_nose_where_the_convention_says(pose, nose):
    """Yaw to the viewer's right, pitch up; roll leaves the nose and turns the ear at the right down."""
    camera = Camera.weak([1.0], [[0.0, 0.0]])
    assert np.allclose(project(camera, np.array([[(0, 0, 1.0)]]), np.array([pose])), [[nose]], atol=1e-6)
    if pose[2]:
        assert np.allclose(project(camera, np.array([[(1.0, 0, 0)]]), np.array([pose])), [[(0, 1, 0)]], atol=1e-6)


@pytest.mark.parametrize("distance_mm", [None, 600.0])
def test_arcface_camera_is_what_alignment_gives(distance_mm):
    head = tiny()
    pose_B3 = aligned_pose(head, np.array([(0, 0, 0), (35, 10, 0), (-50, -15, 0), (20, 5, 77.0)]), distance_mm=distance_mm)
    camera = arcface_camera(head, pose_B3, distance_mm=distance_mm)
    seen_B52 = five_points(project(camera, head.landmarks(np.repeat(head.mean_V3[None], 4, 0)), pose_B3)[:, :, :2])
    for seen_52 in seen_B52:
        # Aligning a face that is framed as aligned faces are moves nothing: scale 1, no turn, no shift.
        assert np.allclose(similarity_transform(seen_52, TEMPLATE_PX), [(1, 0, 0), (0, 1, 0)], atol=5e-3)


def test_arcface_camera_keeps_a_roll_that_is_asked_for_and_scales_with_the_picture():
    head, tilted_13 = tiny(), np.array([(0.0, 0.0, 20.0)])
    straight_13 = aligned_pose(head, tilted_13)
    seen_52 = five_points(project(arcface_camera(head, tilted_13), head.landmarks(head.mean_V3[None]), tilted_13)[0, :, :2])
    turn_22 = similarity_transform(seen_52, TEMPLATE_PX)[:, :2]
    assert math.degrees(math.atan2(turn_22[1, 0], turn_22[0, 0])) == pytest.approx(straight_13[0, 2] - 20.0, abs=1e-3)
    small, large = arcface_camera(head, straight_13), arcface_camera(head, straight_13, size_px=224)
    assert np.allclose(small.resized(2).scale_B, large.scale_B) and np.allclose(small.resized(2).shift_B2, large.shift_B2)


def test_a_batch_is_placed_as_plain_numpy_and_plain_python_say():
    rng = np.random.default_rng(0)
    turned_BV3, place_B4 = rng.normal(scale=60, size=(3, 40, 3)).astype(np.float32), np.array([(0.5, 55, 52, 0), (0.6, 50, 60, 700), (0.4, 56, 56, 2000)], np.float32)
    made, slow = np.empty_like(turned_BV3), np.empty_like(turned_BV3)
    nearest_mm = place(turned_BV3, place_B4, made)
    larger_BV1 = np.stack([np.ones((40, 1)), *(place_B4[row, 3] / (place_B4[row, 3] - turned_BV3[row, :, 2:]) for row in (1, 2))])
    assert np.allclose(made[:, :, :2], turned_BV3[:, :, :2] * larger_BV1 * place_B4[:, None, :1] + place_B4[:, None, 1:3], atol=1e-3) and np.array_equal(made[:, :, 2], turned_BV3[:, :, 2])
    assert nearest_mm == pytest.approx(min((place_B4[row, 3] - turned_BV3[row, :, 2]).min() for row in (1, 2)))
    assert place.py_func(turned_BV3, place_B4, slow) == nearest_mm and np.allclose(made, slow, atol=1e-4)
    one = np.empty_like(turned_BV3)
    place(turned_BV3, place_B4[:1], one)  # one camera for all
    assert np.array_equal(one[0], made[0]) and np.allclose(one[2, :, :2], turned_BV3[2, :, :2] * 0.5 + (55, 52), atol=1e-4)


def test_resizing_keeps_the_edges():
    assert np.allclose(resize_px(np.array([-0.5, 0.0, 111.5]), 2.0), [-0.5, 0.5, 223.5])


def test_bad_cameras_are_refused():
    with pytest.raises(ValueError, match="more than 0"):
        Camera.weak([-1.0], [[0.0, 0.0]])
    with pytest.raises(ValueError, match="needs it"):
        Camera(kind="perspective", scale_B=np.ones(1), shift_B2=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="move the camera away"):
        project(Camera.perspective([100.0], [35.0], [[0.0, 0.0]]), POINT_1V3, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="one for all"):
        project(Camera.weak(np.ones(2), np.zeros((2, 2))), np.zeros((3, 4, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="pose_B3"):
        project(Camera.weak([1.0], [[0.0, 0.0]]), POINT_1V3, np.array([[np.nan, 0, 0]]))
