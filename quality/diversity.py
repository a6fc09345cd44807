"""How varied are the images? Dispersion, Vendi score, improved precision and recall, D_intra (generators.md (c) 4, 8, 11).

Axes: N, M images, I identities, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from .groups import group_sums


def identity_dispersion(feature_ND: np.ndarray, index_N: np.ndarray, identities: int) -> np.ndarray:
    """tr Cov of the features of each identity (ddof 0), (I,); NaN where there is one image. On embeddings: the spread of the identity, on features of
    a perceptual network: the spread of style. tr Cov = mean |x|^2 - |mean x|^2, in float64.
    """
    count_I = np.bincount(index_N, minlength=identities)
    square_I = np.bincount(index_N, np.einsum("nd,nd->n", feature_ND, feature_ND, dtype=np.float64), minlength=identities)
    mean_ID = group_sums(feature_ND, index_N, identities) / np.maximum(count_I, 1)[:, None]
    trace_I = square_I / np.maximum(count_I, 1) - (mean_ID**2).sum(axis=1)
    return np.where(count_I > 1, np.maximum(trace_I, 0.0), np.nan)


def vendi_score(centre_ID: np.ndarray) -> float:
    """Effective number of identities: exp(-sum lambda ln lambda), lambda eigenvalues of K / n, K_ij = cos of centres (Friedman and Dieng 2023).

    1 = all alike, n = all orthogonal. The non-zero eigenvalues of the n x n matrix are those of the D x D one, so n has no bound.
    """
    rows = np.asarray(centre_ID, np.float64)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    value = np.linalg.eigvalsh(gram / len(rows))
    value = value[value > 1e-12]
    return float(np.exp(-(value * np.log(value)).sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifoldFigures:
    """Two sets of features compared by k-nearest-neighbour balls.

    Attributes:
        precision, recall: improved precision and recall (Kynkäänniemi et al. 2019): share of generated inside a real ball, of real inside a generated ball.
        density, coverage: Naeem et al. 2020: mean number of real balls around a generated image over k; share of real images with a generated one in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_figures(real_ND: np.ndarray, made_MD: np.ndarray, *, k: int = 3) -> ManifoldFigures:
    """Compare generated features (M, D) with real ones (N, D); memory N x M and the two squares in float64, so take some thousands.

    Raises:
        UserError: fewer than k + 1 images on a side.
    """
    if min(len(real_ND), len(made_MD)) <= k:
        raise UserError(f"{len(real_ND)} real and {len(made_MD)} generated images; k = {k} nearest neighbours need at least {k + 1} of each")
    distance_NM = _distances(real_ND, made_MD)
    real_N, made_M = ball_radii(real_ND, k), ball_radii(made_MD, k)
    inside_NM = distance_NM <= real_N[:, None]
    return ManifoldFigures(
        precision=float(inside_NM.any(axis=0).mean()), recall=float((distance_NM <= made_M).any(axis=1).mean()),
        density=float(inside_NM.sum() / (k * len(made_MD))), coverage=float((distance_NM.min(axis=1) <= real_N).mean()),
    )  # fmt: skip


def improved_recall(real_ND: np.ndarray, made_MD: np.ndarray, *, k: int = 3) -> float:
    """Share of real images within a generated image's distance to its k-th neighbour among the generated; NaN with k or fewer generated images."""
    if len(made_MD) <= k or not len(real_ND):
        return float("nan")
    return float((_distances(real_ND, made_MD) <= ball_radii(made_MD, k)).any(axis=1).mean())


def class_recall(real_ND: np.ndarray, real_N: Sequence, made_MD: np.ndarray, made_M: Sequence, *, k: int = 3) -> np.ndarray:
    """D_intra of DCFace for each label both sets hold, in label order: improved recall within the class. The mean is D_intra.

    The protocol generates as many images of each held-out REAL identity as there are real ones; on sets of other people it says nothing.
    k is not published; 3 is our choice.
    """
    real_N, made_M = np.asarray(real_N), np.asarray(made_M)
    labels = np.intersect1d(real_N, made_M)
    return np.array([improved_recall(real_ND[real_N == label], made_MD[made_M == label], k=k) for label in labels])


def ball_radii(row_ND: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th nearest other row, (N,)."""
    distance_NN = _distances(row_ND, row_ND)
    np.fill_diagonal(distance_NN, np.inf)
    return np.partition(distance_NN, k - 1, axis=1)[:, k - 1]


def _distances(left_ND: np.ndarray, right_MD: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist  # differences first: the expanded square loses close pairs to rounding

    return cdist(np.asarray(left_ND, np.float64), np.asarray(right_MD, np.float64))
