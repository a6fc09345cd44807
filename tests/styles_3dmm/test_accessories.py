"""Glasses and covers hide what lies behind them, under labels of their own, and leave no trace where they are not worn; eyes turn about their centres."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.styles_3dmm.accessories import LABELS, Glasses, dress
from facefoundry.styles_3dmm.camera import Camera, arcface_camera
from facefoundry.styles_3dmm.gaze import turn_eyes
from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.morphable import PARTS, tiny
from facefoundry.styles_3dmm.render import Rendering, render


@pytest.fixture(scope="module")
def head():
    return default_head()


def glasses(worn: bool, dark: bool = False) -> Glasses:
    one = np.ones(1)
    return Glasses(worn=one > (0 if worn else 2), dark=one > (0 if dark else 2), half_width=24 * one, half_height=18 * one, rim=2 * one, square=3 * one)


def picture(head, *, worn=False, dark=False, covered=False, yaw=0.0) -> Rendering:
    dressed, pose, bare = dress(head), np.array([[yaw, 0.0, 0.0]]), head.mean_V3[None]
    vertices = dressed.vertices(bare, glasses(worn, dark), np.array([covered]))
    return render(dressed.head, vertices, arcface_camera(head, pose), pose, size_px=112, layers=())


def count(made: Rendering, label: str) -> int:
    return int((made.parts == LABELS.index(label)).sum())


def test_labels_start_with_the_parts():
    assert LABELS[1 : 1 + len(PARTS)] == PARTS


def test_nothing_worn_is_the_bare_head(head):
    made = picture(head)
    alone = render(head, head.mean_V3[None], arcface_camera(head, np.zeros((1, 3))), np.zeros((1, 3)), size_px=112, layers=())
    assert np.array_equal(made.parts, alone.parts) and np.array_equal(made.depth, alone.depth)


@pytest.mark.parametrize("yaw", [-35.0, 0.0, 35.0])
def test_dark_glasses_hide_the_eyes_and_a_cover_the_mouth(head, yaw):
    bare, clear, dark, covered = (picture(head, yaw=yaw, **worn) for worn in ({}, {"worn": True}, {"worn": True, "dark": True}, {"covered": True}))
    assert count(bare, "iris") > 5 and count(clear, "iris") == count(bare, "iris") and count(dark, "iris") + count(dark, "sclera") == 0
    assert 60 < count(clear, "glasses") < count(dark, "glasses") < 1800
    assert count(bare, "lips") > 60 and count(covered, "lips") == 0 and count(covered, "cover") > 800 and count(covered, "iris") == count(bare, "iris")
    nose = head.landmark_68[30]
    x, y = covered.landmark_px[0, 30].round().astype(int)
    assert covered.parts[0, y, x] == LABELS.index("cover") and not covered.landmark_visible[0, 57] and nose >= 0


def test_glasses_stand_before_the_face_and_turn_with_it(head):
    """From the front the frame is even on both sides of the nose; what is nearer to the camera than the skin is drawn."""
    made = picture(head, worn=True)
    y, x = np.nonzero(made.parts[0] == LABELS.index("glasses"))
    assert abs(x.mean() - made.landmark_px[0, 27, 0]) < 1.0 and abs(y.mean() - made.landmark_px[0, 36:48, 1].mean()) < 4.0
    turned = picture(head, worn=True, yaw=40.0)
    assert abs(np.nonzero(turned.parts[0] == LABELS.index("glasses"))[1].mean() - turned.landmark_px[0, 27, 0]) > 2.0


def test_tiny_can_be_dressed():
    assert picture(tiny(), worn=True, dark=True, covered=True).parts.max() <= len(LABELS) - 1


def test_eyes_turn_about_their_centres(head):
    gaze = np.array([[20.0, 0.0], [0.0, 15.0]])
    bare = np.repeat(head.mean_V3[None], 2, 0)
    turned = turn_eyes(head, bare, gaze)
    assert np.array_equal(turned[:, head.eye_V == 0], bare[:, head.eye_V == 0])
    for side, centre in enumerate(head.eye_centre_23, start=1):
        eye = head.eye_V == side
        assert np.allclose(np.linalg.norm(turned[:, eye] - centre, axis=2), np.linalg.norm(bare[:, eye] - centre, axis=2), atol=1e-3)
        front = np.flatnonzero(eye)[np.argmax(head.mean_V3[eye][:, 2])]
        ray = turned[:, front] - centre
        assert np.degrees(np.arctan2(ray[0, 0], ray[0, 2])) == pytest.approx(20.0, abs=3.0)  # to the viewer's right
        assert np.degrees(np.arctan2(-ray[1, 1], ray[1, 2])) == pytest.approx(15.0, abs=3.0)  # up


def test_gaze_moves_the_iris_in_the_picture(head):
    camera = Camera.weak([2.0], [[112.0, 112.0]])
    x = []
    for yaw in (-15.0, 15.0):
        made = render(head, turn_eyes(head, head.mean_V3[None], np.array([[yaw, 0.0]])), camera, np.zeros((1, 3)), size_px=224, layers=())
        x.append(np.nonzero(made.parts[0] == 1 + PARTS.index("iris"))[1].mean())
    assert 2 * 2.0 * 12 * np.sin(np.radians(15)) * 0.5 < x[1] - x[0] < 2 * 2.0 * 17 * np.sin(np.radians(15)) * 1.3
