"""Perceptual distances within a set, from the feature maps of a stated network (`core.perceptual`, which has the measure). Axes: B images, L layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def perceptual_distances(map_L: Sequence[Tensor]) -> np.ndarray:
    """Distances between all images of a batch, (B, B): mean over layers of the mean over positions of |a/|a| - b/|b||^2 of the channel vectors; 0 to 4.

    Expanded into Gram matrices: B^2 products a layer instead of B^2 difference maps. A position without any activation counts as the zero vector.
    """
    total = 0.0
    for features_BCHW in map_L:
        unit_BCP = torch.nn.functional.normalize(features_BCHW.double().flatten(2), dim=1)
        flat_BX = unit_BCP.flatten(1)
        gram_BB = flat_BX @ flat_BX.T / unit_BCP.shape[2]
        own_B = gram_BB.diagonal()
        total = total + (own_B[:, None] + own_B[None, :] - 2.0 * gram_BB).clamp_min(0.0)
    return (total / len(map_L)).cpu().numpy()  # type: ignore[union-attr]


def mean_pair_distance(map_L: Sequence[Tensor]) -> float:
    """Mean over the pairs of a batch, 2 / (K (K - 1)) sum_{i<j} d(x_i, x_j): one identity's term of the intra-class distance; NaN for one image."""
    distance_BB = perceptual_distances(map_L)
    pairs = np.triu_indices(len(distance_BB), 1)
    return float(distance_BB[pairs].mean()) if pairs[0].size else float("nan")


def pooled(map_L: Sequence[Tensor]) -> np.ndarray:
    """Features for FID, KID and recall: the last map's mean over positions, float32 (B, C)."""
    return map_L[-1].float().mean(dim=(2, 3)).cpu().numpy()
