"""Do recovered faces give their person away? Judged by a recogniser that neither the defence nor the attack used.

Rates at the judge's threshold for a false match rate on real faces; against the very photo that was protected (type I) and against another photo of the
person (type II), which is what an attacker wants. Axes: N recovered faces, M faces of the reference set, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....core.check import check, check_unit_rows
from ....core.errors import UserError
from ....identity.pairs import pair_histogram

FMR = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reidentification:
    """How recognisable recovered faces are.

    Attributes:
        same_photo: share that match the protected photo itself at the threshold (type I).
        other_photo: share that match another photo of the person (type II); NaN where nobody has one.
        rank1: share whose nearest face of the reference set, the protected photo left out, is the right person (closed set).
        cosine: mean cosine to the protected photo.
        chance: share of recovered faces that match the photo of a wrong person at the threshold: the floor.
        threshold, faces: cosine of the judge at the FMR; number of recovered faces.
    """

    same_photo: float
    other_photo: float
    rank1: float
    cosine: float
    chance: float
    threshold: float
    faces: int


def judge_threshold(embed_MD: np.ndarray, identity_M: np.ndarray, fmr: float = FMR) -> float:
    """Return the judge's threshold at a false match rate, from all pairs of different people of a reference set.

    Raises:
        UserError: too few pairs for the rate.
    """
    counts = pair_histogram(embed_MD, identity_M)
    if (pairs := int(counts.impostor_C.sum())) < 10 / fmr:
        raise UserError(f"{pairs} pairs of different people cannot give a threshold at FMR {fmr:g}; expected {10 / fmr:,.0f} or more: use more faces")
    return counts.threshold_at_fmr(fmr)


def reidentify(found_ND: np.ndarray, row_N: np.ndarray, embed_MD: np.ndarray, identity_M: np.ndarray, threshold: float) -> Reidentification:
    """Compare recovered faces with the reference set that holds their originals.

    Args:
        found_ND: judge's unit rows of the recovered faces; row_N: which row of the reference set each was recovered from.
        embed_MD, identity_M: judge's unit rows of the reference faces and their people.
    """
    same_N, other_N, hidden_NM = photo_cosines(found_ND, row_N, embed_MD, identity_M)
    has_other_N, wrong_NM = ~np.isnan(other_N), identity_M[None] != identity_M[row_N][:, None]
    nearest_N = hidden_NM.argmax(1)
    known = bool(has_other_N.any())
    return Reidentification(
        same_photo=float((same_N >= threshold).mean()),
        other_photo=float((other_N[has_other_N] >= threshold).mean()) if known else float("nan"),
        rank1=float((identity_M[nearest_N] == identity_M[row_N])[has_other_N].mean()) if known else float("nan"),
        cosine=float(same_N.mean()),
        chance=float((hidden_NM[wrong_NM] >= threshold).mean()) if wrong_NM.any() else float("nan"),
        threshold=threshold,
        faces=len(row_N),
    )


def photo_cosines(found_ND: np.ndarray, row_N: np.ndarray, embed_MD: np.ndarray, identity_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cosines to the protected photo, (N,); to another photo of the person, NaN where there is none, (N,); to all, the protected one at -inf, (N, M)."""
    check_unit_rows("found_ND", found_ND)
    check("row_N", row_N, str(len(found_ND)))
    cos_NM, each = found_ND @ embed_MD.T, np.arange(len(row_N))
    same_N = cos_NM[each, row_N]
    other_NM = identity_M[None] == identity_M[row_N][:, None]
    other_NM[each, row_N] = False
    # One other photo of each person, the next in the set: not the best of many, which would count famous people more.
    ahead_NM = (np.arange(cos_NM.shape[1])[None] - row_N[:, None] - 1) % cos_NM.shape[1]
    other_N = np.where(other_NM.any(1), cos_NM[each, np.where(other_NM, ahead_NM, cos_NM.shape[1]).argmin(1)], np.nan)
    cos_NM[each, row_N] = -np.inf
    return same_N, other_N, cos_NM
