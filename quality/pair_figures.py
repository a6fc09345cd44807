"""Mated against non-mated pairs at any size: exact moments of all pairs, error rates from an exact histogram (generators.md (c) 5).

FMR(t) = P(non-mated >= t), FNMR(t) = P(mated < t). Axes: N images, I identities, D embedding, C bins of `identity.pairs`, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.seeds import numpy_rng
from ..core.stats import Interval
from ..identity.pairs import BINS, PairHistogram, edges, pair_histogram
from .groups import group_sums, rows_by_identity
from .intervals import DRAWS, around, resamples

ALL_PAIRS_UP_TO = 30_000
"""Images whose every pair is counted (4.5e8 pairs, some seconds); of larger sets whole identities are drawn up to that many."""

_CHUNK = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean, standard deviation (ddof 0) and number of the mated and the non-mated cosines of ALL pairs of a set; NaN where there are none."""

    mated_pairs: int
    mated_mean: float
    mated_std: float
    non_mated_pairs: int
    non_mated_mean: float
    non_mated_std: float

    @property
    def fdr(self) -> float:
        """Fisher discriminant ratio (mu_G - mu_I)^2 / (sigma_G^2 + sigma_I^2)."""
        spread = self.mated_std**2 + self.non_mated_std**2
        return (self.mated_mean - self.non_mated_mean) ** 2 / spread if spread else math.inf

    @property
    def d_prime(self) -> float:
        """Sensitivity index: difference of the means over the root of the mean variance."""
        return math.copysign(math.sqrt(2.0 * self.fdr), self.mated_mean - self.non_mated_mean)


def pair_moments(embed_ND: np.ndarray, index_N: np.ndarray) -> Moments:
    """Moments of all N(N-1)/2 cosines without forming one of them across identities.

    Sum of cosines over pairs of a set S: (|sum e|^2 - sum |e|^2) / 2; sum of squares: (|E^T E|_F^2 - sum |e|^4) / 2. Mated pairs are those of each
    identity, non-mated all pairs minus them.
    """
    identities = int(index_N.max()) + 1
    length_N = np.einsum("nd,nd->n", embed_ND, embed_ND, dtype=np.float64)
    sum_ID = group_sums(embed_ND, index_N, identities)
    gram_DD = np.zeros((embed_ND.shape[1],) * 2)
    for begin in range(0, len(embed_ND), _CHUNK):
        part = embed_ND[begin : begin + _CHUNK].astype(np.float64)
        gram_DD += part.T @ part
    every = _sums(float((sum_ID.sum(axis=0) ** 2).sum()), float((gram_DD**2).sum()), length_N)
    own = (sum_ID**2).sum(), sum(_square_sum(embed_ND[rows]) for rows in rows_by_identity(index_N))
    mated = _sums(float(own[0]), float(own[1]), length_N)
    count_I = np.bincount(index_N)
    pairs, total = int((count_I * (count_I - 1) // 2).sum()), len(embed_ND) * (len(embed_ND) - 1) // 2
    mated_mean, mated_std = _mean_std(pairs, *mated)
    other_mean, other_std = _mean_std(total - pairs, every[0] - mated[0], every[1] - mated[1])
    return Moments(mated_pairs=pairs, mated_mean=mated_mean, mated_std=mated_std, non_mated_pairs=total - pairs, non_mated_mean=other_mean, non_mated_std=other_std)


def set_histogram(embed_ND: np.ndarray, index_N: np.ndarray, *, most: int = ALL_PAIRS_UP_TO, seed: int = 0) -> tuple[PairHistogram, int]:
    """Histogram of all pairs among the images of at most `most` images, and how many images it rests on.

    Of larger sets whole identities are drawn by the seed until the next would exceed `most` (at least two of them).
    """
    if len(embed_ND) <= most:
        return pair_histogram(embed_ND, index_N), len(embed_ND)
    count_I = np.bincount(index_N)
    drawn = numpy_rng(seed, "pair histogram").permutation(len(count_I))
    kept = drawn[: max(2, int(np.searchsorted(np.cumsum(count_I[drawn]), most, "right")))]
    rows = np.flatnonzero(np.isin(index_N, kept))
    return pair_histogram(embed_ND[rows], index_N[rows]), rows.size


def eer_of(genuine_C: np.ndarray, impostor_C: np.ndarray) -> float:
    """Equal error rate: where FMR = FNMR on the polygon through the operating points at the bin edges; counts may be weights."""
    fmr, fnmr = error_rates(genuine_C, impostor_C)
    gap = fnmr - fmr  # from -1 at the lowest edge to 1 above the highest, never falling
    after = int(np.argmax(gap >= 0.0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(fmr[after - 1] + share * (fmr[after] - fmr[after - 1]))


def fnmr_at_fmr_of(genuine_C: np.ndarray, impostor_C: np.ndarray, fmr: float) -> float:
    """Lowest FNMR at a bin edge whose FMR does not exceed `fmr` (FMR100: 0.01, FMR1000: 0.001)."""
    rate, fnmr = error_rates(genuine_C, impostor_C)
    return float(fnmr[int(np.argmax(rate <= fmr + 1e-12))])


def auc_of(genuine_C: np.ndarray, impostor_C: np.ndarray) -> float:
    """P(mated > non-mated) + P(same bin) / 2."""
    fmr, fnmr = error_rates(genuine_C, impostor_C)
    share_C = genuine_C / genuine_C.sum()
    return float((share_C * (1.0 - (fmr[:-1] + fmr[1:]) / 2)).sum())


def error_rates(genuine_C: np.ndarray, impostor_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FMR and FNMR at the BINS + 1 edges."""
    below = [np.concatenate(([0.0], np.cumsum(counts, dtype=np.float64))) for counts in (impostor_C, genuine_C)]
    return 1.0 - below[0] / below[0][-1], below[1] / below[1][-1]


def fdr_of(genuine_C: np.ndarray, impostor_C: np.ndarray) -> float:
    """Fisher discriminant ratio from bin centres."""
    middle = (edges()[:-1] + edges()[1:]) / 2
    (mean_G, var_G), (mean_I, var_I) = [_weighted(middle, counts) for counts in (genuine_C, impostor_C)]
    return (mean_G - mean_I) ** 2 / (var_G + var_I) if var_G + var_I else math.inf


PAIR_FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": auc_of,
    "eer": eer_of,
    "fmr100": lambda genuine_C, impostor_C: fnmr_at_fmr_of(genuine_C, impostor_C, 0.01),
    "fmr1000": lambda genuine_C, impostor_C: fnmr_at_fmr_of(genuine_C, impostor_C, 0.001),
    "fdr": fdr_of,
    "d_prime": lambda genuine_C, impostor_C: math.sqrt(2.0 * fdr_of(genuine_C, impostor_C)),
}


def pair_intervals(embed_ND: np.ndarray, index_N: np.ndarray, histogram: PairHistogram, moments: Moments, *, draws: int = DRAWS, pairs: int = 300_000, seed: int = 0) -> dict[str, Interval]:
    """The figures of PAIR_FIGURES with bootstrap intervals over identities; empty where mated or non-mated pairs are missing.

    Values rest on the histogram, FDR and d' on the moments of all pairs. Intervals rest on at most `pairs` pairs of each kind: a mated pair counts as often
    as its identity was drawn, a non-mated one as often as the product of its two.
    """
    if not moments.mated_pairs or not moments.non_mated_pairs:
        return {}
    values = {name: figure(histogram.genuine_C, histogram.impostor_C) for name, figure in PAIR_FIGURES.items()} | {"fdr": moments.fdr, "d_prime": moments.d_prime}
    mated = _drawn_pairs(embed_ND, index_N, pairs, seed, mated=True)
    other = _drawn_pairs(embed_ND, index_N, pairs, seed, mated=False)
    drawn: dict[str, list[float]] = {name: [] for name in PAIR_FIGURES}
    for times_I in resamples(int(index_N.max()) + 1, draws=draws, seed=seed):
        genuine_C = np.bincount(mated[2], times_I[mated[0]], minlength=BINS)
        impostor_C = np.bincount(other[2], times_I[other[0]] * times_I[other[1]], minlength=BINS)
        if genuine_C.any() and impostor_C.any():  # few identities: a draw may hold one kind only
            for name, figure in PAIR_FIGURES.items():
                drawn[name].append(figure(genuine_C, impostor_C))
    return {name: around(values[name], drawn[name]) for name in PAIR_FIGURES}


def _drawn_pairs(embed_ND: np.ndarray, index_N: np.ndarray, most: int, seed: int, *, mated: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identities of the two images and bin of the cosine of all pairs of a kind, or of `most` drawn with replacement."""
    first_P, second_P = _mated_pairs(index_N, most, seed) if mated else _other_pairs(index_N, most, seed)
    bin_P = np.empty(first_P.size, np.int32)
    for begin in range(0, first_P.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        cos_P = np.einsum("pd,pd->p", embed_ND[first_P[part]], embed_ND[second_P[part]])
        bin_P[part] = np.clip((cos_P + 1.0) * (BINS / 2), 0, BINS - 1)
    return index_N[first_P], index_N[second_P], bin_P


def _mated_pairs(index_N: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    groups = [rows for rows in rows_by_identity(index_N) if rows.size > 1]
    pairs_G = np.array([rows.size * (rows.size - 1) // 2 for rows in groups])
    if pairs_G.sum() <= most:
        found = [np.triu_indices(rows.size, 1) for rows in groups]
        return np.concatenate([rows[i] for rows, (i, _) in zip(groups, found)]), np.concatenate([rows[j] for rows, (_, j) in zip(groups, found)])
    rng = numpy_rng(seed, "mated pairs")
    group_P = rng.choice(len(groups), size=most, p=pairs_G / pairs_G.sum())
    order, size_G = np.concatenate(groups), np.array([rows.size for rows in groups])
    begin_P, size_P = (np.cumsum(size_G) - size_G)[group_P], size_G[group_P]
    left_P = rng.integers(size_P)
    right_P = (left_P + 1 + rng.integers(size_P - 1)) % size_P  # any but itself
    return order[begin_P + left_P], order[begin_P + right_P]


def _other_pairs(index_N: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    size = len(index_N)
    if size * (size - 1) // 2 <= most:
        left_P, right_P = np.triu_indices(size, 1)
    else:
        left_P, right_P = numpy_rng(seed, "non-mated pairs").integers(size, size=(2, most))
    other_P = index_N[left_P] != index_N[right_P]
    return left_P[other_P], right_P[other_P]


def _square_sum(embed_KD: np.ndarray) -> float:
    """Sum of all squared cosines of one identity: by its smaller Gram matrix, in float64 (cancellation follows)."""
    rows = embed_KD.astype(np.float64)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return float((gram**2).sum())


def _sums(square_of_sum: float, sum_of_squares: float, length_N: np.ndarray) -> tuple[float, float]:
    return (square_of_sum - float(length_N.sum())) / 2, (sum_of_squares - float((length_N**2).sum())) / 2


def _mean_std(count: int, total: float, squares: float) -> tuple[float, float]:
    if not count:
        return math.nan, math.nan
    return total / count, math.sqrt(max(0.0, squares / count - (total / count) ** 2))


def _weighted(value_C: np.ndarray, weight_C: np.ndarray) -> tuple[float, float]:
    mean = float((value_C * weight_C).sum() / weight_C.sum())
    return mean, float(((value_C - mean) ** 2 * weight_C).sum() / weight_C.sum())
