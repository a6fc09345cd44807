"""All that embeddings say about a data set, in one call: figures with intervals, a table of identities, what to look at.

Memory beside the embeddings (N x D x 4 bytes) stays below about 0.5 GiB for a million images: blocks of 32 MB, a histogram of pairs, some numbers an image and
two float64 rows an identity. Axes: N images, I identities, D embedding, R real people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..core.stats import Interval
from ..identity.centres import class_centres
from ..identity.pairs import PairHistogram
from .consistency import centre_cosines, centre_profile, consistency
from .diversity import identity_dispersion, vendi_score
from .duplicates import COSINE, HASH_BITS, Duplicate, find_duplicates
from .embeddings import checked_embeddings
from .groups import group_means, group_sums
from .intervals import DRAWS, around, mean_interval
from .leakage import Leakage, leakage
from .pair_figures import ALL_PAIRS_UP_TO, Moments, pair_intervals, pair_moments, set_histogram
from .sdd_fiqa import sdd_fiqa
from .separability import Separation, greedy_unique, separation, unique_curve


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectSettings:
    """How a set is measured.

    Attributes:
        threshold: cosine from which the embedder calls two faces one person (dlib: 0.58 = FMR 0.1 % on real faces; DCFace's r).
        draws: of the bootstrap over identities.
        seed: of every sample.
        histogram_images: most images whose every pair is counted.
        duplicate_bits, duplicate_cosine: see `duplicates`.
        leak_threshold: cosine that counts as leakage; None = that of FMR `leak_fmr` among the real people themselves.
    """

    threshold: float = 0.58
    draws: int = DRAWS
    seed: int = 0
    histogram_images: int = ALL_PAIRS_UP_TO
    duplicate_bits: int = HASH_BITS
    duplicate_cosine: float = COSINE
    leak_threshold: float | None = None
    leak_fmr: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found; identities are numbered by their sorted labels.

    Attributes:
        labels_I: the labels behind the numbers; index_N: number of the identity of each image.
        figures: name → value and interval over identities; what cannot be measured is left out.
        moments, histogram, histogram_images: pairs; the histogram is None with fewer than two images.
        separation, owner_I: centres; `owner_I` as `greedy_unique` returns it.
        profile: similarity to the centre. curve: (identities, literally unique, greedily unique).
        table: columns by identity: images, mated_mean, centre_mean, consistency, dispersion, nearest, quality.
        centre_cosine_N, quality_N: of each image (SDD-FIQA, NaN where it has none).
        duplicates: None where no hashes were given. leakage: None where no real people were.
    """

    labels_I: np.ndarray
    index_N: np.ndarray
    figures: dict[str, Interval]
    moments: Moments
    histogram: PairHistogram | None
    histogram_images: int
    separation: Separation
    owner_I: np.ndarray
    profile: dict[str, float]
    curve: list[tuple[int, int, int]]
    table: dict[str, np.ndarray]
    centre_cosine_N: np.ndarray
    quality_N: np.ndarray
    duplicates: list[Duplicate] | None
    leakage: Leakage | None


def inspect_embeddings(
    embed_ND: np.ndarray, identity_N: np.ndarray, settings: InspectSettings = InspectSettings(), *, hash_N: np.ndarray | None = None, real_RD: np.ndarray | None = None
) -> Inspection:
    """Measure a data set by its embeddings, with progress bars.

    Args:
        embed_ND: unit rows; a memory map will do.
        identity_N: labels, numbers or names.
        hash_N: perceptual hashes, for duplicates.
        real_RD: unit centres of real people, for leakage.

    Raises:
        UserError: NaN or unnormalised embeddings, centres of another space.
    """
    labels_I, index_N = np.unique(np.asarray(identity_N), return_inverse=True)
    embed_ND, index_N = checked_embeddings(embed_ND, index_N.reshape(-1))
    count = len(labels_I)
    with bar("centres", None):
        centre_ID = class_centres(embed_ND, index_N)
        cosine_N = centre_cosines(embed_ND, centre_ID, index_N)
        apart, owner_I = separation(centre_ID, settings.threshold), greedy_unique(centre_ID, settings.threshold)
    with bar("quality", None):
        quality_N = quality_labels(embed_ND, index_N)
    with bar("pairs", None):
        moments = pair_moments(embed_ND, index_N)
        histogram, images = set_histogram(embed_ND, index_N, most=settings.histogram_images, seed=settings.seed) if len(embed_ND) > 1 else (None, len(embed_ND))
    with bar("intervals", None):
        table = _table(embed_ND, index_N, cosine_N, quality_N, apart, settings.threshold)
        figures = _identity_figures(table, apart, owner_I, settings)
        if histogram is not None:
            figures |= pair_intervals(embed_ND, index_N, histogram, moments, draws=settings.draws, seed=settings.seed)
        figures["vendi"] = around(vendi_score(centre_ID), [])
    with bar("duplicates", None):
        twice = None if hash_N is None else find_duplicates(embed_ND, hash_N, bits=settings.duplicate_bits, cosine=settings.duplicate_cosine)
    leaks = None if real_RD is None else leakage(embed_ND, centre_ID, real_RD, threshold=settings.leak_threshold, fmr=settings.leak_fmr)
    return Inspection(
        labels_I=labels_I, index_N=index_N, figures={name: figure for name, figure in figures.items() if np.isfinite(figure.value)}, moments=moments, histogram=histogram,
        histogram_images=images, separation=apart, owner_I=owner_I, profile=centre_profile(cosine_N, index_N, count), table=table, centre_cosine_N=cosine_N,
        curve=[(n, literal, greedy) for (n, literal), (_, greedy) in zip(unique_curve(apart.literal_I), unique_curve(owner_I < 0))],
        quality_N=quality_N, duplicates=twice, leakage=leaks,
    )  # fmt: skip


def quality_labels(embed_ND: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """SDD-FIQA labels by the shared pool, guarded; all NaN where the set gives none (one identity, or one image each)."""
    try:
        return sdd_fiqa(embed_ND, index_N, mode="pool", signed=True)
    except UserError:
        return np.full(len(embed_ND), np.nan, np.float32)


def _table(embed_ND: np.ndarray, index_N: np.ndarray, cosine_N: np.ndarray, quality_N: np.ndarray, apart: Separation, threshold: float) -> dict[str, np.ndarray]:
    image_I = np.bincount(index_N)
    count = len(image_I)
    length_I = np.bincount(index_N, np.einsum("nd,nd->n", embed_ND, embed_ND, dtype=np.float64))
    pairs_I = image_I * (image_I - 1) / 2
    within_I = ((group_sums(embed_ND, index_N, count) ** 2).sum(axis=1) - length_I) / 2
    return {
        "images": image_I,
        "mated_mean": np.where(pairs_I > 0, within_I / np.maximum(pairs_I, 1), np.nan),
        "centre_mean": group_means(cosine_N, index_N, count),
        "consistency": consistency(cosine_N, index_N, count, threshold),
        "dispersion": identity_dispersion(embed_ND, index_N, count),
        "nearest": apart.nearest_I.astype(np.float64) if apart.nearest_I.size else np.full(count, np.nan),
        "quality": group_means(quality_N, index_N, count),
    }


def _identity_figures(table: dict[str, np.ndarray], apart: Separation, owner_I: np.ndarray, settings: InspectSettings) -> dict[str, Interval]:
    columns: dict[str, np.ndarray] = {
        "consistency": table["consistency"], "centre_cosine": table["centre_mean"], "identity_cosine": table["mated_mean"], "dispersion": table["dispersion"],
        "nearest_centre_mean": table["nearest"], "unique_greedy": (owner_I < 0).astype(float), "unique_literal": apart.literal_I.astype(float), "quality_mean": table["quality"],
    }  # fmt: skip
    figures = {name: mean_interval(value_I, draws=settings.draws, seed=settings.seed) for name, value_I in columns.items()}
    if apart.nearest_I.size:
        figures["nearest_centre_q999"] = around(float(np.quantile(apart.nearest_I, 0.999)), [])
        figures["nearest_centre_max"] = around(float(apart.nearest_I.max()), [])
    return figures


def summary(found: Inspection) -> dict[str, Any]:
    """Return what a program wants to read: counts, figures with intervals, profile, leakage; no row of the set."""
    leaks = found.leakage
    return {
        "images": len(found.index_N), "identities": len(found.labels_I),
        "mated_pairs": found.moments.mated_pairs, "non_mated_pairs": found.moments.non_mated_pairs, "histogram_images": found.histogram_images,
        "mated_mean": found.moments.mated_mean, "mated_std": found.moments.mated_std,
        "non_mated_mean": found.moments.non_mated_mean, "non_mated_std": found.moments.non_mated_std,
        "figures": {name: {"value": figure.value, "low": figure.low, "high": figure.high} for name, figure in found.figures.items()},
        "close_identities": found.separation.close, "unique": {"greedy": int((found.owner_I < 0).sum()), "literal": int(found.separation.literal_I.sum())},
        "unique_curve": found.curve, "centre_profile": found.profile, "duplicates": None if found.duplicates is None else len(found.duplicates),
        "leakage": None if leaks is None else {name: getattr(leaks, name) for name in ("people", "threshold", "real_fmr", "image_rate", "centre_rate", "image_hit", "centre_hit", "chance_hit")},
    }  # fmt: skip
