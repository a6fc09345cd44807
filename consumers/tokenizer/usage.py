"""How a codebook is used: share of rows alive, perplexity, and how evenly (consumers.md §7).

GloTok's uniformity figures are coefficient of variation, normalised entropy and Gini of a density. Its estimator is not public; here of two things, both
stated: the rows' counts, and a kernel density of latents on a plane (as VA-VAE does) whose bandwidth and seed stand with it. Compare within one run only.
Axes: M tokens or latents, K rows, D numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.seeds import numpy_rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Use of a codebook.

    Attributes:
        alive: share of rows that occur.
        perplexity: exp of the entropy of the rows' shares; K = all alike.
        variation: standard deviation of the counts over their mean; 0 = all alike.
        entropy: entropy over ln K, in [0, 1].
        gini: 0 = all alike.
    """

    alive: float
    perplexity: float
    variation: float
    entropy: float
    gini: float


def usage(token_M: np.ndarray, rows: int) -> Usage:
    """Figures of the tokens (any shape) of a book of so many rows.

    Raises:
        ValueError: no tokens, or one outside of the book.
    """
    token_M = np.asarray(token_M).ravel()
    if not token_M.size or token_M.min() < 0 or token_M.max() >= rows:
        raise ValueError(f"{token_M.size} tokens" + (f" from {token_M.min()} to {token_M.max()}" if token_M.size else "") + f"; expected some, from 0 to {rows - 1}")
    count_K = np.bincount(token_M, minlength=rows).astype(np.float64)
    evenness = uniformity(count_K)
    return Usage(alive=float((count_K > 0).mean()), perplexity=float(rows ** evenness["entropy"]), **evenness)


def uniformity(mass_K: np.ndarray) -> dict[str, float]:
    """Return variation, normalised entropy and Gini of non-negative masses, (K,): (1, 2, 3, 4) → .4472, .9232, .25."""
    mass_K = np.sort(np.asarray(mass_K, np.float64))
    count, share_K = len(mass_K), mass_K / mass_K.sum()
    entropy = -(share_K[share_K > 0] * np.log(share_K[share_K > 0])).sum()
    gini = float((2 * np.arange(1, count + 1) - count - 1) @ share_K / count)
    return {"variation": float(mass_K.std() / mass_K.mean()), "entropy": float(entropy / np.log(count)) + 0.0, "gini": gini}


def density_uniformity(latent_MD: np.ndarray, *, sample: int = 2000, seed: int = 0) -> dict[str, float]:
    """Return variation, normalised entropy and Gini of the density at latents, on the plane of their two main axes, and the bandwidth.

    A Gaussian kernel density (Scott's bandwidth) of a seeded sample, evaluated at its own points.
    """
    from scipy.stats import gaussian_kde

    rows = np.sort(numpy_rng(seed, "density").permutation(len(latent_MD))[:sample])
    centred = np.asarray(latent_MD, np.float64)[rows]
    centred = centred - centred.mean(axis=0)
    plane_M2 = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -2:]
    estimate = gaussian_kde(plane_M2.T)
    return {**uniformity(estimate(plane_M2.T)), "bandwidth": float(estimate.factor)}
