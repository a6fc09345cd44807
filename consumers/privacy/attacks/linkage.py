"""Attack A7: link two templates of one person across databases, with and without their keys; the scores from which D_sys is computed.

Axes: P pairs, G groups, C numbers of a group.
"""

from __future__ import annotations

import numpy as np

from ..slerpface import Rows


def stored_linkage(first: Rows, second: Rows) -> np.ndarray:
    """Keys unknown: weighted cosine of what both templates still hold, (P,)."""
    both_PGC = first.kept_BGC & second.kept_BGC
    return _cosines(np.where(both_PGC, first.template_BGC, 0.0), np.where(both_PGC, second.template_BGC, 0.0))


def weight_linkage(first: Rows, second: Rows) -> np.ndarray:
    """Keys unknown: cosine of the groups' lengths, which no key changes, (P,); 1 for everybody where the weights are even."""
    return _cosines(*(np.linalg.norm(rows.template_BGC, axis=2) for rows in (first, second)))


def leaked_linkage(first: Rows, second: Rows) -> np.ndarray:
    """Keys known: what stands upright on the keys, where both templates hold it, (P,). A database with the keys beside the templates leaks this."""
    both_PGC = first.kept_BGC & second.kept_BGC
    return _cosines(*(np.where(both_PGC, upright_part(rows), 0.0) for rows in (first, second)))


def upright_part(rows: Rows) -> np.ndarray:
    """Return what of each template stands upright on its own key, on the kept places, (P, G, C): the feature's direction, seen through the drops."""
    key_PGC = np.where(rows.kept_BGC, rows.key_BGC, 0.0)
    key_PGC = key_PGC / np.maximum(np.linalg.norm(key_PGC, axis=2, keepdims=True), 1e-12)
    return rows.template_BGC - np.einsum("pgc,pgc->pg", rows.template_BGC, key_PGC)[..., None] * key_PGC


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = (x.reshape(len(x), -1).astype(np.float64) for x in (first, second))
    return np.einsum("ps,ps->p", first, second) / np.maximum(np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1), 1e-12)
