"""Cone perturbation: every image of a person gets its own identity context, within a given cosine of the anchor (IDperturb, generators.md §1.5).

Axes: B images, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.check import check, check_unit_rows
from ..core.seeds import numpy_rng


def perturb_cone(anchor_BD: np.ndarray, seeds: Sequence[int], lower: float) -> np.ndarray:
    """Turn each anchor by a random angle in a random direction: s w + √(1 - s²) u with s ~ U[lower, 1], u a random unit vector across w.

    Args:
        anchor_BD: unit rows w, (B, D), D ≥ 2.
        seeds: image seeds; row i depends on anchor i and seeds[i] alone.
        lower: smallest cosine to the anchor, in [0, 1]; 1 returns the anchors as they are. IDperturb's best is 0.6.

    Returns:
        Unit rows, float32, (B, D).

    Raises:
        ValueError: shapes differ, `lower` outside [0, 1], or an anchor is not of unit length.
    """
    sizes = check("anchor_BD", anchor_BD, f"{len(seeds)} D")
    check_unit_rows("anchor_BD", anchor_BD)
    if not 0 <= lower <= 1:
        raise ValueError(f"lower is {lower}, expected a cosine in [0, 1]")
    if lower == 1:
        return np.asarray(anchor_BD, np.float32)
    draws = [numpy_rng(seed, "cone") for seed in seeds]
    cosine_B1 = np.array([rng.uniform(lower, 1.0) for rng in draws]).reshape(-1, 1)
    across_BD = np.array([rng.standard_normal(sizes["D"]) for rng in draws]).reshape(-1, sizes["D"])
    axis_BD = np.asarray(anchor_BD, np.float64)
    axis_BD /= np.linalg.norm(axis_BD, axis=1, keepdims=True)
    across_BD -= (across_BD * axis_BD).sum(1, keepdims=True) * axis_BD
    across_BD /= np.linalg.norm(across_BD, axis=1, keepdims=True)
    return (cosine_B1 * axis_BD + np.sqrt(1 - cosine_B1**2) * across_BD).astype(np.float32)
