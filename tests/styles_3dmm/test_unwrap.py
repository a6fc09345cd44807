"""From picture to texture and back: a head rendered with a texture gives it back where it is seen, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.styles_3dmm.camera import arcface_camera
from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.morphable import PARTS
from facefoundry.styles_3dmm.render import render
from facefoundry.styles_3dmm.unwrap import Texels, fill, unwrap

SIZE = 96


@pytest.fixture(scope="module")
def texels():
    return Texels.of(default_head(), SIZE)


def test_texels_lie_in_their_triangles(texels):
    head = default_head()
    full = texels.triangle_HW >= 0
    assert 0.7 < full.mean() < 1
    uv = texels.carry(head, head.uv_V2)
    column, row = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    assert np.abs(uv * SIZE - 0.5 - np.stack([column, row], -1))[full].max() < 1e-2
    assert texels.weight_HW3[full].sum(1) == pytest.approx(1.0, abs=1e-4)
    assert (texels.part_HW[full] == head.part_T[texels.triangle_HW[full]]).all() and (texels.part_HW[~full] == 255).all()


@pytest.mark.parametrize("yaw", [0.0, 35.0])
def test_a_rendered_texture_comes_back_where_it_is_seen(texels, yaw):
    head = default_head()
    row, column = np.mgrid[:SIZE, :SIZE] / SIZE
    texture = np.stack([column, row, 0.5 + 0.3 * np.sin(9 * row) * np.cos(7 * column)], -1).astype(np.float32)
    pose, vertices = np.array([[yaw, 0.0, 0.0]]), head.mean_V3[None]
    camera = arcface_camera(head, pose, vertices, size_px=300)
    picture = render(head, vertices, camera, pose, albedo=texture[None], size_px=300, layers=("albedo", "normals"))
    colour, normal, seen = unwrap(head, texels, head.mean_V3, camera, pose[0], picture.albedo[0])
    well = (seen > 0.5) & (texels.part_HW == PARTS.index("skin"))
    assert well.sum() > 700
    assert np.abs(colour - texture)[well].mean() < 0.01 and np.quantile(np.abs(colour - texture)[well], 0.98) < 0.06
    assert (normal[..., 2] - seen)[seen > 0] == pytest.approx(0, abs=1e-5)
    left, right = seen[:, : SIZE // 2].mean(), seen[:, SIZE // 2 :].mean()
    assert abs(left - right) < 0.05 * (left + right) if yaw == 0 else left > 1.3 * right or right > 1.3 * left


def test_what_is_hidden_is_not_seen(texels):
    head = default_head()
    camera = arcface_camera(head, np.zeros((1, 3)), head.mean_V3[None], size_px=300)
    place = texels.carry(head, head.mean_V3)
    _, _, seen = unwrap(head, texels, head.mean_V3, camera, np.zeros(3), np.zeros((300, 300, 3)))
    assert (seen[place[..., 2] < -140] == 0).all()  # the back of the head
    assert (seen[texels.part_HW == PARTS.index("mouth")] > 0).mean() < 0.1  # behind closed lips


def test_empty_texels_are_their_nearest():
    known = np.zeros((4, 5), bool)
    known[1, 1] = known[3, 4] = True
    value = np.zeros((4, 5, 1))
    value[1, 1], value[3, 4] = 7, 9
    found = fill(value, known)[..., 0]
    assert found[0, 0] == found[1, 2] == 7 and found[3, 3] == found[2, 4] == 9
