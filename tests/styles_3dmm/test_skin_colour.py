"""Skin tones: colour spaces against known values, and a model that reaches light and dark skin alike."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.styles_3dmm.palette import HAIR, INNER, IRIS, draw
from facefoundry.styles_3dmm.skin_colour import ITA_RANGE, ToneModel, balance, density, from_lab, ita, lab, linear, srgb


def people(count: int = 200, seed: int = 0) -> np.ndarray:
    """Skins made of two pigments: melanin in the main, some blood."""
    rng = np.random.default_rng(seed)
    melanin, blood = np.array([0.42, 0.5, 0.58]), np.array([0.03, 0.13, 0.11])
    return np.exp(-(np.array([0.7, 1.1, 1.4]) + rng.normal(size=(count, 1)) * melanin + rng.normal(size=(count, 1)) * blood).clip(0.05))


def test_colour_spaces_have_known_values_and_inverses():
    assert linear(np.array([0.0, 0.04, 0.5, 1.0])) == pytest.approx([0, 0.04 / 12.92, 0.21404114, 1.0], abs=1e-7)
    colour = np.random.default_rng(0).uniform(size=(50, 3))
    assert srgb(linear(colour)) == pytest.approx(colour) and from_lab(lab(linear(colour))) == pytest.approx(linear(colour), abs=1e-9)
    # Bruce Lindbloom's figures of sRGB's primaries under D65.
    assert lab(np.eye(3)) == pytest.approx(np.array([[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]), abs=0.02)
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=1e-6)
    assert density(np.array([1.0, np.exp(-2.0)])) == pytest.approx([0, 2]) and np.isfinite(density(np.zeros(1))).all()


def test_typology_angle_is_chardons():
    for lightness, yellow, angle in ((70.0, 20.0, 45.0), (50.0, 15.0, 0.0), (30.0, 20.0, -45.0)):
        assert ita(from_lab(np.array([lightness, 10.0, yellow]))) == pytest.approx(angle)


def test_melanin_is_the_main_axis_and_darkens_blue_most():
    model = ToneModel.of(people())
    assert (model.melanin_3 > 0).all() and model.melanin_3[2] > model.melanin_3[0]
    assert model.melanin_3 == pytest.approx([0.42, 0.5, 0.58], rel=0.15)
    assert model.haemoglobin_3[1] > model.haemoglobin_3[2] > model.haemoglobin_3[0] > 0


def test_light_and_dark_skin_are_both_reached_whoever_was_photographed():
    """From people of whom none is very dark, every class of Del Bino & Bernerd (2013) is reached to a degree, and the tone stays skin's."""
    skin = people()
    light = skin[ita(skin) > 0]
    model = ToneModel.of(light)
    asked = np.stack(np.broadcast_arrays(np.linspace(*ITA_RANGE, 26)[:, None], np.array([-1.0, 0.0, 1.0])), -1).reshape(-1, 2)
    made = np.exp(-model.density(asked))
    assert ita(made) == pytest.approx(asked[:, 0], abs=1.0)
    lightness, red, yellow = lab(made).T
    assert lightness.max() > 75 and lightness.min() < 32  # CIELAB: faces of the lightest and of the darkest people
    assert (red > 0).all() and (yellow > 5).all() and made.min() > 0 and made.max() < 1
    assert model.tone(made)[:, 0] == pytest.approx(asked[:, 0], abs=1.0)
    beyond = model.density(np.array([[-500.0, 0.0], [500.0, 0.0]]))
    assert ita(np.exp(-beyond)) == pytest.approx(ITA_RANGE[:1] + ITA_RANGE[1:], abs=1.0)


def test_redness_reddens_and_leaves_the_angle():
    model = ToneModel.of(people())
    pale, plain, red = np.exp(-model.density(np.array([[20.0, -1.0], [20.0, 0.0], [20.0, 1.0]])))
    assert lab(pale)[1] < lab(plain)[1] - 1 < lab(red)[1] - 2
    assert model.tone(np.stack([pale, plain, red]))[:, 1] == pytest.approx([-1, 0, 1], abs=0.02)


def test_balance_brings_the_median_person_to_the_anchor():
    skin = people() * [0.5, 0.7, 0.4]
    assert lab(np.median(skin * balance(skin), axis=0)) == pytest.approx([62, 11, 16], abs=1e-6)


def test_palette_is_colours():
    for table in (IRIS, HAIR, INNER):
        assert all(0 < value < 1 for colour in table.values() for value in colour)
    drawn = draw(IRIS, np.random.default_rng(0), 300)
    assert drawn.shape == (300, 3) and len(np.unique(drawn, axis=0)) == len(IRIS)
