"""`gallery nearest`: minted people beside the real people nearest to them, and how near strangers are anyway.

The picture shows real people: it is for whoever holds the data, and goes nowhere else. The chart and the figures hold counts alone.
Axes: I minted people, R real people, D embedding, C bins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.progress import track
from ..core.types import Embedder
from ..identity.centres import class_centres, embedder_of, read_centres
from ..identity.dataset import FaceDataset
from ..identity.shards import shards_of
from ..quality.leakage import matching_centres, nearest_people
from ..quality.scan import Scan, fetch, scan
from .captioned import Row, Tile, captioned, write_picture
from .charts import AMBER, BLUE, chart_axes, chart_bytes

BINS = np.round(np.arange(-0.2, 1.0001, 0.02), 2)
USUAL = 0.99
_BLOCK = 2048


def gallery_of_nearest(
    dataset: Path, real: Path, out: Path, embedder: Embedder, *, threshold: float, number: int = 8, shots: int = 4, chart_only: bool = False, figures: Path | None = None
) -> dict[str, Any]:
    """Compare the people of a minted set with real ones; write the picture of the nearest, or with `chart_only` the chart.

    Args:
        real: faces (a folder per identity, a zip of that, a dataset folder), or a file of centres, which gives a chart only.
        figures: JSON to write the figures to, from which `draw_nearest` makes the chart again.

    Raises:
        UserError: centres of another embedder, fewer than two real people, or a picture asked for with a file of centres.
    """
    centres_only = real.suffix in (".safetensors", ".npy")
    if centres_only and not chart_only:
        raise UserError(f"--real {real} holds centres, no faces to show; give the faces, or --chart-only")
    minted = scan(dataset, embedder)
    names_I, centre_ID = people_of(minted)
    known = None if centres_only else scan(real, embedder)
    real_names, real_RD = _real(real, known, embedder)
    if len(real_RD) < 2:
        raise UserError(f"{real} holds one person; expected two or more, to compare strangers with each other")
    real_RD = matching_centres(centre_ID, real_RD)
    nearest_I, cosine_I, _ = nearest_people(centre_ID, real_RD, threshold)
    among_R = nearest_others(real_RD)
    found = figures_of(cosine_I, among_R, threshold, minted_images=len(minted.names), embedder=embedder.name, generator=maker_of(dataset))
    if figures is not None:
        write_json(figures, found)
    if chart_only:
        draw_nearest(found, out)
    else:
        order = np.argsort(-cosine_I, kind="stable")[:number]
        write_picture(out, _beside(minted, known, names_I, real_names, [(int(row), int(nearest_I[row]), float(cosine_I[row])) for row in order], shots))
    return found | {"shows_real_people": not chart_only, "picture": str(out)}


def maker_of(dataset: Path) -> str | None:
    """Return who made a dataset of ours, "id3@<fingerprint of its job and weights>"; None for other sources."""
    if not dataset.is_dir() or not shards_of(dataset, "data"):
        return None
    return FaceDataset.open(dataset).table.column("generator")[0].as_py()


def people_of(read: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Return the names of a scan's people, sorted, and their centres (I, D)."""
    names_I, index_N = np.unique(np.array(read.identities), return_inverse=True)
    return names_I, class_centres(read.embed_ND, index_N)


def nearest_others(row_RD: np.ndarray) -> np.ndarray:
    """Return each unit row's cosine to the nearest OTHER row, float32 (R,), a block at a time."""
    best_R = np.empty(len(row_RD), np.float32)
    for start in track(range(0, len(row_RD), _BLOCK), "real people among themselves"):
        cos_BR = row_RD[start : start + _BLOCK] @ row_RD.T
        cos_BR[np.arange(len(cos_BR)), np.arange(start, start + len(cos_BR))] = -np.inf
        best_R[start : start + _BLOCK] = cos_BR.max(1)
    return best_R


def figures_of(cosine_I: np.ndarray, among_R: np.ndarray, threshold: float, **about: Any) -> dict[str, Any]:
    """Return what the chart needs and the page says: counts, no cosine of a named person. Values outside the bins count in the outermost.

    `usual`: the cosine below which 99 % of real people have their nearest other one; `nearer_than_usual`: minted people above it (1 % by chance). The match
    threshold alone misleads here: it belongs to single images and one comparison, while centres lie nearer and the nearest of thousands is an extreme.
    """
    parts, usual = {"minted_to_real": cosine_I, "real_to_real": among_R}, float(np.quantile(among_R, USUAL))
    return {
        "threshold": threshold, "usual": round(usual, 3), "nearer_than_usual": int((cosine_I > usual).sum()), **about, "bins": BINS.tolist(),
        **{name: {"people": len(values), "counts": np.histogram(np.clip(values, BINS[0], BINS[-1]), BINS)[0].tolist(), "median": round(float(np.median(values)), 3),
                  "highest": round(float(values.max()), 3), "at_threshold": int((values >= threshold).sum())} for name, values in parts.items()},
    }  # fmt: skip


def draw_nearest(found: dict[str, Any], out: Path) -> None:
    """Write the chart of figures that `figures_of` made, .png or .svg: where the nearest real person lies, for minted people and for real ones."""
    figure, axes = chart_axes()
    for name, colour, words in (("real_to_real", AMBER, "real people, nearest other real person"), ("minted_to_real", BLUE, "minted people, nearest real person")):
        part = found[name]
        axes.stairs(np.array(part["counts"]) / part["people"], found["bins"], fill=True, alpha=0.65, color=colour, label=f"{words} ({part['people']:,})")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    for place, words, style in ((found["threshold"], "match of two images", "-"), (found["usual"], "99 % of real", ":")):
        axes.axvline(place, ymax=0.76, color="#dc2626", linewidth=1.2, linestyle=style)
        axes.annotate(f"{words}, {place:.2f}", (place, 0.72 * axes.get_ylim()[1]), xytext=(4, 0), textcoords="offset points", color="#dc2626", fontsize=8)
    low = min(np.flatnonzero(found[name]["counts"])[0] for name in ("real_to_real", "minted_to_real"))
    axes.set(xlabel=f"cosine between the means of two people's images, by {found['embedder']}", ylabel="share of people", xlim=(found["bins"][low] - 0.02, 1.0))
    write_bytes(out, chart_bytes(figure, axes, out.suffix))


def _real(path: Path, known: Scan | None, embedder: Embedder) -> tuple[np.ndarray, np.ndarray]:
    if known is not None:
        return people_of(known)
    if (made := embedder_of(path)) not in (None, embedder.name):
        raise UserError(f"{path} was made with the embedder '{made}', but '{embedder.name}' judges here; make it again: facefoundry centres FACES --embedder {embedder.name} --out {path}")
    centre_RD = read_centres(path)
    return np.arange(len(centre_RD)).astype(str), centre_RD


def _beside(minted: Scan, known: Scan, names_I: np.ndarray, real_names: np.ndarray, pairs: list[tuple[int, int, float]], shots: int) -> np.ndarray:
    rows = []
    for mine, theirs, cosine in pairs:
        own, other = (_shots(read, names[number], shots) for read, names, number in ((minted, names_I, mine), (known, real_names, theirs)))
        gap = (Tile(image_HWC=None),) * (shots - len(own))
        rows.append(Row(tiles=(*own, *gap, *other), label=(f"minted {names_I[mine]}", f"cosine {cosine:.2f}"), border=shots))
    return captioned(rows, ["minted"] * shots + ["REAL"] * shots)


def _shots(read: Scan, name: str, shots: int) -> tuple[Tile, ...]:
    rows = [row for row, owner in enumerate(read.identities) if owner == name][:shots]
    return tuple(Tile(image_HWC=image) for image in fetch(read.source, [read.names[row] for row in rows]))
