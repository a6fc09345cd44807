"""`gallery identities`: people by draws, any generator; each row with its mean cosine to the anchor. Axes: I identities, K draws."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .captioned import Row, Tile, captioned, write_picture
from .gallery_faces import open_people
from .spec import JobSpec


def gallery_of_identities(spec: JobSpec, out: Path, *, identities: int, draws: int) -> dict[str, Any]:
    """Write the grid of a job's first people and draws; return its figures.

    Images are the job's own: same anchors, same seeds. Before each row: the mean cosine of its images to the anchor ("id"), and among themselves ("own").
    """
    people = open_people(spec, identities)
    begin_s = time.monotonic()
    anchor_ND = np.repeat(people.anchor_ID, draws, axis=0)
    image_NHWC = people.faces(anchor_ND, [people.seed(row, column) for row in range(identities) for column in range(draws)])
    seconds = time.monotonic() - begin_s
    embed_ND = people.embed(image_NHWC)
    to_anchor_I = own_I = None
    if embed_ND is not None:
        embed_IKD = embed_ND.reshape(identities, draws, -1)
        to_anchor_I = np.einsum("ikd,id->i", embed_IKD, people.anchor_ID) / draws
        own_I = _mean_pair_cosine(embed_IKD) if draws > 1 else None
    rows = [Row(tiles=tuple(Tile(image_HWC=face) for face in image_NHWC[row * draws : (row + 1) * draws]), label=_label(row, to_anchor_I, own_I)) for row in range(identities)]
    write_picture(out, captioned(rows))
    return {
        "generator": people.generator.name, "identities": identities, "draws": draws, "images_per_s": round(len(image_NHWC) / seconds, 2), "picture": str(out),
        "anchor_cosine": None if to_anchor_I is None else [round(float(value), 3) for value in to_anchor_I],
        "own_cosine": None if own_I is None else [round(float(value), 3) for value in own_I],
    }  # fmt: skip


def _mean_pair_cosine(embed_IKD: np.ndarray) -> np.ndarray:
    """Mean cosine over the pairs of an identity's images, (I,): |sum|² = K + 2 Σ of the pairs."""
    draws = embed_IKD.shape[1]
    return ((embed_IKD.sum(1) ** 2).sum(1) - draws) / (draws * (draws - 1))


def _label(row: int, to_anchor_I: np.ndarray | None, own_I: np.ndarray | None) -> tuple[str, ...]:
    lines = [f"person {row + 1}"]
    if to_anchor_I is not None:
        lines.append(f"id   {to_anchor_I[row]:.2f}")
    if own_I is not None:
        lines.append(f"own {own_I[row]:.2f}")
    return tuple(lines)
