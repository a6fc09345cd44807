"""Splitting some triangles of a mesh in halves and quarters, so that the edge of a coloured region is less of a saw; no cracks.

Axes: V vertices, E split edges (new vertices), T triangles.
"""

from __future__ import annotations

import numpy as np


def split(triangle_T3: np.ndarray, chosen_T: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split every edge of the chosen triangles, and what else has such an edge ("red-green" refinement, Bank et al. 1983).

    Returns:
        (pair_E2, triangle_T3, parent_T): new vertex `count + e` is midway between pair_E2[e]; the new triangles, wound as before, and the old triangle
        each is a piece of.
    """
    edge_T32 = np.sort(np.stack([triangle_T3, np.roll(triangle_T3, -1, axis=1)], -1), axis=2)
    key_T3 = edge_T32[..., 0].astype(np.int64) * count + edge_T32[..., 1]
    cut_E = np.unique(key_T3[chosen_T])
    middle = {int(key): count + number for number, key in enumerate(cut_E)}
    pieces, parents = [], []
    for number in np.flatnonzero(np.isin(key_T3, cut_E).any(1)):
        fresh = _pieces(triangle_T3[number], [middle.get(int(key)) for key in key_T3[number]])
        pieces += fresh
        parents += [number] * len(fresh)
    whole_T = ~np.isin(key_T3, cut_E).any(1)
    pair_E2 = np.stack([cut_E // count, cut_E % count], -1)
    triangles = np.concatenate([triangle_T3[whole_T], np.array(pieces, triangle_T3.dtype).reshape(-1, 3)])
    return pair_E2, triangles, np.concatenate([np.flatnonzero(whole_T), np.array(parents, int)])


def _pieces(corner_3: np.ndarray, middle_3: list[int | None]) -> list[tuple[int, int, int]]:
    """Return the pieces of one triangle; middle_3[i] is the new vertex on the edge from corner i to the next, or None."""
    # Turned until the first edge is split and, of two split ones, the second follows it.
    while middle_3[0] is None or (middle_3[1] is None and middle_3[2] is not None):
        corner_3, middle_3 = np.roll(corner_3, -1), middle_3[1:] + middle_3[:1]
    a, b, c = (int(corner) for corner in corner_3)
    ab, bc, ca = middle_3
    if bc is None:
        return [(a, ab, c), (ab, b, c)]
    if ca is None:
        return [(ab, b, bc), (a, ab, bc), (a, bc, c)]
    return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
