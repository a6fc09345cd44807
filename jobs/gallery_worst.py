"""`gallery worst`: the faces a set should be ashamed of, each with the reason. Axes: N images, I identities, D embedding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.types import AttributePredictor, Embedder
from ..identity.centres import class_centres
from ..identity.dataset import FaceDataset
from ..identity.shards import shards_of
from ..quality.scan import Scan, fetch, scan
from ..quality.sdd_fiqa import sdd_fiqa
from .captioned import BLUE, RED, Row, Tile, captioned, write_picture

TURNED_DEG, ODD, FAR = 20.0, 1.5, 0.25
"""Yaw from which a face is called turned; deviations from the set's median (robust ones) from which its light is called odd; the share of the set that is called far
from its own, and how much nearer to its own than to its anchor a face is whose whole person is called off."""

_LIGHT_WORDS = {("brightness", -1): "dark", ("brightness", 1): "bright", ("contrast", -1): "flat", ("contrast", 1): "harsh contrast", ("left_right", 1): "lit from the left", ("left_right", -1): "lit from the right"}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How every face of a set stands to its own person and to the others.

    Attributes:
        quality_N: SDD-FIQA labels 0..100, relative to the set; NaN for people of one image.
        own_N: cosine to the centre of its person's other images; NaN for people of one image.
        home_N: cosine to the anchor it was made from; `own_N` where there are no anchors.
        other_N, stranger_N: cosine to the nearest other person's centre, and that person's number.
    """

    names_I: tuple[str, ...]
    index_N: np.ndarray
    quality_N: np.ndarray
    own_N: np.ndarray
    home_N: np.ndarray
    other_N: np.ndarray
    stranger_N: np.ndarray


def gallery_of_worst(dataset: Path, out: Path, embedder: Embedder, *, number: int, per_person: int = 1, attributes: AttributePredictor | None = None) -> dict[str, Any]:
    """Write two rows of faces, lowest SDD-FIQA and lowest cosine to the anchor, and below each the same person's best.

    Args:
        per_person: at most so many faces of one person in a row, lest the worst person fill it; 0 = any number.
        attributes: predicts "yaw_deg" for the reasons; None leaves pose out.

    Returns:
        `quality` and `anchor`: for each shown face its name, value and reason; `against`: "anchor" or "centre".

    Raises:
        UserError: no usable face, or one person only.
    """
    read = scan(dataset, embedder)
    anchor_ND = anchors_of(dataset, read)
    standing = measure(read, anchor_ND)
    rows, found = [], {}
    measures = {"quality": ("Lowest SDD-FIQA", standing.quality_N, "{:.0f}"), "anchor": (f"Lowest cosine to the {'anchor' if anchor_ND is not None else 'own centre'}", standing.home_N, "{:.2f}")}
    for name, (title, value_N, style) in measures.items():
        worst = lowest(value_N, number, standing.index_N, per_person)
        best = [best_of_person(value_N, standing.index_N, row) for row in worst]
        image_NHWC = fetch(read.source, [read.names[row] for row in (*worst, *best)])
        reasons = _reasons(read, standing, worst, image_NHWC[: len(worst)], attributes)
        rows += _rows(standing, title, value_N, style, worst, best, image_NHWC, reasons)
        found[name] = [{"face": read.names[row], "value": round(float(value_N[row]), 3), "reason": reason} for row, reason in zip(worst, reasons)]
    write_picture(out, captioned(rows))
    return {"images": len(read.names), "people": len(standing.names_I), "against": "centre" if anchor_ND is None else "anchor", **found, "picture": str(out)}


def measure(read: Scan, anchor_ND: np.ndarray | None) -> Standing:
    """Return the standing of every scanned face.

    Raises:
        UserError: fewer than two people.
    """
    names_I, index_N = np.unique(np.array(read.identities), return_inverse=True)
    if len(names_I) < 2:
        raise UserError(f"{read.source} holds one person only; SDD-FIQA compares a face with those of other people: give a set of two or more")
    cosine_NI = read.embed_ND @ class_centres(read.embed_ND, index_N).T
    rows = np.arange(len(index_N))
    own_N = cosine_to_others_of_person(read.embed_ND, index_N)
    home_N = own_N if anchor_ND is None else (read.embed_ND * anchor_ND).sum(1)
    cosine_NI[rows, index_N] = -np.inf
    stranger_N = cosine_NI.argmax(1)
    return Standing(names_I=tuple(map(str, names_I)), index_N=index_N, quality_N=sdd_fiqa(read.embed_ND, index_N), own_N=own_N, home_N=home_N, other_N=cosine_NI[rows, stranger_N], stranger_N=stranger_N)


def anchors_of(dataset: Path, read: Scan) -> np.ndarray | None:
    """Return the anchor of each scanned face, float32 (N, D); None where the set has none of the embedder's width."""
    if not dataset.is_dir() or not shards_of(dataset, "data"):
        return None
    table = FaceDataset.open(dataset).table
    anchor_of = dict(zip(table.column("face_id").to_pylist(), table.column("anchor").to_pylist()))
    found = [anchor_of.get(name) for name in read.names]
    if any(anchor is None or len(anchor) != read.embed_ND.shape[1] for anchor in found):
        return None
    return np.array(found, np.float32)


def cosine_to_others_of_person(embed_ND: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """Return each row's cosine to the mean of its person's other rows, (N,); NaN for people of one image."""
    sum_ID = np.zeros((int(index_N.max()) + 1, embed_ND.shape[1]))
    np.add.at(sum_ID, index_N, embed_ND)
    rest_ND = sum_ID[index_N] - embed_ND
    length_N = np.linalg.norm(rest_ND, axis=1)
    return np.where(length_N > 1e-6, (rest_ND * embed_ND).sum(1) / np.maximum(length_N, 1e-6), np.nan)


def lowest(value_N: np.ndarray, number: int, index_N: np.ndarray, per_person: int = 0) -> list[int]:
    """Return the rows of the lowest values, lowest first, at most `per_person` of one person (0 = any number); NaN left out."""
    rows: list[int] = []
    taken: Counter = Counter()
    for row in np.argsort(value_N, kind="stable")[: int(np.isfinite(value_N).sum())].tolist():
        if len(rows) == number:
            break
        if not per_person or taken[index_N[row]] < per_person:
            rows.append(row)
            taken[index_N[row]] += 1
    return rows


def best_of_person(value_N: np.ndarray, index_N: np.ndarray, row: int) -> int:
    """Return the row of the highest value among the images of that row's person."""
    return int(np.nanargmax(np.where(index_N == index_N[row], value_N, np.nan)))


def _reasons(read: Scan, standing: Standing, worst: list[int], image_NHWC: np.ndarray, attributes: AttributePredictor | None) -> list[str]:
    """What sets each face apart, the first that holds: nearer to somebody else than to its own, turned away, odd light, far from its own; else that its whole person missed the anchor."""
    centre_L = np.median(read.light_NL, axis=0)
    spread_L = 1.4826 * np.median(np.abs(read.light_NL - centre_L), axis=0) + 1e-6
    yaw_N = np.full(len(worst), np.nan) if attributes is None else attributes(image_NHWC)[:, attributes.names.index("yaw_deg")]
    return [_reason(standing, row, (read.light_NL[row] - centre_L) / spread_L, float(yaw)) for row, yaw in zip(worst, yaw_N)]


def _reason(standing: Standing, row: int, odd_L: np.ndarray, yaw_deg: float) -> str:
    from ..quality.image_statistics import LIGHT

    if standing.other_N[row] > standing.own_N[row]:
        return f"like {_short(standing.names_I[standing.stranger_N[row]])}"
    if abs(yaw_deg) >= TURNED_DEG:
        return f"turned {abs(yaw_deg):.0f}°"
    odd = [(abs(value), _LIGHT_WORDS[name, int(np.sign(value))]) for name, value in zip(LIGHT, odd_L) if abs(value) >= ODD and (name, int(np.sign(value))) in _LIGHT_WORDS]
    if odd:
        return max(odd)[1]
    if standing.own_N[row] <= np.nanquantile(standing.own_N, FAR):
        return "far from its own"
    # Its person's other images look like it: what failed is the person, not the image.
    return "whole person off" if standing.home_N[row] < standing.own_N[row] - FAR else "no plain reason"


def _short(name: str) -> str:
    """A person's name in few letters; numbers without their zeros."""
    return name.lstrip("0")[:10] or "0"


def _beside(standing: Standing, row: int) -> str:
    """Cosine to the own others, and to the nearest other person."""
    return f"own {standing.own_N[row]:.2f} / {standing.other_N[row]:.2f}".replace("0.", ".")


def _rows(standing: Standing, title: str, value_N: np.ndarray, style: str, worst: list[int], best: list[int], image_NHWC: np.ndarray, reasons: list[str]) -> list[Row]:
    low = tuple(Tile(image_HWC=image, caption=(style.format(value_N[row]), reason, _beside(standing, row)), frame=RED) for image, row, reason in zip(image_NHWC, worst, reasons))
    high = tuple(Tile(image_HWC=image, caption=(style.format(value_N[row]),), frame=BLUE) for image, row in zip(image_NHWC[len(worst) :], best))
    return [Row(tiles=low, label=("worst",), title=title, space=8), Row(tiles=high, label=("same", "person's", "best"))]
