"""The verbs that look at faces: inspect a data set, quality of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import show


def inspect(
    dataset: Annotated[Path, typer.Argument(help="Folder per identity, a zip of that, or a dataset folder of aligned 112x112 faces.")],
    out: Annotated[Path, typer.Option(help="Folder of report.html and report.json.")] = Path("inspection"),
    embedder: Annotated[str, typer.Option(help="Embedder that judges; better one that neither made nor filtered the set.")] = "dlib",
    match: Annotated[float, typer.Option(min=-1, max=1, help="Cosine from which the embedder calls two faces one person (dlib: 0.58 = FMR 0.1 % on real faces).")] = 0.58,
    centres: Annotated[Path | None, typer.Option(help="Centres of real people (identity.centres.write_centres, or .npy): look for leakage.")] = None,
    leak: Annotated[float | None, typer.Option(min=-1, max=1, help="Cosine that counts as leakage; left out, the one that --fmr of pairs of different real people reach.")] = None,
    fmr: Annotated[float, typer.Option(min=0, max=1, help="False match rate among the real people, at which leakage is measured.")] = 1e-3,
    reference: Annotated[Path | None, typer.Option(help="Another set (real faces): FID, KID, recall, ratios of the spreads.")] = None,
    looks: Annotated[int, typer.Option(min=0, help="Images to measure looks, pose, expression and light on; 0 = leave them out.")] = 2000,
    pose: Annotated[bool, typer.Option(help="Fit the 3D head to them: pose, expression, light (some 30 ms an image).")] = True,
    draws: Annotated[int, typer.Option(min=0, help="Bootstrap draws of identities for the intervals.")] = 200,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Count every pair of images, however many (500,000 images of 128 numbers: some minutes).")] = False,
    seed: Annotated[int, typer.Option(help="Of every sample.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Measure a data set: consistency, uniqueness, diversity, error rates, coverage, duplicates, leakage; with intervals, and a page to look at."""
    from ..core.errors import UserError
    from ..identity.centres import read_centres
    from ..quality.inspect import InspectSettings
    from ..quality.pair_figures import ALL_PAIRS_UP_TO
    from ..recognition.embedder import load_embedder
    from .inspect_report import REPORT, inspect_dataset

    if reference is not None and not looks:
        raise UserError("--reference is compared by looks, and --looks 0 leaves them out; drop one of the two")
    settings = InspectSettings(threshold=match, draws=draws, seed=seed, leak_threshold=leak, leak_fmr=fmr, histogram_images=2**62 if all_pairs else ALL_PAIRS_UP_TO)
    values = inspect_dataset(dataset, out, load_embedder(embedder), settings, looks=_tools(looks, pose), real_RD=None if centres is None else read_centres(centres), reference=reference)
    if json:
        show.as_json(values)
        return
    show.table(_rows(values), title=str(dataset))
    show.table([("report", out / REPORT), ("for programs", out / "report.json")])


def quality(
    faces: Annotated[Path, typer.Argument(help="Folder per identity, a zip of that, or a dataset folder of aligned 112x112 faces.")],
    out: Annotated[Path | None, typer.Option(help="CSV to write, one line an image: path, identity, quality.")] = None,
    model: Annotated[str, typer.Option(help="quality-small, or a .safetensors file of `train quality`.")] = "quality-small",
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst to name.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Write the result as JSON.")] = False,
) -> None:
    """Score every face 0 to 100 by SDD-FIQA's regressor; identities are not needed for the score."""
    import numpy as np

    from ..core.files import write_bytes
    from ..identity.sources import load_faces
    from ..quality.model import load_quality
    from ..recognition.embedder import load_embedder

    found = load_faces(faces)
    score_N = load_quality(model, load_embedder)(found.image_NHWC)
    lowest = np.argsort(score_N, kind="stable")[:worst]
    if out is not None:
        write_bytes(out, "".join(["path,identity,quality\n", *(f"{_cell(path)},{_cell(found.names[who])},{value:.2f}\n" for path, who, value in zip(found.paths, found.identity_N, score_N))]).encode())
    spread = {f"{share} %": round(float(value), 2) for share, value in zip((5, 25, 50, 75, 95), np.percentile(score_N, (5, 25, 50, 75, 95)))}
    facts = {"images": len(found), "model": model, "percentiles": spread, "worst": {found.paths[row]: round(float(score_N[row]), 2) for row in lowest}, "scores": None if out is None else str(out)}
    if json:
        show.as_json(facts)
        return
    show.table(facts.items(), title=str(faces))


def _cell(text: str) -> str:
    """A cell of a CSV file: quoted where it holds a comma or a quote."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def _tools(images: int, pose: bool) -> Any:
    from ..recognition.feature_maps import MobileFaceNetMaps
    from .head_attributes import HeadPredictor
    from .inspect_looks import LooksTools

    return LooksTools(network=MobileFaceNetMaps(), attributes=HeadPredictor() if pose else None, images=images) if images else None


def _rows(values: dict[str, Any]) -> list[tuple[str, Any]]:
    from .inspect_report import FIGURES

    rows: list[tuple[str, Any]] = [("images", values["images"]), ("identities", values["identities"])]
    rows += [(words, _with_interval(values["figures"][name])) for name, (words, _) in FIGURES.items() if name in values["figures"]]
    rows += [("pairs of identities that match", values["close_identities"]), ("duplicates", values["duplicates"])]
    if values["leakage"] is not None:
        rows += [(f"leakage, {name.replace('_', ' ')}", value) for name, value in values["leakage"].items()]
    rows += [(f"against the reference, {name}", value) for name, value in (values.get("reference") or {}).items()]
    return [*rows, ("left out", values["failed"] or None)]


def _with_interval(figure: dict[str, float]) -> str:
    low, high = figure["low"], figure["high"]
    return f"{figure['value']:.4g}" + (f"  [{low:.4g}, {high:.4g}]" if low == low else "")
