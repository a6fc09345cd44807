"""SDD-FIQA quality labels: how far an image's cosines to its own identity lie from its cosines to others. Ou et al., CVPR 2021.

Q_i = W1(S^P_i, S^N_i), 1-Wasserstein distance of the cosines to the other images of the identity and to images of other identities
(recognition.md §7.1, read there from the paper and the released code). Axes: N images, D embedding, R rows of a block, P pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numba
import numpy as np

from ..core.check import check_unit_rows
from ..core.errors import UserError
from ..core.seeds import derive_seed, numpy_rng
from .draws import choose, row_state
from .wasserstein import area_between, wasserstein_1d

__all__ = ["Mode", "normalise_labels", "sdd_fiqa", "wasserstein_1d"]

Mode = Literal["published", "per_round", "exact", "pool"]

_BLOCK_ROWS = 4096
_BLOCK_CELLS = 4_194_304
_VECTOR = {"reassoc", "contract"}
"""Let the compiler add a dot product up in vector lanes; NaN keeps its meaning."""


def sdd_fiqa(
    embed_ND: np.ndarray,
    identity_N: np.ndarray,
    *,
    mode: Mode = "published",
    seed: int = 0,
    draws: int = 24,
    rounds: int = 12,
    pool: int = 1024,
    signed: bool = False,
    raw: bool = False,
    probe_ND: np.ndarray | None = None,
) -> np.ndarray:
    """Return quality labels 0..100 relative to this data set, float32, (N,), larger is better; NaN for identities with one image.

    Args:
        embed_ND: unit rows of a trained recogniser, any float type. "pool" reads them in blocks, so an `np.memmap` (float16 too) may be larger
            than the memory: beside N-long vectors it holds the pool and one block. The other modes hold all rows as float32.
        mode: "published": `rounds` times, `draws` positives and `draws` negatives of each image, drawn without replacement (fewer where
            fewer exist); the mean over the rounds is normalised once, as the paper's expectation asks. "per_round": each round is normalised
            before the mean, as the released code does; labels then need not span 0..100. "exact": all positives and all negatives; its
            time grows with N². "pool": all positives against one pool of `pool` images that all rows share: one matrix product.
        seed: the draws depend on it and on the image's row, on nothing else.
        signed: guard against wrong labels: distance 0 where the mean positive lies below the mean negative. W1 has no sign, so an image
            far from its supposed identity scores as high as one near it (recognition.md §7.2) unless this is set. A wrong name picked at random
            is no such case: its positives look like negatives, its distance is near 0, and 99 % of them lay in the lowest tenth either way
            (2 % of 7,956 train112 faces renamed, dlib rows).
        raw: return the distances W1 themselves, in cosine units (not with "per_round").
        probe_ND: the same images in another state (damaged, re-rendered), unit rows in the same order: these are labelled, each
            against the rows of the other images in `embed_ND`, so that no image meets a copy of itself.

    Raises:
        UserError: NaN or unnormalised embeddings, probes of another shape, fewer than two identities, or a pool that holds no other identity for some image.
    """
    _check_settings(mode, (draws, rounds, pool), raw)
    _check_rows(embed_ND, identity_N)
    if probe_ND is None:
        probe_ND = embed_ND
    elif np.shape(probe_ND) != np.shape(embed_ND):
        raise UserError(f"probe_ND has shape {np.shape(probe_ND)}, embeddings {np.shape(embed_ND)}; expected one probe for each image, by the same embedder")
    else:
        _check_rows(probe_ND, identity_N, name="probes")
    layout = _Layout.of(np.asarray(identity_N))
    if mode in ("published", "per_round"):
        key = np.uint64(derive_seed(seed, "sdd_fiqa"))
        row_ND = np.ascontiguousarray(embed_ND, np.float32)
        own_ND = row_ND if probe_ND is embed_ND else np.ascontiguousarray(probe_ND, np.float32)
        distance_KN = _drawn_distances(own_ND, row_ND, layout.order_N, layout.start_N, layout.count_N, draws, rounds, key, signed)
        if mode == "per_round":
            return np.mean([normalise_labels(round_N) for round_N in distance_KN], axis=0, dtype=np.float32)
        distance_N = distance_KN.mean(axis=0, dtype=np.float64).astype(np.float32)
    else:
        size = len(layout.order_N)
        whole = mode == "exact" or pool >= size
        distance_N = _pool_distances(probe_ND, embed_ND, layout, np.arange(size) if whole else np.sort(numpy_rng(seed, "sdd_fiqa", "pool").choice(size, pool, replace=False)), signed)
    return distance_N if raw else normalise_labels(distance_N)


def normalise_labels(distance_N: np.ndarray, *, tail: float = 0.0) -> np.ndarray:
    """Map finite values to 0..100, float32; NaN stays NaN; equal values all become 100 (none is worse).

    Args:
        tail: share at each end that is cut to 0 or 100; 0 = by minimum and maximum as published, where two outliers set the scale.
    """
    known_N = np.isfinite(distance_N)
    if not known_N.any():
        return np.full(distance_N.shape, np.nan, np.float32)
    least, most = np.quantile(distance_N[known_N].astype(np.float64), (tail, 1.0 - tail))
    if most == least:
        return np.where(known_N, 100.0, np.nan).astype(np.float32)
    return np.clip(100.0 * (distance_N - least) / (most - least), 0.0, 100.0).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Rows sorted by identity: position → row, and for each position where its identity begins and how many images it has."""

    order_N: np.ndarray
    start_N: np.ndarray
    count_N: np.ndarray

    @classmethod
    def of(cls, identity_N: np.ndarray) -> _Layout:
        order_N = np.argsort(identity_N, kind="stable")
        _, start_I, count_I = np.unique(identity_N[order_N], return_index=True, return_counts=True)
        if start_I.size < 2:
            raise UserError("SDD-FIQA compares with other identities, but there is only one; expected at least two identities")
        return cls(order_N=order_N, start_N=np.repeat(start_I, count_I), count_N=np.repeat(count_I, count_I))

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Ranges of positions that hold whole identities: about _BLOCK_ROWS, more only where one identity is larger."""
        begin, size = 0, len(self.order_N)
        while begin < size:
            last = min(begin + _BLOCK_ROWS, size) - 1
            end = int(self.start_N[last] + self.count_N[last])
            if end > last + 1 and self.start_N[last] > begin:
                end = int(self.start_N[last])
            yield begin, end
            begin = end


def _check_settings(mode: str, counts: tuple[int, int, int], raw: bool) -> None:
    if mode not in get_args(Mode):
        raise UserError(f"unknown mode '{mode}' of SDD-FIQA; expected {', '.join(get_args(Mode))}")
    if min(counts) < 1:
        raise UserError("draws {}, rounds {}, pool {}; expected at least 1 of each".format(*counts))
    if raw and mode == "per_round":
        raise UserError("'per_round' labels are normalised before they are averaged, so there is no raw distance; use mode published, exact or pool")


def _check_rows(embed_ND: np.ndarray, identity_N: np.ndarray, *, name: str = "embeddings") -> None:
    """As `checked_embeddings`, block by block and without a copy of the whole."""
    if np.ndim(embed_ND) != 2 or not len(embed_ND) or np.shape(identity_N) != embed_ND.shape[:1]:
        raise UserError(f"{name} have shape {np.shape(embed_ND)} and identities {np.shape(identity_N)}; expected (images, dimensions) and one identity for each image")
    try:
        for begin in range(0, len(embed_ND), _BLOCK_ROWS):
            check_unit_rows(f"{name} from row {begin}", np.asarray(embed_ND[begin : begin + _BLOCK_ROWS], np.float32))
    except ValueError as error:
        raise UserError(str(error)) from error


@numba.njit(nogil=True, cache=True)
def _guarded(positive: np.ndarray, negative: np.ndarray, signed: bool) -> float:
    if signed and positive.mean() < negative.mean():
        return 0.0
    return area_between(positive, negative)


@numba.njit(nogil=True, cache=True, fastmath=_VECTOR)
def _dot(first_D: np.ndarray, second_D: np.ndarray) -> float:
    total = np.float32(0.0)
    for d in range(first_D.size):
        total += first_D[d] * second_D[d]
    return total


@numba.njit(nogil=True, cache=True)
def _drawn_distances(probe_ND, embed_ND, order_N, start_N, count_N, draws, rounds, key, signed):
    """W1 of each round, (rounds, N), by row."""
    size = embed_ND.shape[0]
    result_KN = np.full((rounds, size), np.nan, np.float32)
    picks = np.empty(draws, np.int64)
    for place in range(size):
        start, count, row = start_N[place], count_N[place], order_N[place]
        if count < 2:
            continue
        positive = np.empty(min(draws, count - 1), np.float32)
        negative = np.empty(min(draws, size - count), np.float32)
        state = row_state(key, row)
        for turn in range(rounds):
            state = choose(picks, positive.size, count - 1, state)
            for k in range(positive.size):
                other = start + picks[k]
                positive[k] = _dot(probe_ND[row], embed_ND[order_N[other + (other >= place)]])  # the image is not its own positive
            state = choose(picks, negative.size, size - count, state)
            for k in range(negative.size):
                negative[k] = _dot(probe_ND[row], embed_ND[order_N[picks[k] + (count if picks[k] >= start else 0)]])
            result_KN[turn, row] = _guarded(np.sort(positive), np.sort(negative), signed)
    return result_KN


def _pool_distances(probe_ND: np.ndarray, embed_ND: np.ndarray, layout: _Layout, pool_P: np.ndarray, signed: bool) -> np.ndarray:
    """W1 of all positives against the images at the positions `pool_P` (sorted), (N,), by row."""
    own_from_N, own_to_N = np.searchsorted(pool_P, layout.start_N), np.searchsorted(pool_P, layout.start_N + layout.count_N)
    lonely_N = (own_to_N - own_from_N == pool_P.size) & (layout.count_N >= 2)
    if lonely_N.any():
        raise UserError(f"the pool of {pool_P.size} images holds no other identity for {int(lonely_N.sum())} images; enlarge `pool`")
    result_N = np.full(len(layout.order_N), np.nan, np.float32)
    pooled_DP = _gathered(embed_ND, layout.order_N[pool_P]).T
    step = max(1, min(_BLOCK_ROWS, _BLOCK_CELLS // pool_P.size))
    cos_SP = np.empty((step, pool_P.size), np.float32)
    for begin, end in layout.blocks():
        block_RD = _gathered(embed_ND, layout.order_N[begin:end])
        own_RD = block_RD if probe_ND is embed_ND else _gathered(probe_ND, layout.order_N[begin:end])
        for row in range(0, end - begin, step):
            part_RP = cos_SP[: min(step, end - begin - row)]
            np.matmul(own_RD[row : row + step], pooled_DP, out=part_RP)
            here = slice(begin + row, begin + row + len(part_RP))
            _hide_own(part_RP, own_from_N[here], own_to_N[here])
            part_RP.sort(axis=1)
            negatives_R = pool_P.size - (own_to_N - own_from_N)[here]
            first_R = layout.start_N[here] - begin
            result_N[layout.order_N[here]] = _block_distances(own_RD[row : row + step], block_RD, row, first_R, layout.count_N[here], part_RP, negatives_R, signed)
    return result_N


def _gathered(embed_ND: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(embed_ND[rows], np.float32)


@numba.njit(nogil=True, cache=True)
def _hide_own(cos_RP, own_from_R, own_to_R):
    """Cosines to the own identity become inf: sorted to the end and left out there."""
    for r in range(cos_RP.shape[0]):
        for p in range(own_from_R[r], own_to_R[r]):
            cos_RP[r, p] = np.inf


@numba.njit(nogil=True, cache=True)
def _block_distances(own_SD, block_RD, row, first_R, count_R, cos_RP, negatives_R, signed):
    """W1 of the rows from `row` on; their identities lie at first_R .. first_R + count_R of the same block."""
    distance_R = np.full(cos_RP.shape[0], np.nan, np.float32)
    for r in range(cos_RP.shape[0]):
        count = count_R[r]
        if count < 2:
            continue
        positive = np.empty(count - 1, np.float32)
        for k in range(count - 1):
            other = first_R[r] + k
            positive[k] = _dot(own_SD[r], block_RD[other + (other >= row + r)])
        positive.sort()
        distance_R[r] = _guarded(positive, cos_RP[r, : negatives_R[r]], signed)
    return distance_R
