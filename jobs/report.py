"""The report: one self-contained HTML file, readable offline and on a phone, and its figures as JSON.

Pictures are inlined, charts are inline SVG; nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_bytes, write_json
from ..identity.dataset import FaceDataset
from ..identity.pairs import PairHistogram
from ..quality.pair_figures import set_histogram
from .charts import pair_charts
from .contact_sheet import choose
from .leakage import leakage_counts, leakage_statement
from .page import Picture, picture_uri, render
from .plan import Plan, read_plan
from .publish import PublishStep, Rows, gather
from .refill import rounds, stage_of
from .shards import Stage

REPORT = "report.html"
SHEET_IDENTITIES, SHEET_IMAGES, EXTREMES, TABLE_IDENTITIES, SHOWN_FAILURES = 24, 8, 12, 200, 20

FIGURE_WORDS = {
    "auc": ("AUC, mated against non-mated", "1 = perfect, 0.5 = chance"),
    "anchor_cosine": ("mean cosine, image to its anchor", "how well identities come through"),
    "mated_mean": ("mean cosine, same identity", "high = consistent; near 1 = copies"),
    "non_mated_mean": ("mean cosine, different identities", "near 0 where people are unrelated"),
    "consistency": ("consistency", "share of images that match their identity's mean"),
    "unique_identities": ("unique identities", "share that no earlier identity matches"),
    "close_identities": ("pairs of identities that match", "one person twice"),
    "nearest_centre_max": ("closest two identities, cosine of their means", ""),
    "dispersion": ("dispersion within an identity", "trace of the covariance; low = little variety"),
    "eer": ("equal error rate", ""),
    "fnmr_at_fmr_1pct": ("FNMR at FMR = 1 %", ""),
    "d_prime": ("d′, separation of the two distributions", ""),
}


@dataclass(frozen=True, kw_only=True)
class IdentityRow:
    """A line of the table of identities; None where too few images were kept.

    Attributes:
        cos_real: highest cosine of a kept image to the centre of a real person, by the filter `leakage`; None where the job compared with nobody.
    """

    identity: int
    kept: int
    rejected: int
    cos_anchor: float | None
    cos_mated: float | None
    quality: float | None
    cos_real: float | None


def write_report(folder: Path) -> dict[str, Any]:
    """Write `report.html` and `report.json` of a finished job; return what the JSON holds.

    Raises:
        UserError: the folder holds no job, or its data are missing.
    """
    plan = read_plan(folder)
    rows = gather(folder, plan)
    values = summary(folder, plan, rows)
    dataset = FaceDataset.open(folder)
    shown = {
        "plan": plan, "job": plan.spec, "values": values, "figures": _worded(values["figures"]), "sheet": _sheet(dataset, plan.spec.seed),
        "columns": min(SHEET_IMAGES, plan.spec.per_identity), "worst": _extremes(dataset, worst=True), "best": _extremes(dataset, worst=False), "charts": pair_charts(_histogram(rows)),
        "identities": identity_rows(rows)[:TABLE_IDENTITIES], "failed": rows.failed[:SHOWN_FAILURES], "job_yaml": (folder / "job" / "job.yaml").read_text(encoding="utf-8"),
    }  # fmt: skip
    write_bytes(folder / REPORT, render("report.html.j2", shown))
    write_json(folder / "report.json", values | {"identities": [asdict(row) for row in identity_rows(rows)]})
    return values


def summary(folder: Path, plan: Plan, rows: Rows) -> dict[str, Any]:
    """Return counts, figures and costs of a finished job."""
    parts = rounds(folder, plan)
    seconds = {kind: sum(_stage_seconds(stage_of(folder, kind, part)) for part in parts) for kind in ("generate", "embed")}
    near = leakage_counts(folder, plan, rows)
    published = PublishStep(folder=folder, lease_s=plan.spec.engine.lease_s).stage.marker(0) or {}
    return {
        "name": plan.spec.name,
        "fingerprint": plan.fingerprint,
        "images_sha256": published.get("digest"),
        "counts": rows.facts(),
        "flow": [list(step) for step in rows.flow],
        "leakage": leakage_statement(folder, plan, near),
        "near_real_people": near,
        "figures": rows.figures(plan.spec.match_cosine),
        "worker_seconds": {name: round(value, 1) for name, value in {**seconds, "publish": _stage_seconds(Stage(root=folder, name="publish"))}.items()},
        "images_per_s": round(len(rows.face_id) / seconds["generate"], 2) if seconds["generate"] else None,
        "device": plan.device,
        "versions": plan.versions,
    }


def identity_rows(rows: Rows) -> list[IdentityRow]:
    """Return one line an identity: counts, and means over its kept images."""
    kept_N, lines = rows.kept_N, []
    order_N = np.argsort(rows.identity_N, kind="stable")
    bounds = np.flatnonzero(np.diff(rows.identity_N[order_N])) + 1
    for members in np.split(order_N, bounds):
        kept = members[kept_N[members]]
        cos_KK = rows.embed_ND[kept] @ rows.embed_ND[kept].T
        lines.append(
            IdentityRow(
                identity=int(rows.identity_N[members[0]]), kept=len(kept), rejected=len(members) - len(kept),
                cos_anchor=_mean(rows.scores.get("anchor_similarity"), kept), quality=_mean(rows.scores.get("sdd_fiqa"), kept),
                cos_mated=float(cos_KK[np.triu_indices(len(kept), k=1)].mean()) if len(kept) > 1 else None, cos_real=_highest(rows.scores.get("leakage"), kept),
            )  # fmt: skip
        )
    return lines


def _mean(values: np.ndarray | None, rows: np.ndarray) -> float | None:
    chosen = values[rows] if values is not None else np.empty(0)
    return float(np.nanmean(chosen)) if np.isfinite(chosen).any() else None


def _highest(values: np.ndarray | None, rows: np.ndarray) -> float | None:
    chosen = values[rows] if values is not None else np.empty(0)
    return float(np.nanmax(chosen)) if np.isfinite(chosen).any() else None


def _stage_seconds(stage: Stage) -> float:
    return sum(json.loads(path.read_bytes()).get("wall_s", 0.0) for path in (stage.folder / "done").glob("*.json"))


def _worded(figures: dict[str, float]) -> list[tuple[str, str, str]]:
    return [(words, _number(figures[name]), note) for name, (words, note) in FIGURE_WORDS.items() if name in figures]


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _histogram(rows: Rows) -> PairHistogram | None:
    index_N = np.unique(rows.identity_N[rows.kept_N], return_inverse=True)[1]
    return set_histogram(rows.embed_ND[rows.kept_N], index_N)[0] if index_N.size > 1 else None


def _sheet(dataset: FaceDataset, seed: int) -> list[tuple[int, list[Picture]]]:
    grid = choose(dataset.identity_N, identities=SHEET_IDENTITIES, per_identity=SHEET_IMAGES, seed=seed)
    return [(int(dataset.identity_N[members[0]]), _pictures(dataset, members)) for members in grid]


def _extremes(dataset: FaceDataset, *, worst: bool) -> list[Picture]:
    """Return the images of lowest or highest SDD-FIQA quality; the lowest are looked for among the rejected too."""
    sources = [dataset, FaceDataset.open(dataset.folder, "rejected")] if worst else [dataset]
    found = [(value, source, row) for source in sources for row, value in enumerate(_quality(source)) if value is not None]
    found.sort(key=lambda item: item[0], reverse=not worst)
    return [replace(_pictures(source, [row])[0], caption=f"{value:.0f}", rejected=source is not dataset) for value, source, row in found[:EXTREMES]]


def _quality(dataset: FaceDataset) -> list[float | None]:
    rows = dataset.table.column("scores").to_pylist()
    return [next((score["value"] for score in row if score["name"] == "sdd_fiqa"), None) for row in rows]


def _pictures(dataset: FaceDataset, rows: Sequence[int]) -> list[Picture]:
    names = dataset.table.column("face_id")
    return [Picture(uri=picture_uri(image), note="/".join(str(int(part)) for part in names[row].as_py().split("/"))) for image, row in zip(dataset.images(rows), rows)]
