"""Do the images of an identity hold together? C_intra and the similarity-to-centre profile (generators.md (c) 3 and 12).

Axes: N images, I identities, D embedding.
"""

from __future__ import annotations

import numpy as np

from .groups import group_means

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def centre_cosines(embed_ND: np.ndarray, centre_ID: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """Cosine of each image to the centre of its identity, float32 (N,). The centre holds the image itself: a lone image has 1."""
    cos_N = np.empty(len(embed_ND), np.float32)
    for begin in range(0, len(embed_ND), 65_536):
        part = slice(begin, begin + 65_536)
        cos_N[part] = np.einsum("nd,nd->n", embed_ND[part], centre_ID[index_N[part]])
    return cos_N


def consistency(cos_N: np.ndarray, index_N: np.ndarray, identities: int, threshold: float) -> np.ndarray:
    """C_intra of each identity, (I,): share of its images with cos(e, centre) >= r; the mean over identities is DCFace's C_intra."""
    return group_means((cos_N >= threshold).astype(np.float64), index_N, identities)


def centre_profile(cos_N: np.ndarray, index_N: np.ndarray, identities: int) -> dict[str, float]:
    """Quantiles of the similarity to the centre over images, and the standard deviation of the identities' means.

    CemiFace's finding on CASIA (its recogniser): groups of mean similarity .85 / .81 / .76 / .70 / .53 train to 89.48 / 91.01 / 91.78 / 91.55 / 82.36,
    that is, images of middling similarity teach most.
    """
    found = {f"q{round(100 * q):02d}": float(value) for q, value in zip(QUANTILES, np.quantile(cos_N, QUANTILES))}
    return {**found, "mean": float(cos_N.mean()), "sd_between_identities": float(np.nanstd(group_means(cos_N, index_N, identities)))}
