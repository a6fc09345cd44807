"""1:N identification: closed-set rank-k and open-set TPIR@FPIR (recognition.md §8.4, §8.6).

Axes: Q probes, G gallery entries, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError

_BLOCK = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search of the gallery gave for each probe.

    Attributes:
        rank_Q: 1 = the probe's own person came first; a tie counts against it. 0 for probes whose person is not in the gallery (non-mated).
        own_Q: best cosine to the probe's own person, -inf for non-mated probes.
        other_Q: best cosine to anybody else.
    """

    rank_Q: np.ndarray
    own_Q: np.ndarray
    other_Q: np.ndarray

    @property
    def mated_Q(self) -> np.ndarray:
        """Which probes have their person in the gallery."""
        return self.rank_Q > 0

    @property
    def best_Q(self) -> np.ndarray:
        """The probe's score: the highest over the gallery."""
        return np.maximum(self.own_Q, self.other_Q)

    def hit_rate(self, rank: int = 1) -> float:
        """Share of the mated probes whose person is among the first `rank` (the CMC)."""
        return float(np.mean(self.rank_Q[self.mated_Q] <= rank))


def search(probe_QD: np.ndarray, probe_Q: np.ndarray, gallery_GD: np.ndarray, gallery_G: np.ndarray) -> Search:
    """Compare every probe with every gallery entry, in blocks.

    A person may have several entries: they count once, with the best. Entries of the label -1 are distractors, nobody's match.

    Args:
        probe_QD, gallery_GD: unit rows; probe_Q, gallery_G: identities, integers.

    Raises:
        UserError: an empty gallery, or embeddings that are not finite.
    """
    probe_QD, gallery_GD = np.asarray(probe_QD, np.float32), np.asarray(gallery_GD, np.float32)
    if not len(gallery_GD) or not np.isfinite(probe_QD).all() or not np.isfinite(gallery_GD).all():
        raise UserError(f"{len(gallery_GD)} gallery entries, {int((~np.isfinite(probe_QD)).any(axis=1).sum())} probes that are not finite; expected a gallery and finite embeddings")
    probe_Q, gallery_G = np.asarray(probe_Q), np.asarray(gallery_G)
    # Distractors get labels of their own, so that each of them counts in the rank.
    labels_G = np.where(gallery_G >= 0, gallery_G, -2 - np.arange(len(gallery_G)))
    order_G = np.argsort(labels_G, kind="stable")
    person_I, start_I = np.unique(labels_G[order_G], return_index=True)
    gallery_DG = np.ascontiguousarray(gallery_GD[order_G].T)
    rank_Q, own_Q, other_Q = np.zeros(len(probe_QD), np.int64), np.full(len(probe_QD), -np.inf, np.float32), np.full(len(probe_QD), -np.inf, np.float32)
    for start in range(0, len(probe_QD), _BLOCK):
        block = slice(start, start + _BLOCK)
        best_QI = np.maximum.reduceat(probe_QD[block] @ gallery_DG, start_I, axis=1)
        column_Q = np.minimum(np.searchsorted(person_I, probe_Q[block]), len(person_I) - 1)
        there_Q = (person_I[column_Q] == probe_Q[block]) & (probe_Q[block] >= 0)
        rows = np.arange(len(best_QI))
        own = np.where(there_Q, best_QI[rows, column_Q], -np.inf)
        best_QI[rows[there_Q], column_Q[there_Q]] = -np.inf
        rank_Q[block] = np.where(there_Q, 1 + (best_QI >= own[:, None]).sum(axis=1), 0)
        own_Q[block], other_Q[block] = own, best_QI.max(axis=1)
    return Search(rank_Q=rank_Q, own_Q=own_Q, other_Q=other_Q)


def tpir_at_fpir(found: Search, fpirs: Sequence[float] = (1e-2, 1e-1)) -> dict[float, float]:
    """Return the true positive identification rate at each false positive identification rate.

    The threshold is the max(int(n * f) - 1, 0)-th highest score of the n non-mated probes; a mated probe succeeds if its own person
    scores higher than everybody else and above the threshold.

    Raises:
        UserError: no mated or no non-mated probes.
    """
    mated_Q = found.mated_Q
    wrong = np.sort(found.other_Q[~mated_Q])[::-1]
    if not wrong.size or not mated_Q.any():
        raise UserError(f"{int(mated_Q.sum())} mated and {wrong.size} non-mated probes; open-set identification needs both")
    first_Q = found.rank_Q == 1
    return {far: float(np.mean(first_Q[mated_Q] & (found.own_Q[mated_Q] > wrong[max(int(wrong.size * far) - 1, 0)]))) for far in fpirs}


def two_galleries(probe_QD: np.ndarray, probe_Q: np.ndarray, galleries: Sequence[tuple[np.ndarray, np.ndarray]], *, ranks: Sequence[int] = (1, 5, 10), fpirs: Sequence[float] = (1e-2, 1e-1)) -> dict[str, float]:
    """IJB's 1:N protocol: each gallery by itself with all probes, the others' people as non-mated probes; the mean over the galleries.

    Merging the galleries, or counting false accepts over all comparisons, are known mistakes (recognition.md §8.4).
    """
    runs = [search(probe_QD, probe_Q, *gallery) for gallery in galleries]
    figures = {f"rank_{rank}": float(np.mean([run.hit_rate(rank) for run in runs])) for rank in ranks}
    open_set = [tpir_at_fpir(run, fpirs) for run in runs]
    return figures | {f"tpir_at_fpir_{fpir:g}": float(np.mean([one[fpir] for one in open_set])) for fpir in fpirs}
