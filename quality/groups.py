"""Sums and means by identity, without a loop over identities. Axes: N images, I identities, D embedding."""

from __future__ import annotations

import numpy as np


def group_sums(row_ND: np.ndarray, index_N: np.ndarray, identities: int) -> np.ndarray:
    """Sum of the rows of each identity, float64 (I, D)."""
    sum_ID = np.zeros((identities, row_ND.shape[1]))
    np.add.at(sum_ID, index_N, row_ND)
    return sum_ID


def group_means(value_N: np.ndarray, index_N: np.ndarray, identities: int) -> np.ndarray:
    """Mean of a number by identity, float64 (I,); NaN values are left out, NaN where none is left."""
    known_N = np.isfinite(value_N)
    count_I = np.bincount(index_N[known_N], minlength=identities)
    sum_I = np.bincount(index_N[known_N], np.asarray(value_N, np.float64)[known_N], minlength=identities)
    return np.where(count_I > 0, sum_I / np.maximum(count_I, 1), np.nan)


def rows_by_identity(identity_N: np.ndarray) -> list[np.ndarray]:
    """Row numbers of each identity, in the order of `np.unique`."""
    order = np.argsort(identity_N, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(identity_N[order])) + 1)
