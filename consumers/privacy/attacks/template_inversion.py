"""Template → face with our own diffusion generators (attacks A5 and A7): find the identity embedding, then draw a face of it.

The embedding comes from `embedding_map` (keys unknown), or, where a leaked key allows it, from undoing the rotation. The generator is conditioned on dlib's
space: embeddings of another recogniser go through a map first. Axes: B faces, G groups, C numbers of a group, D embedding.
"""

from __future__ import annotations

import numpy as np

from ....core.check import check
from ....core.images import to_uint8
from ....core.progress import track
from ....core.seeds import derive_seed
from ....core.types import Generator
from ..slerp import SlerpConfig, unslerp
from ..slerpface import Rows
from .linkage import upright_part

BATCH = 32


def draw_faces(embed_BD: np.ndarray, generator: Generator, *, seed: int = 0) -> np.ndarray:
    """Return one face of each embedding, uint8 (B, 112, 112, 3).

    Raises:
        ValueError: embeddings of another length than the generator's anchors.
    """
    check("embed_BD", embed_BD, f"B {generator.anchor_dim}")
    unit_BD = (embed_BD / np.linalg.norm(embed_BD, axis=1, keepdims=True)).astype(np.float32)
    seeds = [derive_seed(seed, "template inversion", n) for n in range(len(unit_BD))]
    parts = [to_uint8(generator.generate(unit_BD[start : start + BATCH], seeds[start : start + BATCH]).image_BCHW) for start in track(range(0, len(unit_BD), BATCH), "drawing faces")]
    return np.concatenate(parts)


def undo_with_key(rows: Rows, config: SlerpConfig) -> np.ndarray:
    """Estimate the groups behind SlerpFace templates whose keys leaked: directions times their weights, float64 (B, G, C).

    Where nothing was dropped the inversion is exact. Elsewhere the part upright on the key is the feature's on the kept places, for a feature about at
    right angles to the key, as nearly all are in 16 dimensions; the dropped numbers are taken as 0.
    """
    weight_BG = np.linalg.norm(rows.template_BGC.astype(np.float64), axis=2)
    whole_BG1 = rows.kept_BGC.all(axis=2, keepdims=True)
    exact_BGC = unslerp(rows.template_BGC, rows.key_BGC, config.alpha - weight_BG)
    seen_BGC = upright_part(rows)
    seen_BGC = seen_BGC / np.maximum(np.linalg.norm(seen_BGC, axis=2, keepdims=True), 1e-12)
    # A unit feature has only its share of length on the numbers that were kept.
    share_BG1 = np.sqrt(rows.kept_BGC.mean(axis=2, keepdims=True))
    return np.where(whole_BG1, exact_BGC, seen_BGC * share_BG1) * weight_BG[..., None]


def to_space(known_NS: np.ndarray, wanted_ND: np.ndarray, new_BS: np.ndarray, *, ridge: float = 1e-2) -> np.ndarray:
    """Map rows into another embedding space by the ridge regression that fits the attacker's own rows best, (B, D), not normalised."""
    known_NS, new_BS = known_NS.reshape(len(known_NS), -1), new_BS.reshape(len(new_BS), -1)
    gram_SS = known_NS.T @ known_NS
    gram_SS += ridge * np.trace(gram_SS) / len(gram_SS) * np.eye(len(gram_SS))
    return new_BS @ np.linalg.solve(gram_SS, known_NS.T @ wanted_ND)
