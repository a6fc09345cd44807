"""What `facefoundry inspect` does: read a set once, measure it, fetch the pictures worth looking at, write one page and one JSON file.

Axes: N images, I identities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_bytes, write_json
from ..core.types import Embedder
from ..identity.dataset import FaceDataset
from ..identity.shards import shards_of
from ..quality.coverage import EXPRESSION_RANGES, FITTED_LIGHT_RANGES, LIGHT_RANGES, POSE_RANGES, coverages
from ..quality.inspect import Inspection, InspectSettings, inspect_embeddings, summary
from ..quality.scan import Scan, fetch, scan
from .charts import curve, pair_charts, profile
from .inspect_looks import Looks, measure_looks
from .page import Picture, picture_uri, render

REPORT = "report.html"
EXTREMES, DIVERSE, PAIRS, SHOTS, TABLE = 12, 8, 8, 6, 500
"""How many images of lowest and highest quality, identities, pairs, images of each of them, and lines of the table the page shows."""

FIGURES = {
    "auc": ("AUC, mated against non-mated", "1 = perfect, 0.5 = chance"),
    "eer": ("equal error rate", "FMR = FNMR"),
    "fmr100": ("FMR100: FNMR at FMR = 1 %", ""),
    "fmr1000": ("FMR1000: FNMR at FMR = 0.1 %", ""),
    "fdr": ("FDR, Fisher discriminant ratio", "(μG − μI)² / (σG² + σI²)"),
    "d_prime": ("d′", "distance of the means over the root of the mean variance"),
    "consistency": ("C, intra-class consistency", "DCFace: share of images that match their identity's centre"),
    "unique_greedy": ("U, uniqueness, greedy", "DCFace: identities no accepted earlier one matches, as a share"),
    "unique_literal": ("U, uniqueness, literal", "identities no earlier one matches, as a share"),
    "nearest_centre_mean": ("separability: cosine to the nearest other centre, mean", ""),
    "nearest_centre_q999": ("… 99.9 % of identities stay below", ""),
    "nearest_centre_max": ("… maximum", ""),
    "identity_cosine": ("identity consistency: mean cosine within an identity", "near 1 = copies"),
    "centre_cosine": ("similarity to the centre, mean", "CemiFace: middling similarity teaches most"),
    "dispersion": ("dispersion within an identity", "tr Cov of the embeddings"),
    "vendi": ("Vendi score of the centres", "effective number of identities"),
    "quality_mean": ("SDD-FIQA, mean", "0 to 100, relative to this set"),
    "perceptual": ("intra-class perceptual distance", "form of LPIPS, other network: see below"),
    "style_dispersion": ("style dispersion within an identity", "tr Cov of pooled features"),
}
"""Name → words, a note; the formulas stand in the docstrings of `quality`."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table of identities."""

    name: str
    images: int
    mated: float
    consistency: float
    dispersion: float
    nearest: float
    neighbour: str
    quality: float


def inspect_dataset(path: Path, out: Path, embedder: Embedder, settings: InspectSettings = InspectSettings(), *, looks: Any = None, real_RD: np.ndarray | None = None, reference: Path | None = None) -> dict[str, Any]:
    """Measure a data set, write `report.html` and `report.json` in `out`, and return what the JSON holds.

    Args:
        looks: an `inspect_looks.LooksTools`, or None to measure embeddings and light only.
        real_RD: centres of real people in the embedder's space, for leakage.
        reference: another set (real faces) for FID, KID, recall and ratios; needs `looks`.

    Raises:
        UserError: no usable face, or an `out` that cannot be written.
    """
    read = scan(path, embedder)
    found = inspect_embeddings(read.embed_ND, np.array(read.identities), settings, hash_N=read.hash_N, real_RD=real_RD)
    seen = None if looks is None else measure_looks(read, found.index_N, looks, embedder, seed=settings.seed, reference=reference)
    values = _values(path, read, found, seen, embedder, settings)
    write_bytes(out / REPORT, render("inspect.html.j2", _page_values(read, found, seen, values)))
    write_json(out / "report.json", _finite({**values, "identities_table": [asdict(line) for line in _lines(found)]}))
    return values


def _values(path: Path, read: Scan, found: Inspection, seen: Looks | None, embedder: Embedder, settings: InspectSettings) -> dict[str, Any]:
    values = summary(found)
    light = coverages(read.light_NL, found.index_N, len(found.labels_I), LIGHT_RANGES)
    values |= {
        "dataset": str(path), "embedder": embedder.name, "threshold": settings.threshold, "seed": settings.seed, "draws": settings.draws,
        "failed": len(read.failed), "failures": [list(item) for item in read.failed[:50]], "light_proxies": {name: asdict(item) for name, item in light.items()},
        "dropped": _dropped(path),
    }  # fmt: skip
    if seen is not None:
        values["figures"] |= {name: {"value": item.value, "low": item.low, "high": item.high} for name, item in seen.figures.items()}
        values |= {"feature_network": seen.network, "feature_images": seen.images, "reference": seen.reference, "attributes": {name: asdict(item) for name, item in seen.attributes.items()}}
    return values


def _by_kind(attributes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Coverages of pose, expression and light apart, those that were measured."""
    kinds = {"pose": POSE_RANGES, "expression": EXPRESSION_RANGES, "light": FITTED_LIGHT_RANGES}
    return {kind: found for kind, ranges in kinds.items() if (found := {name: attributes[name] for name in ranges if name in attributes})}


def _dropped(path: Path) -> dict[str, Any] | None:
    """What the filters of a dataset of ours set aside; None for other sources."""
    if not path.is_dir() or not shards_of(path, "data"):
        return None
    kept, rejected = len(FaceDataset.open(path)), FaceDataset.open(path, "rejected").table.column("dropped").to_pylist()
    reasons = Counter(reason.split()[0].rstrip(":") for reason in rejected if reason)
    return {"made": kept + len(rejected), "kept": kept, "reasons": dict(reasons.most_common())}


def _page_values(read: Scan, found: Inspection, seen: Looks | None, values: dict[str, Any]) -> dict[str, Any]:
    wanted = _Wanted(read, found)
    names = found.labels_I.astype(str)
    lines = sorted(_lines(found), key=lambda line: -line.nearest if np.isfinite(line.nearest) else 2.0)
    worst, best = _by_quality(found)
    pairs = [(names[left], names[right], cos, wanted.of_identity(left, SHOTS), wanted.of_identity(right, SHOTS)) for left, right, cos in found.separation.closest[:PAIRS]]
    diverse = [(names[k], found.table["dispersion"][k], wanted.of_identity(k, 2 * SHOTS)) for k in _diverse(found)]
    twice = [(pair, wanted.of([pair.earlier, pair.row])) for pair in (found.duplicates or ())[:EXTREMES]]
    nearest = [] if found.leakage is None else [(int(row), float(found.leakage.cosine_N[row]), int(found.leakage.nearest_N[row])) for row in np.argsort(-found.leakage.cosine_N, kind="stable")[:EXTREMES]]
    leaks = [(cos, person, wanted.of([row])) for row, cos, person in nearest]
    wanted.of([*worst, *best])
    pictures = wanted.fetch()
    show = lambda rows: [pictures[row] for row in rows]  # noqa: E731
    return {
        "values": values, "figures": [(words, note, values["figures"][name]) for name, (words, note) in FIGURES.items() if name in values["figures"]],
        "charts": pair_charts(found.histogram), "curve": curve(found.curve) if len(found.curve) > 1 else "", "profile": profile(found.centre_cosine_N),
        "worst": [(found.quality_N[row], pictures[row]) for row in worst], "best": [(found.quality_N[row], pictures[row]) for row in best],
        "pairs": [(left, right, cos, show(a), show(b)) for left, right, cos, a, b in pairs], "diverse": [(name, value, show(rows)) for name, value, rows in diverse],
        "twice": [(pair, show(rows)) for pair, rows in twice], "leaks": [(cos, person, show(rows)[0]) for cos, person, rows in leaks],
        "lines": lines[:TABLE], "failures": read.failed[:20], "light": values["light_proxies"], "fitted": {} if seen is None else _by_kind(values["attributes"]),
    }  # fmt: skip


class _Wanted:
    """Collects the rows whose pictures the page shows; they are read in one go."""

    def __init__(self, read: Scan, found: Inspection) -> None:
        self._read, self._found = read, found
        self._rows: set[int] = set()

    def of(self, rows: Sequence[int]) -> list[int]:
        """Note some rows and return them."""
        self._rows.update(int(row) for row in rows)
        return [int(row) for row in rows]

    def of_identity(self, number: int, most: int) -> list[int]:
        """Note the first rows of an identity and return them."""
        return self.of(np.flatnonzero(self._found.index_N == number)[:most].tolist())

    def fetch(self) -> dict[int, Picture]:
        """Return the pictures by row."""
        rows = sorted(self._rows)
        image_NHWC = fetch(self._read.source, [self._read.names[row] for row in rows])
        return {row: Picture(uri=picture_uri(image_HWC), note=_short(self._read.names[row])) for row, image_HWC in zip(rows, image_NHWC)}


def _by_quality(found: Inspection) -> tuple[list[int], list[int]]:
    """Rows of lowest and of highest SDD-FIQA; images without a label are left out."""
    order = np.argsort(found.quality_N, kind="stable")[: int(np.isfinite(found.quality_N).sum())]
    return order[:EXTREMES].tolist(), order[::-1][:EXTREMES].tolist()


def _diverse(found: Inspection) -> list[int]:
    value_I = found.table["dispersion"]
    return np.argsort(-value_I, kind="stable")[: min(DIVERSE, int(np.isfinite(value_I).sum()))].tolist()


def _lines(found: Inspection) -> list[Line]:
    names, table = found.labels_I.astype(str), found.table
    neighbours = names[found.separation.neighbour_I] if found.separation.nearest_I.size else np.full(len(names), "")
    return [
        Line(name=str(names[k]), neighbour=str(neighbours[k]), images=int(table["images"][k]), mated=float(table["mated_mean"][k]), quality=float(table["quality"][k]),
             **{name: float(table[name][k]) for name in ("consistency", "dispersion", "nearest")})
        for k in range(len(names))
    ]  # fmt: skip


def _short(name: str) -> str:
    parts = name.split("/")[-2:]
    return "/".join(part.rpartition(".")[0] or part for part in parts)


def _finite(value: Any) -> Any:
    """Numbers that JSON does not have become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
