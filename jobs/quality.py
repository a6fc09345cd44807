"""Wires a quality training: faces and their damaged copies through a recogniser, labels from its embeddings, then the regressor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..identity.sources import Faces
from ..quality.degrade import degrade
from ..quality.features import Features, TorchEyes
from ..quality.regressor import QualityRecipe, quality_labels, train_quality


def train_quality_on(recipe: QualityRecipe, faces: Faces, embedder: TorchEyes, out: Path) -> Path:
    """Label the faces and their damaged copies, train, and return the weights' file.

    Faces of people with one image are left out: they have no label.
    """
    image_NHWC, identity_N = first_images(faces, recipe.most_per_identity, least=2)
    read = Features(embedder)
    clean = read(image_NHWC)
    damaged = [read(degrade(image_NHWC, kinds=recipe.damages, seed=recipe.seed, copy=copy).image_NHWC) for copy in range(recipe.copies)]
    label_N = quality_labels(recipe, clean.unit_ND, identity_N, damaged=tuple(rows.unit_ND for rows in damaged))
    facts = {"faces": len(image_NHWC), "identities": len(np.unique(identity_N))}
    return train_quality(recipe, np.concatenate([rows.row_NK for rows in (clean, *damaged)]), label_N, out, facts=facts)


def first_images(faces: Faces, most: int, *, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and identities of the first `most` images of each identity that has `least` or more, in their order."""
    order_N = np.argsort(faces.identity_N, kind="stable")
    sorted_N = faces.identity_N[order_N]
    place_N = np.empty(len(faces), np.int64)
    place_N[order_N] = np.arange(len(faces)) - np.searchsorted(sorted_N, sorted_N, "left")
    kept_N = (place_N < most) & (np.bincount(faces.identity_N)[faces.identity_N] >= least)
    return faces.image_NHWC[kept_N], faces.identity_N[kept_N]
