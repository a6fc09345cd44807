"""Where candidates for new identities come from, before anything too close to another is refused: one interface, five sources.

| source | law | what it is good for |
|---|---|---|
| `mixture` | the prior's mixture of Gaussians in the PCA space of real class centres | nearest to real people |
| `gaussian` | one Gaussian with the mean and covariance of the same centres (Vec2Face's source) | the published comparison |
| `uniform` | the unit sphere (IDiff-Face's source), of all numbers or of the prior's axes only | capacity; off the manifold of faces |
| `Pool` | anchors that were checked beforehand | publishing without real people |
| `Gallery` | given rows, e.g. embeddings of unconditionally generated faces (ADMIS) | on the manifold, no real person involved |

`mixture` and `gaussian` differ: the bundled mixture has four components, and one Gaussian is 5 nats worse on held-out people (prior.py).

Axes: B candidates of a block, I identities, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as count_up
from typing import Protocol

import numpy as np

from ..core.errors import UserError
from ..core.seeds import numpy_rng
from .centres import unit_rows
from .prior import AnchorPool, AnchorPrior


class AnchorSource(Protocol):
    """Candidates for identities.

    Attributes:
        dim: numbers of an anchor.
        size: how many candidates there are; None = no end.
    """

    dim: int
    size: int | None

    def blocks(self, seed: int, rows: int) -> Iterator[np.ndarray]:
        """Yield unit float32 blocks, (at most `rows`, dim); block k depends on (seed, k, rows) alone."""
        ...

    def gallery(self, seed: int, rows: int) -> np.ndarray:
        """Return at most `rows` unit rows that show where this source's faces lie, (G, dim); none where it knows of no faces."""
        ...


@dataclass(frozen=True, kw_only=True)
class Law:
    """A distribution of directions; draws without end.

    Attributes:
        draw: (generator, count) → unit float32 (count, dim).
        faces: whether its draws lie where faces do.
    """

    dim: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    faces: bool
    size: int | None = None

    def blocks(self, seed: int, rows: int) -> Iterator[np.ndarray]:
        """See `AnchorSource`."""
        for number in count_up():
            yield self.draw(numpy_rng(seed, "anchors", number), rows)

    def gallery(self, seed: int, rows: int) -> np.ndarray:
        """See `AnchorSource`."""
        return self.draw(numpy_rng(seed, "anchors", "gallery"), rows) if self.faces else np.empty((0, self.dim), np.float32)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The checked anchors of a prior without real people, in an order that the seed draws."""

    pool: AnchorPool

    @property
    def dim(self) -> int:
        """Numbers of an anchor."""
        return self.pool.anchor_ID.shape[1]

    @property
    def size(self) -> int:
        """Anchors in the pool."""
        return len(self.pool.anchor_ID)

    def blocks(self, seed: int, rows: int) -> Iterator[np.ndarray]:
        """See `AnchorSource`."""
        # Draws without replacement, each row with the chance of its share (exponential clocks: Efraimidis & Spirakis 2006, eq. 1).
        order_I = np.argsort(numpy_rng(seed, "anchors", "pool").exponential(size=self.size) / self.pool.share_I)
        return _in_blocks(self.pool.anchor_ID, order_I, rows)

    def gallery(self, seed: int, rows: int) -> np.ndarray:
        """See `AnchorSource`."""
        return next(self.blocks(seed, rows))


class Gallery:
    """Given embeddings in an order that the seed draws.

    Args:
        row_ID: one candidate a row, any length.
        source: what messages call them.

    Raises:
        UserError: rows that are NaN, infinite or zero.
    """

    def __init__(self, row_ID: np.ndarray, source: str) -> None:
        self._row_ID = unit_rows(row_ID, source)
        self.size, self.dim = self._row_ID.shape

    def blocks(self, seed: int, rows: int) -> Iterator[np.ndarray]:
        """See `AnchorSource`."""
        return _in_blocks(self._row_ID, numpy_rng(seed, "anchors", "gallery order").permutation(self.size), rows)

    def gallery(self, seed: int, rows: int) -> np.ndarray:
        """See `AnchorSource`."""
        return next(self.blocks(seed, rows))


def mixture(prior: AnchorPrior) -> Law:
    """Return the prior's own law."""
    return Law(dim=len(prior.mean_D), draw=prior.draw, faces=True)


def gaussian(prior: AnchorPrior) -> Law:
    """Return one Gaussian with the mean and full covariance of the centres the prior was fitted to; the centres are not needed."""
    return Law(dim=len(prior.mean_D), draw=prior.gaussian().draw, faces=True)


def uniform(dim: int) -> Law:
    """Return the uniform law on the unit sphere of `dim` numbers.

    Raises:
        UserError: fewer than two numbers.
    """
    if dim < 2:
        raise UserError(f"the number of dimensions is {dim}, expected 2 or more: on a line there are two directions")
    return Law(dim=dim, draw=lambda rng, count: _unit(rng.standard_normal((count, dim))), faces=False)


def uniform_within(prior: AnchorPrior) -> Law:
    """Return the uniform law on the unit sphere of the prior's axes, all directions in which faces differ (dlib: 81 of 128 numbers)."""
    axis_RD = prior.axis_RD
    return Law(dim=axis_RD.shape[1], draw=lambda rng, count: _unit(rng.standard_normal((count, len(axis_RD))) @ axis_RD), faces=False)


def _in_blocks(row_ID: np.ndarray, order_I: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    return (row_ID[order_I[start : start + rows]] for start in range(0, len(order_I), rows))


def _unit(point_BD: np.ndarray) -> np.ndarray:
    return (point_BD / np.linalg.norm(point_BD, axis=1, keepdims=True)).astype(np.float32)
