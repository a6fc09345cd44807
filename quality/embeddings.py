"""The door of the folder: embeddings and identities, checked once."""

from __future__ import annotations

import numpy as np

from ..core.check import check_unit_rows
from ..core.errors import UserError


def checked_embeddings(embed_ND: np.ndarray, identity_N: np.ndarray, *, name: str = "embeddings") -> tuple[np.ndarray, np.ndarray]:
    """Return contiguous float32 unit rows, (N, D), and int64 identities, (N,).

    Raises:
        UserError: NaN or rows that are not unit length (names the first), an empty set, or another number of identities.
    """
    embed_ND, identity_N = np.asarray(embed_ND), np.asarray(identity_N)
    if embed_ND.ndim != 2 or not len(embed_ND) or identity_N.shape != embed_ND.shape[:1]:
        raise UserError(f"{name} have shape {embed_ND.shape} and identities {identity_N.shape}; expected (images, dimensions) and one identity for each image")
    try:
        check_unit_rows(name, embed_ND)
    except ValueError as error:
        raise UserError(str(error)) from error
    return np.ascontiguousarray(embed_ND, np.float32), identity_N.astype(np.int64)
