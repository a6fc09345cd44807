"""An eyeball as rings about its axis, so that pupil, iris and sclera have round edges; it follows whatever moves the base mesh's coarse eyeball.

Figures for an adult: visible iris 11.7 mm across (Rüfer et al. 2005, Cornea 24:259), pupil 4 mm, cornea with a radius of curvature of 7.8 mm standing
before the ball. The ball is as large as the base mesh's, to which the lids fit: larger than a real one's 12 mm. Axes: V vertices of one eyeball, N of
the base mesh's, T triangles.
"""

from __future__ import annotations

import numpy as np

from .morphable import PARTS

PUPIL_MM, IRIS_MM, _CORNEA_MM = 2.0, 5.85, 7.8
_ON_CORNEA_MM = (1.0, PUPIL_MM, 3.0, 4.0, 5.0, IRIS_MM)
_BEYOND_DEG = (27.0, 32.0, 38.0, 45.0, 53.0, 62.0, 74.0, 90.0)
"""Angles of the sclera's rings from the axis; the back of the ball is open: nothing looks there."""
_COLUMNS = 24


def eyeball(ball_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an eyeball of a radius (mm, over 13) about 0 that looks along +z: vertices (V, 3), triangles (T, 3) with (b - a) × (c - a) outwards, parts (T,)."""
    # Where the cornea's sphere meets the ball's, at the edge of the iris.
    seat_mm = np.sqrt(ball_mm**2 - IRIS_MM**2) - np.sqrt(_CORNEA_MM**2 - IRIS_MM**2)
    ring = [(r, seat_mm + np.sqrt(_CORNEA_MM**2 - r**2)) for r in _ON_CORNEA_MM]
    ring += [(ball_mm * np.sin(a), ball_mm * np.cos(a)) for a in np.radians(_BEYOND_DEG)]
    around = np.arange(_COLUMNS) * 2 * np.pi / _COLUMNS
    rings = [np.stack([r * np.cos(around), r * np.sin(around), np.full(_COLUMNS, z)], -1) for r, z in ring]
    vertex_V3 = np.concatenate([[[0.0, 0.0, seat_mm + _CORNEA_MM]], *rings])
    grid = 1 + np.arange(len(ring) * _COLUMNS).reshape(len(ring), _COLUMNS)
    turned = np.roll(grid, -1, axis=1)
    fan = np.stack([np.zeros(_COLUMNS, int), grid[0], turned[0]], -1)
    quads = np.stack([grid[:-1], grid[1:], turned[1:], turned[:-1]], -1).reshape(-1, 4)
    triangle_T3 = np.concatenate([fan, quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    edge = np.linalg.norm(vertex_V3[triangle_T3][:, :, :2], axis=2).max(1)
    front = vertex_V3[triangle_T3][:, :, 2].min(1) > 0.8 * ball_mm
    part_T = np.full(len(triangle_T3), PARTS.index("sclera"), np.uint8)
    part_T[front & (edge < IRIS_MM + 0.01)] = PARTS.index("iris")
    part_T[front & (edge < PUPIL_MM + 0.01)] = PARTS.index("pupil")
    return vertex_V3, triangle_T3, part_T


def seat(point_N3: np.ndarray) -> tuple[np.ndarray, float]:
    """Return (centre (3,), radius) of a whole eyeball with a cornea that looks along +z: from its width and height, and its back."""
    low, high = point_N3.min(0), point_N3.max(0)
    radius = float((high - low)[:2].mean() / 2)
    return np.array([*(low + high)[:2] / 2, low[2] + radius]), radius


def follow(new_V3: np.ndarray, base_N3: np.ndarray) -> np.ndarray:
    """Return the (V, N) matrix by which new vertices follow base ones: the affine motion nearest to what the base ones do."""
    centre = base_N3.mean(0)
    base, new = (np.concatenate([points - centre, np.ones((len(points), 1))], 1) for points in (base_N3, new_V3))
    return new @ np.linalg.pinv(base)
