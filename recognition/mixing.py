"""A second source of training faces beside the first, e.g. synthetic beside real, each with a stated share of every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from ..core.config import Config
from ..core.errors import UserError
from ..identity.sources import Faces, load_faces


class MixConfig(Config):
    """The second source.

    Attributes:
        data: aligned faces as `load_faces` takes them. Its identities are further classes: nobody is in both sources, even under the same name.
        share: its share of the head's rows of a step, rounded to whole rows; an epoch is one pass of the first source whatever the share.
    """

    data: Path
    share: float = Field(0.5, gt=0, lt=1)


def source_counts(mix: MixConfig | None, rows: int) -> list[int]:
    """Return how many of a step's rows come from the first source, and from the second where there is one.

    Raises:
        UserError: the share leaves a source without a row.
    """
    if mix is None:
        return [rows]
    second = round(rows * mix.share)
    if not 0 < second < rows:
        raise UserError(f"mix.share {mix.share} of {rows} rows is {second}; each source needs at least one row of a step: choose another share or a larger 'batch'")
    return [rows - second, second]


def with_second(faces: Faces, mix: MixConfig) -> Faces:
    """Return both sources as one, the first one's rows first; paths get the source in front."""
    second = load_faces(mix.data)
    return Faces(
        image_NHWC=np.concatenate((faces.image_NHWC, second.image_NHWC)),
        identity_N=np.concatenate((faces.identity_N, second.identity_N + len(faces.names))).astype(np.int32),
        names=tuple(f"first/{name}" for name in faces.names) + tuple(f"second/{name}" for name in second.names),
        paths=tuple(f"first/{path}" for path in faces.paths) + tuple(f"second/{path}" for path in second.paths),
        failed=(*faces.failed, *second.failed),
    )
