"""Figures of a whole data set for its report: how well identities hold together and stay apart (generators.md, part (c)).

Axes: N images, I identities, D embedding, P pairs. Cosines by the judging embedder, which should not be one used in training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..core.errors import UserError
from ..core.seeds import numpy_rng
from ..core.stats import auc, d_prime, eer, fdr, fnmr_at_fmr
from ..identity.centres import class_centres
from .consistency import centre_cosines, consistency
from .diversity import identity_dispersion
from .embeddings import checked_embeddings
from .groups import rows_by_identity
from .separability import greedy_unique, separation

MAX_PAIRS = 5_000_000
"""Above this many non-mated pairs a seeded sample of that size stands for all."""

_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFigures:
    """Figures of one data set; NaN where there is nothing to measure (no mated pair, no anchors).

    Attributes:
        images, identities: counts.
        mated_pairs, non_mated_pairs: how many pairs the pair figures rest on.
        auc, eer, d_prime, fdr, fnmr_at_fmr_1pct: mated against non-mated pairs.
        mated_mean, mated_std, non_mated_mean, non_mated_std: of the cosines.
        anchor_cosine: mean cosine between an image and the anchor it was made from.
        consistency: C_intra, mean over identities of the share of images with a cosine >= threshold to their own centre.
        dispersion: mean over identities (two images or more) of the trace of the covariance of the embeddings, ddof 0.
        close_identities: pairs of identities whose centres have a cosine >= threshold.
        unique_identities: U_class by greedy packing: share of identities, in order, with a cosine < threshold to all accepted ones.
        nearest_centre_mean, nearest_centre_max: cosine of a centre to its nearest other centre.
        threshold: the match threshold used.
    """

    images: int
    identities: int
    mated_pairs: int
    non_mated_pairs: int
    auc: float
    eer: float
    d_prime: float
    fdr: float
    fnmr_at_fmr_1pct: float
    mated_mean: float
    mated_std: float
    non_mated_mean: float
    non_mated_std: float
    anchor_cosine: float
    consistency: float
    dispersion: float
    close_identities: int
    unique_identities: float
    nearest_centre_mean: float
    nearest_centre_max: float
    threshold: float

    def summary(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def dataset_figures(embed_ND: np.ndarray, identity_N: np.ndarray, *, threshold: float, anchor_ND: np.ndarray | None = None, seed: int = 0) -> DatasetFigures:
    """Measure a data set.

    Args:
        embed_ND: unit rows.
        threshold: cosine from which two faces count as one person, e.g. the real FMR = 0.1 % threshold of the embedder.
        anchor_ND: unit anchor of each image, if it was made from one.
        seed: of the sample of non-mated pairs, where there are more than MAX_PAIRS.

    Raises:
        UserError: NaN or unnormalised embeddings.
    """
    embed_ND, identity_N = checked_embeddings(embed_ND, identity_N)
    centre_ID, index_N = identity_centres(embed_ND, identity_N)
    score_P, same_P = pair_scores(embed_ND, identity_N, seed=seed)
    mated, non_mated = score_P[same_P], score_P[~same_P]
    both = bool(mated.size and non_mated.size)
    apart = separation(centre_ID, threshold)
    return DatasetFigures(
        images=len(embed_ND),
        identities=len(centre_ID),
        mated_pairs=mated.size,
        non_mated_pairs=non_mated.size,
        auc=auc(score_P, same_P) if both else np.nan,
        eer=eer(score_P, same_P) if both else np.nan,
        d_prime=d_prime(score_P, same_P) if both else np.nan,
        fdr=fdr(score_P, same_P) if both else np.nan,
        fnmr_at_fmr_1pct=fnmr_at_fmr(score_P, same_P, 0.01) if both else np.nan,
        mated_mean=_mean(mated),
        mated_std=float(mated.std()) if mated.size else np.nan,
        non_mated_mean=_mean(non_mated),
        non_mated_std=float(non_mated.std()) if non_mated.size else np.nan,
        anchor_cosine=_anchor_cosine(embed_ND, identity_N, anchor_ND),
        consistency=float(consistency(centre_cosines(embed_ND, centre_ID, index_N), index_N, len(centre_ID), threshold).mean()),
        dispersion=dispersion(embed_ND, index_N),
        close_identities=apart.close,
        unique_identities=float((greedy_unique(centre_ID, threshold) < 0).mean()),
        nearest_centre_mean=_mean(apart.nearest_I),
        nearest_centre_max=float(apart.nearest_I.max()) if apart.nearest_I.size else np.nan,
        threshold=threshold,
    )


def identity_centres(embed_ND: np.ndarray, identity_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised mean of each identity, sorted by identity, (I, D), and each image's row in it, (N,)."""
    return class_centres(embed_ND, identity_N), np.unique(identity_N, return_inverse=True)[1]


def pair_scores(embed_ND: np.ndarray, identity_N: np.ndarray, *, max_pairs: int = MAX_PAIRS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of all mated and all non-mated pairs (beyond `max_pairs`: of a seeded sample of the non-mated), and the labels."""
    size = len(embed_ND)
    mated = np.concatenate([_within(embed_ND[rows]) for rows in rows_by_identity(identity_N)])
    others = size * (size - 1) // 2 - mated.size
    non_mated = _all_non_mated(embed_ND, identity_N) if others <= max_pairs else _drawn_non_mated(embed_ND, identity_N, max_pairs, seed)
    return np.concatenate((mated, non_mated)), np.arange(mated.size + non_mated.size) < mated.size


def dispersion(embed_ND: np.ndarray, identity_N: np.ndarray) -> float:
    """Mean over identities with two images or more of the trace of their covariance (ddof 0); NaN if there are none."""
    names, index_N = np.unique(identity_N, return_inverse=True)
    trace_I = identity_dispersion(embed_ND, index_N, len(names))
    return _mean(trace_I[np.isfinite(trace_I)])


def _anchor_cosine(embed_ND: np.ndarray, identity_N: np.ndarray, anchor_ND: np.ndarray | None) -> float:
    if anchor_ND is None:
        return np.nan
    anchor_ND, _ = checked_embeddings(anchor_ND, identity_N, name="anchors")
    if anchor_ND.shape != embed_ND.shape:
        raise UserError(f"anchors have shape {anchor_ND.shape}, embeddings {embed_ND.shape}; expected the same embedder for both")
    return float(np.einsum("nd,nd->n", embed_ND, anchor_ND).mean())


def _within(embed_KD: np.ndarray) -> np.ndarray:
    return (embed_KD @ embed_KD.T)[np.triu_indices(len(embed_KD), 1)]


def _all_non_mated(embed_ND: np.ndarray, identity_N: np.ndarray) -> np.ndarray:
    parts = []
    for begin in range(0, len(embed_ND), _BLOCK):
        rows = np.arange(begin, min(begin + _BLOCK, len(embed_ND)))
        cos_RN = embed_ND[rows] @ embed_ND[begin:].T
        later_RN = np.arange(begin, len(embed_ND)) > rows[:, None]
        parts.append(cos_RN[later_RN & (identity_N[rows, None] != identity_N[begin:])])
    return np.concatenate(parts)


def _drawn_non_mated(embed_ND: np.ndarray, identity_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = numpy_rng(seed, "non-mated sample")
    score, filled = np.empty(count, np.float32), 0
    while filled < count:
        left, right = rng.integers(len(embed_ND), size=(2, 65_536))
        other = identity_N[left] != identity_N[right]
        fresh = np.einsum("pd,pd->p", embed_ND[left[other]], embed_ND[right[other]])[: count - filled]
        score[filled : filled + fresh.size] = fresh
        filled += fresh.size
    return score


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
