"""The report of a result: one self-contained HTML page, and the same numbers as JSON, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..challenge.leaderboard import five_sets
from ..challenge.result import Trials
from ..challenge.tables import csv_text, latex_text
from ..core.errors import UserError
from ..core.files import write_bytes, write_json
from ..core.images import decode
from .charts import chart_axes, chart_svg
from .page import picture_uri, render

SHOWN_FAILURES = 20
Read = Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True)
class PairPicture:
    """A trial of the page: its two images (None where they cannot be read), its score, and what it is called."""

    left: str | None
    right: str | None
    score: float
    caption: str


def write_result(folder: Path, values: dict[str, Any], trials: Trials, read: Read | None = None) -> dict[str, Path]:
    """Write result.html, result.json, result.csv, result.tex and scores.csv into a folder; return them by name.

    Args:
        values: of `challenge.result.evaluate`, perhaps with a block `challenge`.
        read: name of an image in `trials.paths` → its bytes, for the pictures of the hardest trials; None = no pictures.
    """
    files = {name: folder / name for name in ("result.html", "result.json", "result.csv", "result.tex", "scores.csv")}
    write_bytes(files["result.html"], page(values, trials, read))
    write_json(files["result.json"], values)
    write_bytes(files["result.csv"], csv_text(values).encode())
    write_bytes(files["result.tex"], latex_text([values]).encode())
    write_bytes(files["scores.csv"], _scores(trials).encode())
    return files


def page(values: dict[str, Any], trials: Trials, read: Read | None = None) -> bytes:
    """Return the HTML page."""
    hardest = {kind: [_picture(row, read) for row in values["hardest"][kind]] for kind in ("mated", "non_mated")}
    shown = {
        "values": values, "hardest": hardest, "pictures": any(one.left for kind in hardest.values() for one in kind), "charts": {"det": _det(values), "histogram": _histogram(trials)},
        "published": values.get("challenge", {}).get("published"), "five": None if "challenge" in values else five_sets(), "marked": list(values["failure_to_acquire"]["marked"].items())[:SHOWN_FAILURES],
    }  # fmt: skip
    return render("result.html.j2", shown)


def _picture(row: dict[str, Any], read: Read | None) -> PairPicture:
    left, right = (_uri(name, read) for name in row["images"])
    return PairPicture(left=left, right=right, score=row["score"], caption=f"trial {row['pair']}: {row['images'][0]} · {row['images'][1]}")


def _uri(name: str, read: Read | None) -> str | None:
    if read is None:
        return None
    try:
        return picture_uri(decode(read(name)))
    except UserError:
        return None


def _det(values: dict[str, Any]) -> str:
    figure, axes = chart_axes()
    det = {name: np.array(values["det"][name]) for name in ("fmr", "fnmr", "low", "high")}
    least = 0.5 / values["trials"]["mated"]
    shown = det["fmr"] < 1.0
    axes.fill_between(det["fmr"][shown], np.maximum(det["low"][shown], least), np.maximum(det["high"][shown], least), color="#2563eb", alpha=0.22, linewidth=0, label=f"{100 * values['interval']['level']:g} % band")
    seen = shown & (det["fnmr"] > 0)
    axes.plot(det["fmr"][seen], det["fnmr"][seen], color="#2563eb", linewidth=2, label=values["system"])
    axes.plot([1e-7, 1], [1e-7, 1], color="#888888", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=(max(1e-6, 1.0 / values["trials"]["non_mated"]), 1), ylim=(least, 1))
    axes.set_xlabel("false match rate (FMR)")
    axes.set_ylabel("false non-match rate (FNMR)")
    return chart_svg(figure, axes)


def _histogram(trials: Trials) -> str:
    figure, axes = chart_axes()
    bins = np.linspace(float(trials.score_P.min()), float(trials.score_P.max()) + 1e-9, 70)
    for kind_P, colour, label in ((~trials.same_P, "#d97706", "non-mated"), (trials.same_P, "#2563eb", "mated")):
        axes.hist(trials.score_P[kind_P], bins=bins, density=True, histtype="stepfilled", alpha=0.7, color=colour, label=f"{label} ({int(kind_P.sum()):,} trials)")
    axes.set_xlabel("comparison score (larger = same person)")
    axes.set_ylabel("density")
    return chart_svg(figure, axes)


def _scores(trials: Trials) -> str:
    decisions = trials.decision_P if trials.decision_P is not None else [""] * len(trials.score_P)
    paths = trials.paths or [("", "")] * len(trials.score_P)
    lines = [f"{first},{second},{int(same)},{score:.8f},{'' if decision == '' else int(decision)}" for (first, second), same, score, decision in zip(paths, trials.same_P, trials.score_P, decisions)]
    return "\n".join(["image_a,image_b,mated,score,decision", *lines]) + "\n"
