"""Light and skin from pixels: rendered heads give their light back, whatever hangs before the face is left out, pale and dark are told apart."""

import numpy as np
import pytest

from facefoundry.styles_3dmm.appearance import SKIN_MEAN_RGB, divide, fit_appearance
from facefoundry.styles_3dmm.camera import Camera
from facefoundry.styles_3dmm.fit import Fit
from facefoundry.styles_3dmm.light import ambient, directional, shade
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.render import render
from facefoundry.styles_3dmm.style_maps import part_albedo

HEAD, COUNT = tiny(), 24


def scene() -> tuple[Fit, np.ndarray, np.ndarray, np.ndarray]:
    """Fits, pictures, lights and skin tones of heads."""
    rng = np.random.default_rng(0)
    identity, expression = rng.normal(size=(COUNT, 8)), np.zeros((COUNT, 4))
    pose, camera = rng.uniform(-20, 20, (COUNT, 3)), Camera.weak(np.full(COUNT, 0.45), np.tile([56.0, 50.0], (COUNT, 1)))
    tone = SKIN_MEAN_RGB * np.exp(rng.uniform(-0.9, 0.2, (COUNT, 1)) * [0.8, 1.0, 1.1])
    light = np.stack([ambient(rng.uniform(0.4, 0.7)) + directional(rng.normal(size=3) + [0, 0, 1], rng.uniform(0, 0.4)) for _ in range(COUNT)])
    picture = render(HEAD, HEAD.vertices(identity, expression), camera, pose, albedo=part_albedo(HEAD, tone), light_B93=light, size_px=112)
    fit = Fit(identity_NK=identity, expression_NE=expression, pose_N3=pose, camera_N3=np.column_stack([camera.scale_B, camera.shift_B2]), landmark_NP2=picture.landmark_px, residual_N=np.zeros(COUNT))
    return fit, (picture.colour * 255).round().astype(np.uint8), light, tone


FIT, IMAGE, LIGHT, TONE = scene()


def shaded(light: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Colours of skin that faces the camera's side."""
    normal = np.random.default_rng(1).normal(size=(COUNT, 300, 3))
    normal[..., 2] = np.abs(normal[..., 2]) + 0.5
    return shade(normal / np.linalg.norm(normal, axis=2, keepdims=True), light) * tone[:, None]


def test_rendered_light_comes_back():
    found = fit_appearance(HEAD, FIT, IMAGE)
    assert found.light_N93.shape == (COUNT, 9, 3) and found.tone_N3.min() > 0 and found.tone_N3.max() <= 1
    assert np.abs(shaded(found.light_N93, found.tone_N3) - shaded(LIGHT, TONE)).mean() < 0.02
    assert found.pixels_N.min() > 200 and found.error_N.max() < 0.03


def test_side_of_the_lamp_comes_back():
    side_of_whole, true = (light[:, 1].mean(1) / light[:, 0].mean(1) for light in (fit_appearance(HEAD, FIT, IMAGE).light_N93, LIGHT))
    assert np.corrcoef(side_of_whole, true)[0, 1] > 0.95


def test_dark_and_pale_skin_are_told_apart():
    assert np.corrcoef(np.log(fit_appearance(HEAD, FIT, IMAGE).tone_N3[:, 0]), np.log(TONE[:, 0]))[0, 1] > 0.8


def test_what_hangs_before_the_face_is_left_out():
    covered = IMAGE.copy()
    covered[:, 60:72, 40:62] = (20, 200, 40)
    found = fit_appearance(HEAD, FIT, covered)
    assert np.abs(shaded(found.light_N93, found.tone_N3) - shaded(LIGHT, TONE)).mean() < 0.04


def test_product_of_tone_and_light_is_divided_by_bayes_rule():
    middle = SKIN_MEAN_RGB * 0.85
    assert divide(middle[None])[0] == pytest.approx(SKIN_MEAN_RGB)
    dim, brown = divide(0.7 * middle[None])[0], divide(middle[None] * [0.8, 0.68, 0.6])[0]
    assert (dim < SKIN_MEAN_RGB).all() and (dim > 0.7 * SKIN_MEAN_RGB).all()  # part skin, part light
    assert brown[0] / brown[2] > 1.15 * SKIN_MEAN_RGB[0] / SKIN_MEAN_RGB[2]  # that hue is skin's, not a lamp's


def test_no_face_and_no_skin():
    nobody = Fit(**{name: getattr(FIT, name)[:0] for name in ("identity_NK", "expression_NE", "pose_N3", "camera_N3", "landmark_NP2", "residual_N")})
    assert fit_appearance(HEAD, nobody, IMAGE[:0]).light_N93.shape == (0, 9, 3)
    assert np.isfinite(fit_appearance(HEAD, FIT, np.zeros_like(IMAGE)).light_N93).all()  # black: every pixel is left out
