"""Styles drawn from a prior and rendered: whose they are, how they are framed, what the record keeps."""

from dataclasses import replace

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.template import TEMPLATE_PX, five_points
from facefoundry.generators.prior_styles import HeadMaps, PriorStyles
from facefoundry.generators.style_encoder import ALBEDO, NORMAL, SHADED, StyleEncoderConfig
from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.light import ambient, directional
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.style import StyleLayout
from facefoundry.styles_3dmm.style_prior import fit_style_prior



def headed():
    """The tiny head with its landmarks where eyes, nose and mouth corners of the template would be."""
    head = tiny()
    wanted = (TEMPLATE_PX - TEMPLATE_PX[:2].mean(0)) * 1.9  # mm
    front = np.flatnonzero(head.mean_V3[:, 2] > -60)
    nearest = [front[np.argmin(np.square(head.mean_V3[front][:, :2] - point).sum(1))] for point in wanted]
    place = np.full(68, nearest[2], np.int32)
    for first, last, vertex in zip((36, 42, 30, 48, 54), (42, 48, 31, 49, 55), nearest):
        place[first:last] = vertex
    return replace(head, landmark_68=place)


HEAD = headed()
LAYOUT = StyleLayout.of(HEAD)


def codes(count: int, rng: np.random.Generator, people: int = 1) -> np.ndarray:
    """Codes of heads under lamps; each of `people` has a favourite yaw."""
    who = np.arange(count) % people
    pose = rng.normal(scale=5, size=(count, 3)) + np.array([30.0, 0, 0]) * (who[:, None] / max(1, people - 1) - 0.5)
    light = np.stack([ambient(0.6) + directional(rng.normal(size=3) + (0, 0, 2), 0.3) for _ in range(count)])
    camera = np.tile([0.5, 55.0, 52.0], (count, 1)) + rng.normal(scale=(0.02, 2, 2), size=(count, 3))
    shape, expr = rng.normal(size=(count, len(HEAD.identity_KV3))), rng.normal(size=(count, len(HEAD.expression_EV3)))
    return LAYOUT.pack(shape=shape, expr=expr, pose=pose, cam=camera, tex=rng.uniform(0.3, 0.8, (count, 3)), light=light)


def source(mean_person: bool = False, **switches) -> PriorStyles:
    prior = fit_style_prior(codes(400, np.random.default_rng(0), people=20), np.arange(400) % 20, LAYOUT)
    return PriorStyles(prior, HeadMaps(HEAD, LAYOUT, StyleEncoderConfig(size_px=32, widths=(8,), mean_person=mean_person)), **switches)


def anchors(count: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_maps_are_unit_normals_albedo_and_their_light():
    maps = source().render(codes(3, np.random.default_rng(2)))
    assert maps.shape == (3, 9, 32, 32) and maps.dtype == np.float32 and np.abs(maps).max() <= 1
    inside = np.abs(maps[:, NORMAL]).sum(1) > 0
    assert 0.2 < inside.mean() < 1.0 and not maps.transpose(0, 2, 3, 1)[~inside].any()
    length = np.linalg.norm(maps[:, NORMAL], axis=1)[inside]
    assert np.allclose(length, 1, atol=1e-3)
    albedo, shaded = ((maps[:, part] + 1) / 2 for part in (ALBEDO, SHADED))
    assert (albedo.transpose(0, 2, 3, 1)[inside] > 0).all() and not np.allclose(albedo, shaded, atol=0.05)


def test_the_mean_person_shows_neither_shape_nor_skin():
    rng = np.random.default_rng(3)
    first = codes(1, rng)
    other = first.copy()
    for block in ("shape", "tex", "cam"):  # a camera fitted to a shape tells of it
        other[:, LAYOUT.slices[block]] = rng.uniform(0.2, 0.9, other[:, LAYOUT.slices[block]].shape)
    anybody, own = source(mean_person=True), source()
    assert np.array_equal(anybody.render(first), anybody.render(other)) and not np.allclose(own.render(first), own.render(other), atol=0.05)
    assert anybody.of_codes(first).styles[0].shape is None and len(own.of_codes(first).styles[0].shape) == len(HEAD.identity_KV3)
    assert anybody.maps.fingerprint != own.maps.fingerprint


def test_draws_belong_to_anchor_and_seed_and_people_have_habits():
    styles, people = source(), anchors(12)
    drawn = styles.draw(people[[0, 0, 1]], [5, 6, 5])
    alone = styles.draw(people[1:2], [5])
    assert np.array_equal(drawn.code_BP[2], alone.code_BP[0]) and drawn.styles[2] == alone.styles[0]
    assert not np.allclose(drawn.code_BP[0], drawn.code_BP[1]) and not np.allclose(drawn.code_BP[0], drawn.code_BP[2])
    yaw = lambda s: np.array([s.draw(people[[k] * 20], range(100 * k, 100 * k + 20)).code_BP[:, LAYOUT.column("yaw_deg")] for k in range(12)])
    share = lambda y: y.mean(1).var(ddof=1) / y.var()  # of the variance that lies between people
    assert share(yaw(styles)) > 0.4 and share(yaw(source(subject_agnostic=True))) < 0.25


def test_drawn_heads_are_framed_as_aligned_faces_are():
    drawn = source(fixed={"yaw_deg": 25.0, "roll_deg": 0.0}).draw(anchors(6), range(6))
    block = LAYOUT.unpack(drawn.code_BP)
    assert np.allclose(block["pose"][:, 0], 25) and all(style.pose_deg[0] == 25 for style in drawn.styles)
    landmarks = HEAD.landmarks(HEAD.vertices(block["shape"], block["expr"]))
    seen = five_points(project(Camera.weak(block["cam"][:, 0], block["cam"][:, 1:]), landmarks, block["pose"])[:, :, :2])
    assert np.allclose(seen.mean(1), TEMPLATE_PX.mean(0), atol=0.01)
    moved = np.abs(seen - TEMPLATE_PX).mean()
    shifted = np.abs(seen * 1.1 - TEMPLATE_PX).mean(), np.abs(seen + 3 - TEMPLATE_PX).mean()
    assert moved < min(shifted)


def test_an_unknown_column_is_named():
    with pytest.raises(UserError, match="no column 'yaw'; .*yaw_deg"):
        source(fixed={"yaw": 3.0})
