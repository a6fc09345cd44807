"""A texture chart of the head without a seam: the direction from inside the head, as a disc about the nose, drawn out to a square.

Axes: V vertices, T triangles.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

_SEAT_MM = (0.0, 35.0, -70.0)
"""Where the head is looked at from: between the ears, at the height of the nose, so that the face takes most of the disc."""

_FRONT, _CHIN_MM = 0.85, 90.0
_ROUNDS = 6
"""Folds that are drawn out pull at their neighbours; more rounds than these mend no more."""


def chart(vertex_V3: np.ndarray, triangle_T3: np.ndarray, inside_T: np.ndarray) -> np.ndarray:
    """Return texture coordinates, (V, 2) in [0, 1], of a head's skin with its cavities; (0.5, 0.5) is before the nose, the back of the head is the rim.

    `inside_T` are the triangles of the mouth's inside. What lies over itself as seen from inside (ears, nostrils, eye sockets, that) is drawn out of the folds by harmonic interpolation from around it.
    """
    square_V2 = _square(_disc(vertex_V3))
    # Behind, round the rim, and under the chin, where one looks along the skin, nothing is mended: it is hair, or in the shade.
    before_T = (np.linalg.norm(_disc(vertex_V3), axis=1) < _FRONT)[triangle_T3].all(1) & (vertex_V3[triangle_T3][:, :, 1].max(1) < _CHIN_MM) | inside_T
    for _ in range(_ROUNDS):
        folded_T = (_area(square_V2, triangle_T3) <= 1e-9) & before_T | inside_T
        square_V2 = _harmonic(square_V2, triangle_T3, _grown(triangle_T3, folded_T, len(vertex_V3)))
    return (0.5 + 0.5 * square_V2).clip(0.0, 1.0)


def plain_chart(vertex_V3: np.ndarray) -> np.ndarray:
    """Return the same directions as texture coordinates, (V, 2), of any mesh, nothing mended: what lies over itself shares its texels."""
    return (0.5 + 0.5 * _square(_disc(vertex_V3))).clip(0.0, 1.0)


def _disc(vertex_V3: np.ndarray) -> np.ndarray:
    """Lambert's azimuthal equal-area projection of the directions, in the unit disc."""
    way_V3 = vertex_V3 - np.asarray(_SEAT_MM)
    way_V3 = way_V3 / np.linalg.norm(way_V3, axis=1, keepdims=True)
    radius_V = np.sqrt((1.0 - way_V3[:, 2]).clip(0.0) / 2.0)
    flat_V = np.linalg.norm(way_V3[:, :2], axis=1).clip(1e-9)
    return way_V3[:, :2] * (radius_V / flat_V)[:, None]


def _square(disc_V2: np.ndarray) -> np.ndarray:
    """The elliptical grid map of the unit disc onto [-1, 1]² (Fong 2015, arXiv:1509.06344, eq. for disc to square)."""
    u, v = disc_V2.T
    twist = u**2 - v**2
    root = 2.0 * np.sqrt(2.0)
    x = 0.5 * (np.sqrt((2 + twist + root * u).clip(0)) - np.sqrt((2 + twist - root * u).clip(0)))
    y = 0.5 * (np.sqrt((2 - twist + root * v).clip(0)) - np.sqrt((2 - twist - root * v).clip(0)))
    return np.stack([x, y], -1).clip(-1.0, 1.0)


def _area(uv_V2: np.ndarray, triangle_T3: np.ndarray) -> np.ndarray:
    """Twice the signed area of each triangle; positive where it faces as the head's outside does."""
    a, b, c = (uv_V2[triangle_T3[:, i]] for i in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]


def _grown(triangle_T3: np.ndarray, chosen_T: np.ndarray, count: int) -> np.ndarray:
    """Return which vertices are of the chosen triangles or of their neighbours, (V,) bool."""
    inside_V = np.zeros(count, bool)
    inside_V[triangle_T3[chosen_T]] = True
    inside_V[triangle_T3[inside_V[triangle_T3].any(1)]] = True
    return inside_V


def _harmonic(uv_V2: np.ndarray, triangle_T3: np.ndarray, loose_V: np.ndarray) -> np.ndarray:
    """Return coordinates in which every loose vertex is the mean of its neighbours (Tutte 1963); the others stay."""
    count = len(uv_V2)
    ends = np.concatenate([triangle_T3[:, [0, 1]], triangle_T3[:, [1, 2]], triangle_T3[:, [2, 0]]])
    link = sparse.coo_matrix((np.ones(len(ends)), ends.T), shape=(count, count)).tocsr()
    link = ((link + link.T) > 0).astype(float)
    laplace = sparse.diags(np.asarray(link.sum(1)).ravel()) - link
    loose, fixed = np.flatnonzero(loose_V), np.flatnonzero(~loose_V)
    moved_V2 = uv_V2.copy()
    moved_V2[loose] = spsolve(laplace[loose][:, loose].tocsc(), -laplace[loose][:, fixed] @ uv_V2[fixed])
    return moved_V2
