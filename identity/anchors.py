"""New identities: unit directions drawn from the prior of real ones, apart from each other and from every real person.

Axes: I identities, B candidates of a block, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..core.seeds import numpy_rng
from .centres import unit_rows
from .prior import AnchorPool, AnchorPrior, fit_prior

__all__ = ["LEAK_COSINE", "MAX_COSINE", "AnchorPool", "AnchorPrior", "AnchorSample", "check_request", "draw_anchors", "fit_prior", "sample_anchors", "seal_prior"]

LEAK_COSINE = 0.58
"""Cosine that one of 1000 pairs of different people reaches (centred dlib space, all 86.8 M pairs of train112: 0.578; image to foreign centre: 0.582)."""

MAX_COSINE = 0.45
"""Below the same threshold by a margin: faces made from an anchor scatter around it, and their centres must stay apart (FMR = 1e-2: 0.441)."""

_BLOCK = 1024
_GIVE_UP = 400
_MARGIN = 0.001
_SHARE_BLOCKS = 128
_OWN_PRIOR = (
    "fit a prior to your own data with identity.anchors.fit_prior(embed_ND, identity_N, out), save sample_anchors(prior, count, seed) as a .npy file "
    "and name it in the job (identities: {source: file, file: anchors.npy})"
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
    """Draw `count` anchors; every two have a cosine below `max_cosine`, and none reaches `leak_cosine` to a real class centre.

    Candidates are new draws where the prior holds the real centres, else its pool in an order that the seed draws. They are taken
    greedily, block by block: the first anchors do not depend on `count`.

    Raises:
        UserError: what `check_request` refuses, or limits so tight that the space, or the pool, is full.
    """
    check_request(prior, count, max_cosine, leak_cosine)
    anchor_ID = np.empty((count, len(prior.mean_D)), np.float32)
    found = drawn = leaked = crowded = 0
    with bar("identities", count) as step:
        for block_BD in _candidates(prior, count, seed):
            safe_BD = block_BD[_highest_cosine(block_BD, prior.real_ID) < leak_cosine]
            apart_BD = safe_BD[_highest_cosine(safe_BD, anchor_ID[:found]) < max_cosine]
            chosen, refused = _greedy(apart_BD, max_cosine, count - found)
            anchor_ID[found : found + len(chosen)] = apart_BD[chosen]
            found += len(chosen)
            drawn += len(block_BD)
            leaked += len(block_BD) - len(safe_BD)
            crowded += len(safe_BD) - len(apart_BD) + refused
            step(len(chosen))
            if found == count:
                return AnchorSample(anchor_ID=anchor_ID, drawn=drawn, leaked=leaked, crowded=crowded)
    raise UserError(
        f"only {found} of {count} identities fit: of {drawn} candidates {leaked} came within {leak_cosine} of a real person and {crowded} within "
        f"{max_cosine} of an earlier one; raise max_cosine or leak_cosine, or ask for fewer identities"
    )


def check_request(prior: AnchorPrior, count: int, max_cosine: float = MAX_COSINE, leak_cosine: float = LEAK_COSINE) -> None:
    """Refuse what no drawing can give; cheap.

    Raises:
        UserError: a count below 1, limits outside (-1, 1], or, without real centres, more anchors than the pool holds or a stricter leak
            cosine than it was checked at.
    """
    if count < 1:
        raise UserError(f"the number of identities is {count}, expected 1 or more")
    for name, limit in (("max_cosine", max_cosine), ("leak_cosine", leak_cosine)):
        if not -1.0 < limit <= 1.0:
            raise UserError(f"{name} is {limit}, expected a cosine above -1 and up to 1")
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
    apart = max((float(_highest_cosine(anchor_ID[row : row + 1], anchor_ID[:row]).max()) for row in range(count)), default=-1.0)
    assert apart < max_cosine and float(_highest_cosine(anchor_ID, prior.real_ID).max()) < leak_cosine
    share_I = _shares(prior, anchor_ID, seed, leak_cosine)
    pool = AnchorPool(anchor_ID=anchor_ID, share_I=share_I, max_cosine=max_cosine, leak_cosine=leak_cosine, people=len(prior.real_ID))
    return replace(prior, real_ID=prior.real_ID[:0], pool=pool)


def _shares(prior: AnchorPrior, anchor_ID: np.ndarray, seed: int, leak_cosine: float) -> np.ndarray:
    """Return the share of the prior, without what leaks, that lies nearest to each anchor, float32 (I,), sum 1."""
    count_I = np.full(len(anchor_ID), 0.5)  # an anchor that no draw is nearest to is rare, not impossible
    for number in range(_SHARE_BLOCKS):
        block_BD = prior.draw(numpy_rng(seed, "shares", number), _BLOCK)
        safe_BD = block_BD[_highest_cosine(block_BD, prior.real_ID) < leak_cosine]
        count_I += np.bincount((safe_BD @ anchor_ID.T).argmax(axis=1), minlength=len(anchor_ID))
    return (count_I / count_I.sum()).astype(np.float32)


def _candidates(prior: AnchorPrior, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of candidates, each with its own seed; from a pool, its rows in an order drawn by the seed."""
    if not len(prior.real_ID):
        pool = prior.pool
        # Draws without replacement, each row with the chance of its share (exponential clocks: Efraimidis & Spirakis 2006, eq. 1).
        order_I = np.argsort(numpy_rng(seed, "anchors", "pool").exponential(size=len(pool.share_I)) / pool.share_I)
        yield from (pool.anchor_ID[order_I[start : start + _BLOCK]] for start in range(0, len(order_I), _BLOCK))
        return
    for number in range(-(-_GIVE_UP * max(count, _BLOCK) // _BLOCK)):
        yield prior.draw(numpy_rng(seed, "anchors", number), _BLOCK)


def _highest_cosine(block_BD: np.ndarray, other_ID: np.ndarray) -> np.ndarray:
    """Return the highest cosine of each row to any of the others, (B,); -1 where there are none. Memory: one tile."""
    best_B = np.full(len(block_BD), -1.0, np.float32)
    for start in range(0, len(other_ID), 8192):
        np.maximum(best_B, (block_BD @ other_ID[start : start + 8192].T).max(axis=1), out=best_B)
    return best_B


def _greedy(block_BD: np.ndarray, max_cosine: float, wanted: int) -> tuple[list[int], int]:
    """Return the rows, in order, that stay below `max_cosine` to every row taken before, at most `wanted`; and how many were refused."""
    cos_BB = block_BD @ block_BD.T
    taken: list[int] = []
    for row in range(len(block_BD)):
        if len(taken) == wanted:
            return taken, row - wanted
        if not taken or cos_BB[row, taken].max() < max_cosine:
            taken.append(row)
    return taken, len(block_BD) - len(taken)
