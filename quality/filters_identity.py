"""Filters that look at whole identities: similarity to the own centre, separation between identities, balance.

Axes: N images, I identities.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from ..core.config import Config
from ..identity.centres import class_centres
from .consistency import centre_cosines
from .filters import FILTERS, FilterInput, FilterResult
from .groups import rows_by_identity
from .separability import greedy_unique


@FILTERS.register("centre_similarity")
class CentreSimilarityFilter(Config):
    """Set aside images outside a band of cosines to the centre of their identity (of the rows left, the image among them).

    Below: another person, or a failure. Above: images that teach nothing new; CemiFace found middling similarity the most useful.
    """

    below: float | None = Field(None, ge=-1, le=1)
    above: float | None = Field(None, ge=-1, le=1)

    @model_validator(mode="after")
    def _a_band(self) -> Self:
        if self.below is None and self.above is None:
            raise ValueError("expected 'below', 'above' or both")
        if self.below is not None and self.above is not None and self.below > self.above:
            raise ValueError("'below' is larger than 'above': no image would be kept")
        return self

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(below=0.5)

    def apply(self, data: FilterInput) -> FilterResult:
        """Compare each image with the centre of its identity."""
        index_N = np.unique(data.identity_N, return_inverse=True)[1]
        cos_N = centre_cosines(data.embed_ND, class_centres(data.embed_ND, data.identity_N), index_N)
        return FilterResult(reasons=[self._reason(cos) for cos in cos_N.tolist()], scores={"centre_similarity": cos_N})

    def _reason(self, cos: float) -> str | None:
        if self.below is not None and cos < self.below:
            return f"centre_similarity {cos:.3f} < {self.below:.3f}"
        return f"centre_similarity {cos:.3f} > {self.above:.3f}" if self.above is not None and cos > self.above else None


@FILTERS.register("identity_separation")
class IdentitySeparationFilter(Config):
    """Set aside whole identities whose centre comes too close to that of an accepted one: greedy packing in the order of the identities."""

    above: float = Field(gt=-1, le=1)

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(above=0.4)

    def apply(self, data: FilterInput) -> FilterResult:
        """Pack the centres of the identities."""
        name_I, index_N = np.unique(data.identity_N, return_inverse=True)
        centre_ID = class_centres(data.embed_ND, data.identity_N)
        owner_I = greedy_unique(centre_ID, self.above)
        cos_I = np.einsum("id,id->i", centre_ID, centre_ID[owner_I])  # -1 picks the last row: not read
        reason_I = [None if owner < 0 else f"identity_separation {cos:.3f} >= {self.above:.3f}: identity {name_I[row]} collides with identity {name_I[owner]}" for row, (owner, cos) in enumerate(zip(owner_I.tolist(), cos_I.tolist()))]
        return FilterResult(reasons=[reason_I[index] for index in index_N], refused=frozenset(name_I[owner_I >= 0].tolist()))


@FILTERS.register("balance")
class BalanceFilter(Config):
    """Give identities about equal weight: keep the first `most` images of each, and set aside identities with fewer than `least`."""

    most: int | None = Field(None, ge=1)
    least: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.most is None and self.least is None:
            raise ValueError("expected 'most', 'least' or both")
        if self.most is not None and self.least is not None and self.least > self.most:
            raise ValueError("'least' is larger than 'most': no identity would be kept")
        return self

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(most=4)

    def apply(self, data: FilterInput) -> FilterResult:
        """Count the rows of each identity."""
        reasons: list[str | None] = [None] * len(data)
        for rows in rows_by_identity(data.identity_N):
            identity, count = int(data.identity_N[rows[0]]), len(rows)
            if self.least is not None and count < self.least:
                for row in rows:
                    reasons[row] = f"balance {count} < {self.least}: identity {identity} has too few images"
            elif self.most is not None:
                for row in rows[self.most :]:
                    reasons[row] = f"balance: identity {identity} has its {self.most} images"
        return FilterResult(reasons=reasons)
