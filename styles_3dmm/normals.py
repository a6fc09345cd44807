"""Normals of a mesh's vertices: the mean direction of the triangles around each, large triangles counting more."""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np

from ..core.check import check
from .morphable import MorphableHead


def vertex_normals(vertices_BV3: np.ndarray, triangle_T3: np.ndarray, twin_V: np.ndarray | None = None) -> np.ndarray:
    """Return unit normals that point out of the surface, (B, V, 3) float32; 0 for a vertex without triangles.

    Args:
        vertices_BV3: any frame; of vertices in camera axes come normals in camera axes.
        triangle_T3: corners; (b - a) × (c - a) points out.
        twin_V: int32, for each vertex the one it shares its normal with (`seams`); None = every vertex its own.
    """
    check("vertices_BV3", vertices_BV3, "B V 3")
    check("triangle_T3", triangle_T3, "T 3", lo=0, hi=vertices_BV3.shape[1] - 1)
    twin_V = np.arange(vertices_BV3.shape[1], dtype=np.int32) if twin_V is None else twin_V
    vertices_BV3 = np.ascontiguousarray(vertices_BV3, np.float32)
    normal_BV3 = np.zeros_like(vertices_BV3)
    triangle_T3 = np.ascontiguousarray(triangle_T3, np.int32)
    accumulate(vertices_BV3, triangle_T3, twin_V[triangle_T3], twin_V, normal_BV3)
    return normal_BV3


@lru_cache(maxsize=8)
def seams(head: MorphableHead) -> np.ndarray:
    """Return for each vertex the first one at the same place of the mean head, (V,) int32: vertices are doubled where the texture is cut, the skin is not."""
    _, first, back_V = np.unique(head.mean_V3.round(4), axis=0, return_index=True, return_inverse=True)
    return first[back_V.reshape(-1)].astype(np.int32)


@numba.njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"})
def accumulate(vertices_BV3, triangle_T3, owner_T3, twin_V, normal_BV3):
    """Write the normals into a buffer of zeros; `owner_T3` says which vertex gathers the normal of each corner."""
    for row in range(len(vertices_BV3)):
        point_V3, normal_V3 = vertices_BV3[row], normal_BV3[row]
        for t in range(len(triangle_T3)):
            a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
            ux, uy, uz = point_V3[b, 0] - point_V3[a, 0], point_V3[b, 1] - point_V3[a, 1], point_V3[b, 2] - point_V3[a, 2]
            vx, vy, vz = point_V3[c, 0] - point_V3[a, 0], point_V3[c, 1] - point_V3[a, 1], point_V3[c, 2] - point_V3[a, 2]
            # The length of the product is twice the area: the weight of the triangle.
            nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            for corner in range(3):
                owner = owner_T3[t, corner]
                normal_V3[owner, 0] += nx
                normal_V3[owner, 1] += ny
                normal_V3[owner, 2] += nz
        for v in range(len(normal_V3)):
            nx, ny, nz = normal_V3[v, 0], normal_V3[v, 1], normal_V3[v, 2]
            square = nx * nx + ny * ny + nz * nz
            unit = np.float32(1) / np.sqrt(square) if square > 0 else np.float32(0)
            normal_V3[v, 0], normal_V3[v, 1], normal_V3[v, 2] = nx * unit, ny * unit, nz * unit
        for v in range(len(normal_V3)):
            owner = twin_V[v]
            if owner != v:
                normal_V3[v, 0], normal_V3[v, 1], normal_V3[v, 2] = normal_V3[owner, 0], normal_V3[owner, 1], normal_V3[owner, 2]
