"""The z-buffer against two references: its own source as plain Python, and a test of every pixel against every triangle in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from facefoundry.styles_3dmm.camera import Camera, project
from facefoundry.styles_3dmm.morphable import tiny
from facefoundry.styles_3dmm.raster import fill, rasterise


def brute(point_V3, triangle_T3, size, distance=None):
    """Every pixel against every triangle, in exact arithmetic on the 1/1024 grid; returns {(y, x): (t, weights, depth)}."""
    grid = [[Fraction(round(float(value) * 1024), 1024) for value in row[:2]] for row in point_V3]
    best = {}
    for y in range(size[0]):
        for x in range(size[1]):
            for t, corner in enumerate(triangle_T3):
                (ax, ay), (bx, by), (cx, cy) = (grid[v] for v in corner)
                area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
                if area <= 0:
                    continue
                edges = ((bx, by, cx, cy), (cx, cy, ax, ay), (ax, ay, bx, by))
                value = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x1, y1, x2, y2 in edges]
                top_left = [y2 < y1 or (y2 == y1 and x2 > x1) for x1, y1, x2, y2 in edges]
                if not all(v > 0 or (v == 0 and own) for v, own in zip(value, top_left)):
                    continue
                weight = np.array([float(v / area) for v in value])
                z = np.array([float(point_V3[v][2]) for v in corner])
                if distance:
                    weight = weight / (distance - z) / (weight / (distance - z)).sum()
                depth = float(weight @ z)
                if (y, x) not in best or depth > best[y, x][2] + 1e-4:
                    best[y, x] = (t, weight, depth)
    return best


def scene(seed: int, quads: int = 6, on_grid: bool = False):
    rng = np.random.default_rng(seed)
    point = rng.uniform(-3, 15, (3 * quads, 3))
    if on_grid:  # corners and many edges exactly on pixel centres
        point[:, :2] = point[:, :2].round()
    return point.astype(np.float32), rng.permutation(3 * quads).reshape(-1, 3).astype(np.int32)


@pytest.mark.parametrize("distance", [None, 40.0])
@pytest.mark.parametrize("on_grid", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_every_pixel_against_every_triangle(seed, on_grid, distance):
    point, triangle = scene(seed, on_grid=on_grid)
    found = rasterise(point[None], triangle, (12, 13), distance_B=None if distance is None else np.array([distance]))
    wanted = brute(point, triangle, (12, 13), distance)
    assert {tuple(yx) for yx in np.argwhere(found.triangle_BHW[0] >= 0)} == set(wanted)
    for (y, x), (t, weight, depth) in wanted.items():
        assert found.triangle_BHW[0, y, x] == t
        assert np.allclose(found.weight_BHW3[0, y, x], weight, atol=2e-3 if distance else 1e-5)
        assert found.depth_BHW[0, y, x] == pytest.approx(depth, abs=1e-2 if distance else 1e-4)
    empty = found.triangle_BHW[0] < 0
    assert (found.depth_BHW[0][empty] == -np.inf).all() and not found.weight_BHW3[0][empty].any()


@pytest.mark.parametrize("distance", [0.0, 500.0])
def test_agrees_with_the_same_source_as_plain_python(distance):
    head = tiny()
    camera = Camera.weak([0.16], [[18.0, 15.0]]) if not distance else Camera.perspective([80.0], [distance], [[18.0, 15.0]])
    point = project(camera, head.mean_V3[None], np.array([[25.0, -10.0, 5.0]]))
    fast = rasterise(point, head.triangle_T3, (36, 36), distance_B=camera.distance_mm)
    slow = np.full((36, 36), -1, np.int32), np.zeros((36, 36, 3), np.float32), np.full((36, 36), -np.inf, np.float32)
    with np.errstate(divide="ignore"):
        fill.py_func(point[0], head.triangle_T3, distance, *slow)
    assert np.array_equal(fast.triangle_BHW[0], slow[0]) and (slow[0] >= 0).mean() > 0.3
    assert np.allclose(fast.weight_BHW3[0], slow[1], atol=1e-5) and np.allclose(fast.depth_BHW[0], slow[2], atol=1e-3)


def test_a_closed_fan_covers_every_pixel_once():
    """Triangles around a point, edges through pixel centres at all angles: each centre of the square in exactly one of them."""
    rim = [(x, 0) for x in range(0, 20, 2)] + [(20, y) for y in range(0, 20, 2)] + [(x, 20) for x in range(20, 0, -2)] + [(0, y) for y in range(20, 0, -2)]
    point = np.array([(10, 10, 0.0), *((x, y, 0.0) for x, y in rim)], np.float32)
    count = np.zeros((24, 24), int)
    for k in range(len(rim)):
        alone = rasterise(point[None], np.array([[0, 1 + k, 1 + (k + 1) % len(rim)]]), (24, 24))
        count += alone.triangle_BHW[0] >= 0
    wanted = np.zeros((24, 24), int)
    wanted[:20, :20] = 1  # top and left rim belong to the square, bottom and right do not
    assert np.array_equal(count, wanted)


def test_weights_give_back_linear_functions_of_space():
    """Perspective: what is linear on the surface is read off right, at the pixel's own ray."""
    vertex = np.array([[(-40.0, -30.0, -60.0), (50.0, -20.0, 80.0), (5.0, 60.0, 10.0)]])
    camera = Camera.perspective([30.0], [200.0], [[16.0, 16.0]])
    found = rasterise(project(camera, vertex, np.zeros((1, 3))), np.array([[0, 1, 2]]), (32, 32), distance_B=camera.distance_mm)
    y, x = np.nonzero(found.triangle_BHW[0] == 0)
    space = found.weight_BHW3[0, y, x] @ vertex[0]
    assert len(y) > 20
    assert np.allclose(space[:, 2], found.depth_BHW[0, y, x], atol=1e-2)
    assert np.allclose(16 + 30 * space[:, 0] / (200 - space[:, 2]), x, atol=2e-3) and np.allclose(16 + 30 * space[:, 1] / (200 - space[:, 2]), y, atol=2e-3)


def test_nearest_wins_and_backs_are_left_out():
    square = np.array([(0, 0, 0), (9, 0, 0), (9, 9, 0), (0, 9, 0)], np.float32)
    point = np.concatenate([square, square + (0, 0, 5), square + (0, 0, 9)]).astype(np.float32)
    front = np.array([(0, 1, 2), (0, 2, 3)])
    triangle = np.concatenate([front, front + 4, (front + 8)[:, ::-1]])  # the nearest square faces away
    found = rasterise(point[None], triangle, (12, 12))
    assert set(found.triangle_BHW[0, :9, :9].ravel()) == {2, 3} and np.allclose(found.depth_BHW[0, :9, :9], 5)


def test_bad_input_is_refused():
    point, triangle = scene(0)
    with pytest.raises(ValueError, match="not finite"):
        rasterise(point[None] * np.nan, triangle, (4, 4))
    with pytest.raises(ValueError, match="2\\^20"):
        rasterise(point[None] * 1e6, triangle, (4, 4))
    with pytest.raises(ValueError, match="triangle_T3"):
        rasterise(point[None], triangle + 5, (4, 4))
    assert rasterise(point[None][:0], triangle, (4, 4)).triangle_BHW.shape == (0, 4, 4)
