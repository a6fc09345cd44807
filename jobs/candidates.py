"""Candidates for identities from faces of nobody: generate with the empty context, embed, thin (ADMIS; generators.md §2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.progress import bar
from ..core.seeds import derive_seed
from ..core.types import Embedder
from ..generators.sampling import SamplerConfig
from ..generators.unconditional import unconditional_faces
from ..identity.separation import greedy_rows

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Embeddings that stay apart.

    Attributes:
        row_ID: unit float32, (I, D), in the order they were made.
        crowded: how many came too near an earlier one.
        median: median cosine of all pairs that were made (of the first 2,000 rows): 0 for unrelated people, higher where the faces are alike.
    """

    row_ID: np.ndarray
    crowded: int
    median: float


def embed_nobodies(generator: Any, embedder: Embedder, count: int, seed: int, *, max_cosine: float, settings: SamplerConfig | None = None) -> Candidates:
    """Make `count` faces without an identity, embed them, and keep, in order, those below `max_cosine` to all kept before."""
    parts = []
    with bar("faces of nobody", count) as step:
        for first in range(0, count, _BATCH):
            numbers = range(first, min(first + _BATCH, count))
            image_BCHW = unconditional_faces(generator, [derive_seed(seed, "nobody", number) for number in numbers], settings)
            with torch.inference_mode():
                parts.append(embedder(image_BCHW.cpu()).cpu().numpy().astype(np.float32))
            step(len(numbers))
    embed_ND = np.concatenate(parts)
    kept = greedy_rows(embed_ND, max_cosine)
    some_ND = embed_ND[:2000]
    pair_P = (some_ND @ some_ND.T)[np.triu_indices(len(some_ND), 1)]
    return Candidates(row_ID=embed_ND[kept], crowded=count - len(kept), median=float(np.median(pair_P)) if pair_P.size else float("nan"))
