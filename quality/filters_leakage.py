"""The filter that sets aside whole identities who resemble a real person; `leakage` in filters.py looks at single images.

Axes: N images, I identities.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from typing_extensions import Self

from ..core.config import Config
from ..core.errors import UserError
from ..identity.centres import class_centres
from .filters import FILTERS, FilterInput, FilterResult
from .leakage import matching_centres, nearest_people


@FILTERS.register("leakage_identity")
class LeakageIdentityFilter(Config):
    """Set aside identities whose centre (of the rows left) has a cosine above a limit to a real person's centre.

    A centre averages the noise of single images away: a person may be met by the mean of faces none of which meets them alone (Vec2Face#16).
    """

    above: float = Field(gt=-1, le=1)

    @classmethod
    def tiny(cls) -> Self:
        """Settings for tests."""
        return cls(above=0.9)

    def apply(self, data: FilterInput) -> FilterResult:
        """Find the real centre nearest to each identity's centre."""
        if data.real_centres is None:
            raise UserError("the leakage_identity filter needs centres of real people, and none were given (none ship); make them with identity.centres.write_centres or remove the filter")
        name_I, index_N = np.unique(data.identity_N, return_inverse=True)
        near_I, cos_I, _ = nearest_people(class_centres(data.embed_ND, data.identity_N), matching_centres(data.embed_ND, data.real_centres), self.above)
        reason_I = [f"leakage_identity {cos:.3f} > {self.above:.3f}: the mean of identity {name} and real centre {near}" if cos > self.above else None for name, cos, near in zip(name_I, cos_I.tolist(), near_I.tolist())]
        return FilterResult(reasons=[reason_I[index] for index in index_N], refused=frozenset(name_I[cos_I > self.above].tolist()), scores={"leakage_identity": cos_I[index_N]})
