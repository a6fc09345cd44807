"""Leakage: do the faces resemble real people? Image against centre and centre against centre, at a stated false match rate (generators.md (c) 13).

Axes: N images, I identities, R real people, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..identity.pairs import pair_histogram
from .embeddings import checked_embeddings

_BLOCK_CELLS = 8_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What the comparison with real people found.

    Attributes:
        people: real centres compared with.
        threshold: cosine from which a comparison counts as a match.
        real_fmr: share of pairs of DIFFERENT real people whose centres reach the threshold: what chance gives. NaN for one person.
        image_rate, centre_rate: share of the comparisons image x person, identity centre x person that reach it. DCFace reports this form.
        image_hit, centre_hit: share of images, of identities that reach it with at least one person; with many people chance alone makes it large.
        chance_hit: 1 - (1 - real_fmr)^people, what strangers would have if comparisons were independent.
        nearest_N, cosine_N: nearest person and its cosine, for each image.
        centre_nearest_I, centre_cosine_I: the same for each identity's centre.
    """

    people: int
    threshold: float
    real_fmr: float
    image_rate: float
    centre_rate: float
    image_hit: float
    centre_hit: float
    chance_hit: float
    nearest_N: np.ndarray
    cosine_N: np.ndarray
    centre_nearest_I: np.ndarray
    centre_cosine_I: np.ndarray


def leakage(embed_ND: np.ndarray, centre_ID: np.ndarray, real_RD: np.ndarray, *, threshold: float | None = None, fmr: float = 1e-3) -> Leakage:
    """Compare images and their identities' centres with the centres of real people.

    Args:
        threshold: cosine that counts as a match; None takes the lowest at which at most the share `fmr` of pairs of different real people match.

    Raises:
        UserError: rows of another space, or no threshold and fewer than two people.
    """
    real_RD = matching_centres(embed_ND, real_RD)
    among = pair_histogram(real_RD, np.arange(len(real_RD))) if len(real_RD) > 1 else None
    if threshold is None:
        if among is None:
            raise UserError("one real person gives no pair of different people to set a threshold by; give the threshold")
        threshold = among.threshold_at_fmr(fmr)
    real_fmr = among.fmr_at(threshold) if among is not None else float("nan")
    nearest_N, cosine_N, reached = nearest_people(embed_ND, real_RD, threshold)
    centre_nearest_I, centre_cosine_I, centres_reached = nearest_people(centre_ID, real_RD, threshold)
    return Leakage(
        people=len(real_RD), threshold=float(threshold), real_fmr=real_fmr, chance_hit=1.0 - (1.0 - real_fmr) ** len(real_RD),
        image_rate=reached / (len(embed_ND) * len(real_RD)), centre_rate=centres_reached / (len(centre_ID) * len(real_RD)),
        image_hit=float((cosine_N >= threshold).mean()), centre_hit=float((centre_cosine_I >= threshold).mean()),
        nearest_N=nearest_N, cosine_N=cosine_N, centre_nearest_I=centre_nearest_I, centre_cosine_I=centre_cosine_I,
    )  # fmt: skip


def nearest_people(embed_ND: np.ndarray, real_RD: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Nearest real centre of each row, its cosine, and how many comparisons reach the threshold; 32 MB of cosines at a time."""
    nearest_N, cosine_N, reached = np.empty(len(embed_ND), np.int64), np.empty(len(embed_ND), np.float32), 0
    step = max(1, _BLOCK_CELLS // len(real_RD))
    with bar("comparing with real people", len(embed_ND)) as advance:
        for begin in range(0, len(embed_ND), step):
            cos_NR = embed_ND[begin : begin + step] @ real_RD.T
            part = slice(begin, begin + len(cos_NR))
            nearest_N[part] = cos_NR.argmax(axis=1)
            cosine_N[part] = cos_NR[np.arange(len(cos_NR)), nearest_N[part]]
            reached += int((cos_NR >= threshold).sum())
            advance(len(cos_NR))
    return nearest_N, cosine_N, reached


def matching_centres(embed_ND: np.ndarray, real_RD: np.ndarray) -> np.ndarray:
    """Return the real centres as contiguous float32 unit rows of the space of the embeddings, or raise UserError."""
    real_RD, _ = checked_embeddings(real_RD, np.arange(len(real_RD)), name="real centres")
    if real_RD.shape[1] != embed_ND.shape[1]:
        raise UserError(f"real centres have {real_RD.shape[1]} dimensions, the embeddings {embed_ND.shape[1]}; use the embedder the centres were made with")
    return real_RD
