"""Attributes by the fit of the head: known ones of rendered heads come back, faces without a fit are NaN."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.jobs.head_attributes import HeadPredictor
from facefoundry.quality.coverage import FITTED_RANGES
from facefoundry.styles_3dmm.codes import StyleCodes
from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.light import LAMBERT_9
from facefoundry.styles_3dmm.style import StyleLayout


def codes(**known):
    """One code of a head at rest in even light, with some columns set."""
    layout = StyleLayout.of(default_head())
    code_P = np.zeros(len(layout), np.float32)
    for channel in "rgb":
        code_P[layout.column(f"light_0_{channel}")] = 1.0 / LAMBERT_9[0]
    for name, value in known.items():
        code_P[layout.column(name)] = value
    return StyleCodes(layout=layout, code_NP=code_P[None], identity_N=np.zeros(1, int), residual_N=np.zeros(1))


@pytest.fixture
def predict(monkeypatch):
    def measured(found):
        monkeypatch.setattr("facefoundry.jobs.head_attributes.aligned_landmarks", lambda image: np.zeros((68, 2)))
        monkeypatch.setattr("facefoundry.jobs.head_attributes.fit_codes", lambda head, image, landmark: found)
        return dict(zip(HeadPredictor.names, HeadPredictor()(np.zeros((1, 112, 112, 3), np.uint8))[0].tolist()))

    return measured


def test_columns_stand_where_they_belong(predict):
    found = predict(codes(yaw_deg=20, pitch_deg=-5, roll_deg=3, expr_jawOpen=0.5, expr_mouthSmileLeft=0.2, expr_mouthSmileRight=0.6, expr_browInnerUp=0.3))
    assert found == pytest.approx({"yaw_deg": 20, "pitch_deg": -5, "roll_deg": 3, "jaw_open": 0.5, "smile": 0.4, "brow_raise": 0.3, "light_right": 0, "light_above": 0}, abs=1e-6)
    assert tuple(found) == tuple(FITTED_RANGES)


def test_light_is_first_over_zeroth_order_shading(predict):
    """Skin that faces right is shaded 1 + 0.4, skin that faces down 1 - 0.3: a lamp from the upper right."""
    light = {f"light_{order}_{channel}": value / LAMBERT_9[order] for order, value in ((1, 0.4), (2, -0.3)) for channel in "rgb"}
    found = predict(codes(**light))
    assert (found["light_right"], found["light_above"]) == pytest.approx((0.4, 0.3), abs=1e-6)


def test_no_fit_is_nan(predict):
    assert all(np.isnan(value) for value in predict(codes(**{name: np.nan for name in StyleLayout.of(default_head()).names})).values())


def test_nothing_in_nothing_out():
    assert HeadPredictor()(np.empty((0, 112, 112, 3), np.uint8)).shape == (0, 8)
