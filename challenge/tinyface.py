"""TinyFace-type closed-set identification: probes against a gallery with distractors, rank 1, 5 and 20 (recognition.md §8.6).

    Gallery_Match/<person>_<n>.jpg  Gallery_Distractor/*.jpg  Probe/<person>_<n>.jpg
or one folder a person below gallery/ and probe/, and distractors in distractor/. Nothing but names decides who is who.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from ..core.errors import UserError
from ..core.types import Embedder
from ..identity.entries import IMAGE_SUFFIXES
from ..identity.trees import open_tree
from .embedding import Aligner, OnFailure, embed_images
from .identification import search

_ROLES = {"gallery_match": "gallery", "gallery": "gallery", "gallery_distractor": "distractor", "distractor": "distractor", "probe": "probe", "probes": "probe"}


def score_closed_set(embedder: Embedder, root: Path | str, *, ranks: tuple[int, ...] = (1, 5, 20), flip: bool = True, on_failure: OnFailure = "stop", aligner: Aligner | None = None) -> dict[str, float | int]:
    """Return the hit rate at each rank, and the sizes.

    Raises:
        UserError: no gallery or no probes, or a probe whose person is not in the gallery (the set would not be closed).
    """
    with open_tree(root) as tree:
        files = [(name, *placed) for name in tree.names() if (placed := _placed(PurePosixPath(name))) is not None]
        by_role = {role: [(name, person) for name, kind, person in files if kind == role] for role in ("probe", "gallery", "distractor")}
        if not by_role["probe"] or not by_role["gallery"]:
            raise UserError(f"{root} holds {len(by_role['gallery'])} gallery and {len(by_role['probe'])} probe images; expected folders Probe, Gallery_Match and Gallery_Distractor")
        known = {person: number for number, person in enumerate(sorted({person for _, person in by_role["gallery"]}))}
        strangers = [name for name, person in by_role["probe"] if person not in known]
        if strangers:
            raise UserError(f"{root}: {len(strangers)} probes show nobody of the gallery, e.g. {strangers[0]}; a closed set needs every probe's person in Gallery_Match")
        found = embed_images(embedder, [name for name, _, _ in files], tree.read, flip=flip, on_failure=on_failure, aligner=aligner)
    gallery = [*by_role["gallery"], *by_role["distractor"]]
    label_G = np.array([known[person] for _, person in by_role["gallery"]] + [-1] * len(by_role["distractor"]))
    label_Q = np.array([known[person] for _, person in by_role["probe"]])
    result = search(found.rows([name for name, _ in by_role["probe"]]), label_Q, found.rows([name for name, _ in gallery]), label_G)
    sizes: dict[str, float | int] = {"probes": len(label_Q), "gallery": len(by_role["gallery"]), "distractors": len(by_role["distractor"]), "people": len(known), "marked_images": len(found.marks)}
    return sizes | {f"rank_{rank}": result.hit_rate(rank) for rank in ranks}


def _placed(path: PurePosixPath) -> tuple[str, str] | None:
    """Return (role, person) of an image file; None for other files."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    for depth, part in enumerate(path.parts[:-1]):
        role = _ROLES.get(part.lower())
        if role:
            below = path.parts[depth + 1 :]
            return role, below[0] if len(below) > 1 else path.stem.rpartition("_")[0] or path.stem
    return None
