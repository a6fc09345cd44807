"""Fitting a head to landmarks: known heads come back, the box holds, the jaw line follows the outline, bad input is refused."""

from dataclasses import replace

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.euler import rotations
from facefoundry.core.template import five_points
from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.contour import JAW, JawLine
from facefoundry.styles_3dmm.fit import Fit, FitSettings, _rigid_slopes, _small_turns, fit_landmarks
from facefoundry.styles_3dmm.morphable import tiny

HEAD = replace(tiny(), expression_names=("a", "b", "c", "d"))


def people(count: int, seed: int = 0, turn: float = 30.0) -> tuple[Fit, np.ndarray]:
    """Heads of the population and their landmarks as dlib would follow them: the jaw line on the outline."""
    rng = np.random.default_rng(seed)
    true = Fit(
        identity_NK=rng.normal(size=(count, 8)), expression_NE=rng.uniform(0, 1, (count, 4)), pose_N3=rng.uniform([-turn, -20, -15], [turn, 20, 15], (count, 3)),
        camera_N3=np.column_stack([rng.uniform(0.4, 0.7, count), rng.uniform(45, 65, (count, 2))]), landmark_NP2=np.empty(0), residual_N=np.zeros(count),
    )  # fmt: skip
    vertices = HEAD.vertices(true.identity_NK, true.expression_NE)
    point = np.tile(HEAD.landmark_68, (count, 1))
    jaw = JawLine.of(HEAD)
    point[:, :JAW] = jaw.seen(vertices[:, jaw.vertex_QM], rotations(true.pose_N3))
    return true, project(true.camera(), np.take_along_axis(vertices, point[:, :, None], axis=1), true.pose_N3)[:, :, :2].astype(np.float64)


def test_exact_landmarks_give_the_head_back():
    true, landmark = people(40)
    found = fit_landmarks(HEAD, landmark, FitSettings(noise_px=0.02, rounds=25))
    good = found.residual_N < 0.1
    assert good.mean() > 0.9
    assert np.abs(found.pose_N3 - true.pose_N3)[good].max() < 1.0
    assert np.abs(found.identity_NK - true.identity_NK)[good].mean() < 0.1
    assert np.abs(found.expression_NE - true.expression_NE)[good].mean() < 0.05
    assert found.camera_N3[good] == pytest.approx(true.camera_N3[good], abs=1.0)


def test_noisy_landmarks_give_the_pose_within_three_degrees():
    true, landmark = people(200)
    noisy = landmark + np.random.default_rng(1).normal(size=landmark.shape)
    found = fit_landmarks(HEAD, noisy)
    assert np.abs(found.pose_N3 - true.pose_N3).mean(0).max() < 3.0
    assert np.abs(found.camera_N3[:, 0] / true.camera_N3[:, 0] - 1).mean() < 0.03
    assert np.corrcoef(found.identity_NK[:, 0], true.identity_NK[:, 0])[0, 1] > 0.8  # measured 0.87


def test_prior_pulls_to_the_mean_where_landmarks_say_little():
    _, landmark = people(20)
    sure, unsure = (fit_landmarks(HEAD, landmark, FitSettings(noise_px=noise)) for noise in (0.5, 50.0))
    assert np.abs(unsure.identity_NK).mean() < 0.3 * np.abs(sure.identity_NK).mean()
    assert sure.residual_N.mean() < unsure.residual_N.mean()


def test_larger_pictures_give_the_same_head():
    _, landmark = people(10)
    small, large = fit_landmarks(HEAD, landmark), fit_landmarks(HEAD, 3 * landmark + 7.0, FitSettings(noise_px=3.0))
    assert large.pose_N3 == pytest.approx(small.pose_N3, abs=1e-2)
    assert large.identity_NK == pytest.approx(small.identity_NK, abs=1e-2)
    assert large.camera_N3[:, 0] == pytest.approx(3 * small.camera_N3[:, 0], rel=1e-3)
    assert large.camera_N3[:, 1:] == pytest.approx(3 * small.camera_N3[:, 1:] + 7.0, abs=0.1)


def test_face_units_stay_in_their_box_and_standard_deviations_do_not():
    _, landmark = people(30)
    strange = landmark + np.random.default_rng(3).normal(scale=8.0, size=landmark.shape)
    boxed = fit_landmarks(HEAD, strange).expression_NE
    assert boxed.min() >= 0 and boxed.max() <= 1
    assert (boxed == 0).any()
    assert fit_landmarks(tiny(), strange).expression_NE.min() < -0.1


def test_a_fit_does_not_depend_on_its_batch():
    _, landmark = people(300)
    together = fit_landmarks(HEAD, landmark)
    alone = fit_landmarks(HEAD, landmark[270:280])
    assert alone.identity_NK == pytest.approx(together.identity_NK[270:280], abs=1e-5)
    assert alone.pose_N3 == pytest.approx(together.pose_N3[270:280], abs=1e-4)


def test_five_points_give_a_pose():
    true, _ = people(100)
    mean = np.zeros((100, 8)), np.zeros((100, 4))
    seen = five_points(project(true.camera(), HEAD.landmarks(HEAD.vertices(*mean)), true.pose_N3)[:, :, :2].astype(np.float64))
    found = fit_landmarks(HEAD, seen)
    assert found.landmark_NP2.shape == (100, 5, 2)
    assert np.abs(found.pose_N3 - true.pose_N3).mean(0).max() < 3.0


def test_no_faces_are_no_fits():
    assert len(fit_landmarks(HEAD, np.empty((0, 68, 2)))) == 0


def test_bad_landmarks_are_refused():
    with pytest.raises(UserError, match="98 landmarks a face, expected 68"):
        fit_landmarks(HEAD, np.zeros((2, 98, 2)))
    broken = people(3)[1]
    broken[1, 5] = np.nan
    with pytest.raises(UserError, match="1 of 3 faces .* face 1"):
        fit_landmarks(HEAD, broken)


def test_jaw_line_stands_farthest_out():
    """Against a loop that turns every candidate."""
    jaw, rng = JawLine.of(HEAD), np.random.default_rng(5)
    assert (jaw.vertex_QM == HEAD.landmark_68[:JAW, None]).any(1).all()  # every slice holds the landmark itself
    vertices, pose = HEAD.vertices(rng.normal(size=(6, 8)), np.zeros((6, 4))), rng.uniform(-40, 40, (6, 3))
    turn = rotations(pose)
    found = jaw.seen(vertices[:, jaw.vertex_QM], turn)
    for face in range(6):
        roll = np.radians(pose[face, 2])
        for q in range(JAW):
            x, y = jaw.outward_Q2[q]
            out = np.array([np.cos(roll) * x - np.sin(roll) * y, np.sin(roll) * x + np.cos(roll) * y])
            reach = [out @ (turn[face] @ vertices[face, vertex])[:2] for vertex in jaw.vertex_QM[q]]
            assert found[face, q] == jaw.vertex_QM[q][int(np.argmax(reach))]


def test_jaw_weight_zero_leaves_the_outline_out():
    _, landmark = people(20)
    moved = landmark.copy()
    moved[:, [q for q in range(JAW) if q != 8]] += 15.0
    ignoring = FitSettings(jaw_weight=0.0)
    assert fit_landmarks(HEAD, moved, ignoring).pose_N3 == pytest.approx(fit_landmarks(HEAD, landmark, ignoring).pose_N3, abs=1e-5)
    assert np.abs(fit_landmarks(HEAD, moved).pose_N3 - fit_landmarks(HEAD, landmark).pose_N3).max() > 0.1


def test_slopes_of_the_rigid_unknowns_are_right():
    """Against finite differences of the projection itself."""
    rng = np.random.default_rng(6)
    point, step = rng.normal(size=(1, 5, 3)) * 40, 1e-6
    slope = _rigid_slopes(point)
    for k in range(6):
        change = np.zeros((1, 6))
        change[0, k] = step
        moved = (np.exp(change[0, 3]) * point @ _small_turns(change[:, :3])[0].T)[..., :2] + change[0, 4:]
        assert slope[..., k] == pytest.approx((moved - point[..., :2]) / step, abs=1e-3)


def test_camera_of_a_fit_is_the_renderers():
    true, landmark = people(4)
    found = fit_landmarks(HEAD, landmark)
    drawn = project(Camera.weak(found.camera_N3[:, 0], found.camera_N3[:, 1:]), HEAD.landmarks(HEAD.vertices(found.identity_NK, found.expression_NE)), found.pose_N3)
    assert drawn[:, JAW:, :2] == pytest.approx(found.landmark_NP2[:, JAW:], abs=1e-2)
