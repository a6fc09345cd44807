"""Style maps: nine planes in their order and range, nothing outside the head, and nobody in them when the mean person is asked for."""

import numpy as np
import pytest

from facefoundry.styles_3dmm.appearance import SKIN_MEAN_RGB
from facefoundry.styles_3dmm.camera import Camera
from facefoundry.styles_3dmm.light import ambient, directional, shade
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.render import render
from facefoundry.styles_3dmm.style import StyleLayout, deca_layout
from facefoundry.styles_3dmm.style_maps import part_albedo, render_style

HEAD = tiny()
LAYOUT = StyleLayout.of(HEAD)


def codes(count: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    light = np.stack([ambient(0.5) + directional([1.0, 0.0, 1.0], 0.4)] * count)
    camera = np.tile([0.42, 56.0, 50.0], (count, 1))
    return LAYOUT.pack(shape=rng.normal(size=(count, 8)), expr=0.3 * rng.normal(size=(count, 4)), pose=rng.uniform(-20, 20, (count, 3)), cam=camera, tex=rng.uniform(0.3, 0.9, (count, 3)), light=light)


def test_planes_and_their_order():
    code = codes()
    maps = render_style(HEAD, code, LAYOUT)
    assert maps.shape == (4, 9, 112, 112) and maps.dtype == np.float32
    assert maps.min() >= -1 and maps.max() <= 1
    inside = (maps != 0).any(1)
    assert 0.2 < inside.mean() < 0.9 and (maps.transpose(0, 2, 3, 1)[~inside] == 0).all()
    normal = maps[:, :3].transpose(0, 2, 3, 1)[inside]
    assert np.linalg.norm(normal, axis=1) == pytest.approx(1.0, abs=1e-3) and normal[:, 2].mean() > 0.4
    albedo, colour = ((maps[:, 3 * k : 3 * k + 3].transpose(0, 2, 3, 1)[0] + 1) / 2 for k in (1, 2))
    light = LAYOUT.take(code, "light").reshape(-1, 9, 3)
    lit = albedo * shade(maps[:1, :3].transpose(0, 2, 3, 1).reshape(1, -1, 3), light[:1]).reshape(112, 112, 3)
    assert colour[inside[0]] == pytest.approx(np.minimum(lit, 1.0)[inside[0]], abs=2e-3)
    assert np.median(albedo[inside[0]], axis=0) == pytest.approx(LAYOUT.take(code, "tex")[0], abs=1e-3)


def test_size_keeps_the_framing():
    small, large = render_style(HEAD, codes(), LAYOUT, 56), render_style(HEAD, codes(), LAYOUT, 112)
    shrunk = large.reshape(4, 9, 56, 2, 56, 2).mean((3, 5))
    assert np.abs(shrunk - small).mean() < 0.03


def test_mean_person_is_nobody():
    one, other = codes(2, seed=1), codes(2, seed=2)
    for block in ("expr", "pose", "cam", "light"):
        other[:, LAYOUT.slices[block]] = one[:, LAYOUT.slices[block]]
    maps = [render_style(HEAD, code, LAYOUT, mean_person=True) for code in (one, other)]
    # Framing follows the code's own face, a px or two; the face itself is one and the same.
    assert np.abs(maps[0] - maps[1]).mean() < 0.5 * np.abs(render_style(HEAD, one, LAYOUT) - render_style(HEAD, other, LAYOUT)).mean()
    inside = (maps[0] != 0).any(1) & (maps[1] != 0).any(1)
    albedo = [plane[:, 3:6].transpose(0, 2, 3, 1)[inside] for plane in maps]
    assert np.median(albedo[0], axis=0) == pytest.approx(np.median(albedo[1], axis=0), abs=1e-6)
    turned = one.copy()
    turned[:, LAYOUT.column("yaw_deg")] += 15
    assert np.abs(render_style(HEAD, turned, LAYOUT, mean_person=True) - render_style(HEAD, one, LAYOUT, mean_person=True)).mean() > 0.02


def test_mean_person_stands_where_the_person_stood():
    code = codes()
    code[:, LAYOUT.slices["shape"]] *= 2
    head = render(HEAD, HEAD.vertices(np.zeros((4, 8)), code[:, LAYOUT.slices["expr"]]), Camera.weak(np.full(4, 0.42), np.tile([56.0, 50.0], (4, 1))), LAYOUT.take(code, "pose"), size_px=112)
    plain = codes()
    plain[:, LAYOUT.slices["shape"]] = 0
    assert (render_style(HEAD, plain, LAYOUT, mean_person=True)[:, :3].transpose(0, 2, 3, 1) == pytest.approx(head.normals, abs=1e-3))  # nothing to reframe
    own, mean = ((render_style(HEAD, code, LAYOUT, mean_person=flag) != 0).any(1) for flag in (False, True))
    assert (own & mean).sum() > 0.75 * (own | mean).sum()


def test_own_albedo_is_used():
    white = np.ones((1, len(HEAD.mean_V3), 3), np.float32)
    maps = render_style(HEAD, codes(), LAYOUT, albedo=white)
    inside = (maps != 0).any(1)
    assert maps[:, 3:6].transpose(0, 2, 3, 1)[inside] == pytest.approx(1.0, abs=1e-4)


def test_eyes_do_not_follow_the_skin():
    pale, dark = part_albedo(HEAD, np.array([[0.9, 0.8, 0.7], SKIN_MEAN_RGB * 0.3]))
    changed = np.abs(pale - dark).max(1) > 1e-3
    assert changed.any() and not changed.all()


def test_codes_of_another_head_are_refused():
    with pytest.raises(ValueError, match="code_BP"):
        render_style(HEAD, codes()[:, :-1], LAYOUT)
    with pytest.raises(ValueError, match="shape block"):
        render_style(HEAD, np.zeros((1, 236)), deca_layout())
