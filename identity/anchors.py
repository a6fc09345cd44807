"""New identities: unit directions drawn from the prior of real ones, apart from each other and from every real person.

Axes: I identities, B candidates of a block, D embedding.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..core.seeds import numpy_rng
from .anchor_sources import AnchorSource, Pool, mixture
from .centres import unit_rows
from .prior import AnchorPool, AnchorPrior, fit_prior
from .separation import Rows, greedy, measure_separation, reaching

__all__ = ["LEAK_COSINE", "MAX_COSINE", "AnchorPool", "AnchorPrior", "AnchorSample", "check_request", "draw_anchors", "draw_from", "fit_prior", "prior_source", "sample_anchors", "seal_prior"]

LEAK_COSINE = 0.58
"""Cosine that one of 1000 pairs of different people reaches (centred dlib space, all 86.8 M pairs of train112: 0.578; image to foreign centre: 0.582)."""

MAX_COSINE = 0.45
"""Below the same threshold by a margin: faces made from an anchor scatter around it, and their centres must stay apart (FMR = 1e-2: 0.441)."""

_BLOCK = 1024
_GIVE_UP = 400
_WINDOW = 64
_MARGIN = 0.001
_SHARE_BLOCKS = 128
_OWN_PRIOR = (
    "fit a prior to your own data with identity.anchors.fit_prior(embed_ND, identity_N, out) and name it in the job "
    "(identities: {source: prior, file: prior.safetensors}), or save anchors as a .npy file (identities: {source: file, file: anchors.npy})"
)


@dataclass(frozen=True, kw_only=True)
class AnchorSample:
    """Anchors and what was dropped on the way.

    Attributes:
        anchor_ID: unit float32, (I, D).
        drawn: candidates drawn, in whole blocks.
        leaked: candidates within the leak cosine of a real person.
        crowded: candidates within the maximal cosine of an earlier anchor.
    """

    anchor_ID: np.ndarray
    drawn: int
    leaked: int
    crowded: int


def sample_anchors(prior: AnchorPrior, count: int, seed: int, max_cosine: float = MAX_COSINE, leak_cosine: float = LEAK_COSINE) -> np.ndarray:
    """Return the anchors of `draw_anchors`, unit float32 (count, D)."""
    return draw_anchors(prior, count, seed, max_cosine, leak_cosine).anchor_ID


def draw_anchors(prior: AnchorPrior, count: int, seed: int, max_cosine: float = MAX_COSINE, leak_cosine: float = LEAK_COSINE) -> AnchorSample:
    """Draw `count` anchors from a prior: new draws where it holds the real centres, else its pool in an order that the seed draws.

    Every two have a cosine below `max_cosine`, and none reaches `leak_cosine` to a real class centre. See `draw_from`.

    Raises:
        UserError: what `check_request` refuses, or limits so tight that the space, or the pool, is full.
    """
    check_request(prior, count, max_cosine, leak_cosine)
    return draw_from(prior_source(prior), count, seed, max_cosine=max_cosine, real_ID=prior.real_ID, leak_cosine=leak_cosine)


def prior_source(prior: AnchorPrior) -> AnchorSource:
    """Return the source a prior is drawn from: its mixture where it holds the real centres, else its pool."""
    return mixture(prior) if len(prior.real_ID) or prior.pool is None else Pool(pool=prior.pool)


def draw_from(source: AnchorSource, count: int, seed: int, *, max_cosine: float = MAX_COSINE, real_ID: np.ndarray | None = None, leak_cosine: float = LEAK_COSINE) -> AnchorSample:
    """Draw `count` anchors from any source, greedily and block by block: the first anchors do not depend on `count`.

    Exact: the anchors are those that a loop over single candidates with float64 cosines takes (`separation`). Memory: the anchors twice
    (`separation.Rows`), the real centres, one block and one tile.

    Args:
        real_ID: unit centres of real people that no anchor may come near, or None.

    Raises:
        UserError: limits that are no cosines, other widths, or fewer than `count` fit: says how many did.
    """
    _check_limits(count, max_cosine, leak_cosine)
    real = Rows(real_ID if real_ID is not None else np.empty((0, source.dim), np.float32))
    if real.row_ND.shape[1] != source.dim:
        raise UserError(f"the real centres have {real.row_ND.shape[1]} numbers, the anchors {source.dim}; make the centres with the embedder that the anchors belong to")
    held, drawn, leaked, crowded = Rows(np.empty((0, source.dim), np.float32), capacity=count), 0, 0, 0
    recent: deque[int] = deque(maxlen=_WINDOW)
    budget = -(-_GIVE_UP * max(count, _BLOCK) // _BLOCK)
    with bar("identities", count) as step:
        for number, block_BD in enumerate(islice(source.blocks(seed, _BLOCK), budget), 1):
            safe_BD = block_BD[~reaching(Rows(block_BD), real, leak_cosine)]
            apart = Rows(safe_BD[~reaching(Rows(safe_BD), held, max_cosine)])
            chosen, refused = greedy(apart, max_cosine, count - len(held))
            drawn, leaked = drawn + len(block_BD), leaked + len(block_BD) - len(safe_BD)
            crowded += len(safe_BD) - len(apart) + refused
            held.add(apart.row_ND[chosen])
            step(len(chosen))
            if len(held) == count:
                return AnchorSample(anchor_ID=held.row_ND, drawn=drawn, leaked=leaked, crowded=crowded)
            recent.append(len(chosen))
            if source.size is None and _hopeless(recent, count - len(held), budget - number):
                break
    raise UserError(
        f"only {len(held)} of {count} identities fit: of {drawn} candidates {leaked} came within {leak_cosine} of a real person and {crowded} within "
        f"{max_cosine} of an earlier one{_outlook(source, recent)}; raise max_cosine or leak_cosine, or ask for fewer identities"
    )


def _hopeless(recent: deque[int], missing: int, blocks_left: int) -> bool:
    """Return whether the rate of the last blocks, taken three standard deviations high, cannot fill what is missing: rates only fall as space fills."""
    rate = (sum(recent) + 3 * math.sqrt(sum(recent)) + 9) / len(recent)
    return len(recent) == recent.maxlen and missing > rate * blocks_left


def _outlook(source: AnchorSource, recent: deque[int]) -> str:
    if source.size is not None:
        return f" (the source holds {source.size})"
    return f" (the last {len(recent) * _BLOCK} candidates gave {sum(recent)} more: the space is nearly full)"


def check_request(prior: AnchorPrior, count: int, max_cosine: float = MAX_COSINE, leak_cosine: float = LEAK_COSINE) -> None:
    """Refuse what no drawing can give; cheap.

    Raises:
        UserError: a count below 1, limits outside (-1, 1], or, without real centres, more anchors than the pool holds or a stricter leak
            cosine than it was checked at.
    """
    _check_limits(count, max_cosine, leak_cosine)
    if len(prior.real_ID):
        return
    pool = prior.pool
    if pool is None:
        raise UserError(f"this prior holds neither real centres nor a pool of checked anchors, so nothing keeps new identities from real people; {_OWN_PRIOR}")
    if leak_cosine < pool.leak_cosine:
        raise UserError(
            f"leak_cosine is {leak_cosine}, but the anchors of this prior were checked at {pool.leak_cosine} against {pool.people} real people whose centres did "
            f"not travel with it; expected {pool.leak_cosine} or more; for a stricter check {_OWN_PRIOR}"
        )
    if count > len(pool.anchor_ID):
        raise UserError(f"the number of identities is {count}, but this prior holds {len(pool.anchor_ID)} checked anchors; ask for at most so many; for more {_OWN_PRIOR}")


def _check_limits(count: int, max_cosine: float, leak_cosine: float) -> None:
    if count < 1:
        raise UserError(f"the number of identities is {count}, expected 1 or more")
    for name, limit in (("max_cosine", max_cosine), ("leak_cosine", leak_cosine)):
        if not -1.0 < limit <= 1.0:
            raise UserError(f"{name} is {limit}, expected a cosine above -1 and up to 1")


def seal_prior(prior: AnchorPrior, count: int, *, seed: int = 0, max_cosine: float = MAX_COSINE, leak_cosine: float = LEAK_COSINE) -> AnchorPrior:
    """Return the prior with a pool of `count` checked anchors in place of the real centres: fit to be published.

    The limits are checked on the values that a file gives back (fp16, at length 1 again).

    Raises:
        UserError: see `draw_anchors`; a prior without real centres has nothing to check against.
    """
    if not len(prior.real_ID):
        raise UserError(f"this prior holds no real centres to check anchors against; {_OWN_PRIOR}")
    # Rounding moves a cosine by less than the margin, so what is drawn below limit - margin stays below the limit.
    drawn_ID = sample_anchors(prior, count, seed, max_cosine - _MARGIN, leak_cosine - _MARGIN)
    anchor_ID = unit_rows(drawn_ID.astype(np.float16).astype(np.float32), "pool")
    assert not measure_separation(anchor_ID, max_cosine).close and not reaching(Rows(anchor_ID), Rows(prior.real_ID), leak_cosine).any()
    share_I = _shares(prior, anchor_ID, seed, leak_cosine)
    pool = AnchorPool(anchor_ID=anchor_ID, share_I=share_I, max_cosine=max_cosine, leak_cosine=leak_cosine, people=len(prior.real_ID))
    return replace(prior, real_ID=prior.real_ID[:0], pool=pool)


def _shares(prior: AnchorPrior, anchor_ID: np.ndarray, seed: int, leak_cosine: float) -> np.ndarray:
    """Return the share of the prior, without what leaks, that lies nearest to each anchor, float32 (I,), sum 1."""
    real, count_I = Rows(prior.real_ID), np.full(len(anchor_ID), 0.5)  # an anchor that no draw is nearest to is rare, not impossible
    for number in range(_SHARE_BLOCKS):
        block_BD = prior.draw(numpy_rng(seed, "shares", number), _BLOCK)
        safe_BD = block_BD[~reaching(Rows(block_BD), real, leak_cosine)]
        count_I += np.bincount((safe_BD @ anchor_ID.T).argmax(axis=1), minlength=len(anchor_ID))
    return (count_I / count_I.sum()).astype(np.float32)
