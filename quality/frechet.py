"""Distances between two sets of image features: Fréchet (FID) and kernel (KID). The formulas are the published ones; the features are whatever network is
named beside the number, ours by default. Only numbers of one network compare; none of ours is an Inception FID.

Axes: N, M images, D features.
"""

from __future__ import annotations

import numpy as np

from ..core.errors import UserError
from ..core.seeds import numpy_rng


def frechet_distance(mean_D: np.ndarray, cov_DD: np.ndarray, other_mean_D: np.ndarray, other_cov_DD: np.ndarray) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017)."""
    shift = float(((np.asarray(mean_D, np.float64) - other_mean_D) ** 2).sum())
    return shift + float(np.trace(cov_DD) + np.trace(other_cov_DD)) - 2.0 * _trace_root(_factor(cov_DD), _factor(other_cov_DD))


def fid(feature_ND: np.ndarray, other_MD: np.ndarray) -> float:
    """Fréchet distance of two sets of features, covariances with ddof 1.

    Stable with fewer images than dimensions: no matrix root is taken. With S = A^T A, Tr (S1 S2)^(1/2) is the sum of the singular values of A1 A2^T, and A is
    the centred data itself (reduced by QR). Small sets are biased upwards: compare equal sizes only.

    Raises:
        UserError: fewer than two images on a side, NaN, or two networks.
    """
    first, second = _checked(feature_ND, other_MD)
    factors = [np.linalg.qr(rows - rows.mean(axis=0), mode="r") / np.sqrt(len(rows) - 1) for rows in (first, second)]
    traces = sum(float((factor**2).sum()) for factor in factors)
    return float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()) + traces - 2.0 * _trace_root(*factors)


def kid(feature_ND: np.ndarray, other_MD: np.ndarray, *, subsets: int = 50, size: int = 500, seed: int = 0) -> tuple[float, float]:
    """Kernel distance: mean and standard deviation over seeded subsets of the unbiased squared MMD with k(x, y) = (x.y / D + 1)^3 (Bińkowski et al. 2018).

    Unbiased at any size; may fall below 0. Subsets have `size` images, or as many as the smaller set holds (then one subset).
    """
    first, second = _checked(feature_ND, other_MD)
    size = min(size, len(first), len(second))
    rng, values = numpy_rng(seed, "kid"), []
    for _ in range(subsets if size < max(len(first), len(second)) else 1):
        rows = [part[rng.choice(len(part), size, replace=False)] for part in (first, second)]
        values.append(_mmd(*rows))
    return float(np.mean(values)), float(np.std(values))


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    own = [(kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in (_cubic(x, x), _cubic(y, y))]
    return float(sum(own) - 2.0 * _cubic(x, y).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _trace_root(first_RD: np.ndarray, second_SD: np.ndarray) -> float:
    return float(np.linalg.svd(first_RD @ second_SD.T, compute_uv=False).sum())


def _factor(cov_DD: np.ndarray) -> np.ndarray:
    value, vector = np.linalg.eigh(np.asarray(cov_DD, np.float64))
    return np.sqrt(np.maximum(value, 0.0))[:, None] * vector.T  # rounding makes the smallest eigenvalues of a singular matrix negative


def _checked(feature_ND: np.ndarray, other_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(feature_ND, np.float64), np.asarray(other_MD, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise UserError(f"features have shapes {first.shape} and {second.shape}; expected at least two rows each, from one network")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("features hold NaN or infinite values; drop those images first")
    return first, second
