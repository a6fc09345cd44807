"""New identities: unit directions drawn from the prior of real ones, apart from each other and from every real person.

Axes: I identities, B candidates of a block, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..core.progress import bar
from ..core.seeds import numpy_rng
from .prior import AnchorPrior, fit_prior

__all__ = ["LEAK_COSINE", "MAX_COSINE", "AnchorPrior", "AnchorSample", "draw_anchors", "fit_prior", "sample_anchors"]

LEAK_COSINE = 0.58
"""Cosine that one of 1000 pairs of different people reaches (centred dlib space, all 86.8 M pairs of train112: 0.578; image to foreign centre: 0.582)."""

MAX_COSINE = 0.45
"""Below the same threshold by a margin: faces made from an anchor scatter around it, and their centres must stay apart (FMR = 1e-2: 0.441)."""

_BLOCK = 1024
_GIVE_UP = 400


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

    Candidates come in blocks with their own seeds and are taken greedily in order: the first anchors do not depend on `count`.

    Raises:
        UserError: a count below 1, limits outside (-1, 1], or limits so tight that the space is full.
    """
    if count < 1:
        raise UserError(f"the number of identities is {count}, expected 1 or more")
    for name, limit in (("max_cosine", max_cosine), ("leak_cosine", leak_cosine)):
        if not -1.0 < limit <= 1.0:
            raise UserError(f"{name} is {limit}, expected a cosine above -1 and up to 1")
    anchor_ID = np.empty((count, len(prior.mean_D)), np.float32)
    found = drawn = leaked = crowded = 0
    with bar("identities", count) as step:
        while found < count:
            if drawn >= _GIVE_UP * max(count, _BLOCK):
                raise UserError(
                    f"only {found} of {count} identities fit: of {drawn} candidates {leaked} came within {leak_cosine} of a real person and {crowded} within "
                    f"{max_cosine} of an earlier one; raise max_cosine or leak_cosine, or ask for fewer identities"
                )
            block_BD = prior.draw(numpy_rng(seed, "anchors", drawn // _BLOCK), _BLOCK)
            safe_BD = block_BD[_highest_cosine(block_BD, prior.real_ID) < leak_cosine]
            apart_BD = safe_BD[_highest_cosine(safe_BD, anchor_ID[:found]) < max_cosine]
            chosen, refused = _greedy(apart_BD, max_cosine, count - found)
            anchor_ID[found : found + len(chosen)] = apart_BD[chosen]
            found += len(chosen)
            drawn += _BLOCK
            leaked += _BLOCK - len(safe_BD)
            crowded += len(safe_BD) - len(apart_BD) + refused
            step(len(chosen))
    return AnchorSample(anchor_ID=anchor_ID, drawn=drawn, leaked=leaked, crowded=crowded)


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
