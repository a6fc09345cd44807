"""Attribute coverage: which part of a range of poses or lights a set shows, over all images and within an identity (generators.md (c) 9).

Axes: N images, I identities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .groups import group_means


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Spread of one attribute; NaN values (not found) are left out.

    Attributes:
        known: images with a value.
        mean, sd: over all images.
        sd_within: mean over identities (two values or more) of the standard deviation within, ddof 0.
        entropy: of the histogram over the range, divided by ln(bins): 0 = one bin, 1 = all alike.
        covered: share of the bins that hold at least a tenth of an even share of the images.
        edges, counts: the histogram; values beyond the range count in the outer bins.
    """

    known: int
    mean: float
    sd: float
    sd_within: float
    entropy: float
    covered: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def coverage(value_N: np.ndarray, index_N: np.ndarray, identities: int, *, low: float, high: float, bins: int = 12) -> Coverage:
    """Spread of an attribute over [low, high]."""
    value_N = np.asarray(value_N, np.float64)
    known_N = np.isfinite(value_N)
    edges = np.linspace(low, high, bins + 1)
    counts = np.histogram(np.clip(value_N[known_N], low, high), edges)[0]
    total = int(counts.sum())
    if not total:
        return Coverage(known=0, mean=np.nan, sd=np.nan, sd_within=np.nan, entropy=np.nan, covered=0.0, edges=tuple(edges.tolist()), counts=(0,) * bins)
    mean_I = group_means(value_N, index_N, identities)
    variance_I = group_means((value_N - mean_I[index_N]) ** 2, index_N, identities)
    several_I = np.bincount(index_N[known_N], minlength=identities) > 1
    share = counts[counts > 0] / total
    return Coverage(
        known=total, mean=float(value_N[known_N].mean()), sd=float(value_N[known_N].std()),
        sd_within=float(np.sqrt(variance_I[several_I]).mean()) if several_I.any() else np.nan,
        entropy=float(-(share * np.log(share)).sum() / np.log(bins)) + 0.0, covered=float((counts >= 0.1 * total / bins).mean()),
        edges=tuple(edges.tolist()), counts=tuple(counts.tolist()),
    )  # fmt: skip


POSE_RANGES = {"yaw_deg": (-90.0, 90.0), "pitch_deg": (-60.0, 60.0), "roll_deg": (-45.0, 45.0)}
EXPRESSION_RANGES = {"jaw_open": (0.0, 1.0), "smile": (0.0, 1.0), "brow_raise": (0.0, 1.0)}
FITTED_LIGHT_RANGES = {"light_right": (-1.0, 1.0), "light_above": (-1.0, 1.0)}
FITTED_RANGES = POSE_RANGES | EXPRESSION_RANGES | FITTED_LIGHT_RANGES
"""What a fit of a 3D head tells: degrees, face units, and first-order over zeroth-order shading."""

LIGHT_RANGES = {"brightness": (0.0, 1.0), "contrast": (0.0, 0.4), "left_right": (-1.5, 1.5), "up_down": (-1.5, 1.5)}


def coverages(value_NA: np.ndarray, index_N: np.ndarray, identities: int, ranges: dict[str, tuple[float, float]]) -> dict[str, Coverage]:
    """Coverage of each column of attributes, named and bounded by `ranges` (POSE_RANGES, LIGHT_RANGES)."""
    return {name: coverage(value_NA[:, column], index_N, identities, low=low, high=high) for column, (name, (low, high)) in enumerate(ranges.items())}
