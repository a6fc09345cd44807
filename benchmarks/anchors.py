"""Separation of anchors: time and memory, against the arithmetic floor and against the textbook loops, same run, same result.

Run `python benchmarks/anchors.py` in the repository root (all cores; about 2 minutes on 2); it writes benchmarks/results_anchors.json.
Goal: 100,000 anchors of 128 and of 512 numbers checked in under 2 minutes on 2 cores.

The floor is N²/2 · D multiply-adds at the rate of the bare float32 matrix product, measured here. The check may beat it: where the processor
multiplies bfloat16, tiles are screened in that and only pairs near the limit are computed in float64.
"""

from __future__ import annotations

import logging
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled, write_json
from facefoundry.identity.anchor_sources import AnchorSource, gaussian, mixture, uniform, uniform_within
from facefoundry.identity.anchors import AnchorPrior, draw_from
from facefoundry.identity.repulsion import Repulsion, repel
from facefoundry.identity.separation import TILE_COLUMNS, TILE_ROWS, greedy_rows, measure_separation

GOAL_S = 120.0
LIMITS = {128: 0.45, 512: 0.3}
TEXTBOOK = 10_000
"""Rows at which the full matrix (400 MB of float32) is still at hand."""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return wall seconds and the result."""
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found


def product_rate(dim: int, seconds: float = 1.0) -> float:
    """Return the multiply-adds a second of the bare float32 product of one tile, the best of what fits into the time."""
    left, right = rows(TILE_ROWS, dim), rows(TILE_COLUMNS, dim)
    begin, best = time.perf_counter(), np.inf
    while time.perf_counter() - begin < seconds:
        best = min(best, timed(lambda: left @ right.T)[0])
    return TILE_ROWS * TILE_COLUMNS * dim / best


def rows(count: int, dim: int) -> np.ndarray:
    """Return unit rows of the uniform law."""
    return next(uniform(dim).blocks(0, count))


def textbook_check(row_ND: np.ndarray, limit: float) -> int:
    """The whole matrix at once: pairs at or above the limit."""
    return int(np.count_nonzero(np.triu(row_ND @ row_ND.T, 1) >= limit))


def textbook_greedy(row_ND: np.ndarray, limit: float) -> list[int]:
    """One candidate after the other against all taken before."""
    kept: list[int] = []
    for row in range(len(row_ND)):
        if not kept or (row_ND[kept] @ row_ND[row]).max() < limit:
            kept.append(row)
    return kept


def against_textbook(dim: int, count: int) -> dict[str, Any]:
    """Time both tasks in both ways on the same rows; the answers must be equal."""
    row_ND, limit = rows(count, dim), LIMITS[dim]
    check_s, found = timed(lambda: measure_separation(row_ND, limit))
    matrix_s, close = timed(lambda: textbook_check(row_ND, limit))
    greedy_s, kept = timed(lambda: greedy_rows(row_ND, limit))
    loop_s, kept_slowly = timed(lambda: textbook_greedy(row_ND, limit))
    equal = found.close == close and kept.tolist() == kept_slowly
    return {
        "rows": count, "dim": dim, "check_s": check_s, "full_matrix_s": matrix_s, "check_times_faster": matrix_s / check_s,
        "greedy_s": greedy_s, "loop_s": loop_s, "greedy_times_faster": loop_s / greedy_s, "same_result": equal,
    }  # fmt: skip


def check_large(dim: int, count: int) -> dict[str, Any]:
    """Time the check and the drawing of many anchors, and set both beside the floor."""
    limit, floor_s = LIMITS[dim], count**2 / 2 * dim / product_rate(dim)
    check_s, found = timed(lambda: measure_separation(rows(count, dim), limit))
    draw_s, sample = timed(lambda: draw_from(uniform(dim), count, 0, max_cosine=limit))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {
        "rows": count, "dim": dim, "limit": limit, "check_s": check_s, "draw_s": draw_s, "floor_s": floor_s, "floor_over_check": floor_s / check_s, "floor_over_draw": floor_s / draw_s,
        "crowded_while_drawing": sample.crowded, "close_pairs": found.close, "highest": found.highest, "peak_gib_of_the_process": peak,
    }  # fmt: skip


def capacity(name: str, source: AnchorSource, limit: float) -> dict[str, Any]:
    """Ask for more than there is and note how many fit; without real people, who would take some away."""
    seconds, told = timed(lambda: _outcome(source, limit))
    return {"source": name, "limit": limit, "seconds": seconds, "told": told}


def _outcome(source: AnchorSource, limit: float) -> str:
    try:
        return f"all {len(draw_from(source, 100_000, 1, max_cosine=limit).anchor_ID)} fit"
    except UserError as error:
        return str(error).split(":")[0]


def repulsion_step(dim: int, count: int) -> dict[str, Any]:
    """Time ten steps of repulsion from uniform rows and note what they do to the highest cosine."""
    row_ND, settings = rows(count, dim), Repulsion(steps=10, alpha=0)
    seconds, found = timed(lambda: repel(row_ND, None, settings))
    floor_s = (3 * settings.steps + 1) * count**2 * dim / product_rate(dim)
    before, after = (measure_separation(each, 1.0).highest for each in (row_ND, found.anchor_ND))
    return {"rows": count, "dim": dim, "steps": settings.steps, "seconds": seconds, "floor_s": floor_s, "highest_before": before, "highest_after": after}


def main(largest: Annotated[int, typer.Option(help="Rows of the largest check.")] = 100_000, spaces: Annotated[bool, typer.Option(help="Also ask how many identities the bundled laws hold.")] = True) -> None:
    """Measure and write the results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parts: dict[str, list[dict[str, Any]]] = {"textbook": [], "large": [], "repulsion": [], "capacity": []}

    def note(part: str, found: dict[str, Any]) -> None:
        parts[part].append(found)
        logging.info("%s %s", part, {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()})

    for dim in LIMITS:
        note("textbook", against_textbook(dim, min(TEXTBOOK, largest)))
        note("repulsion", repulsion_step(dim, min(TEXTBOOK, largest)))
        for count in sorted({min(TEXTBOOK, largest), largest}):
            note("large", check_large(dim, count))
    if spaces:
        prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
        for name, source in (("mixture", mixture(prior)), ("gaussian", gaussian(prior)), ("uniform within its axes", uniform_within(prior))):
            note("capacity", capacity(name, source, 0.45))
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "numpy": np.__version__, "threads": torch.get_num_threads()}
    passed = all(found["check_s"] < GOAL_S and found["draw_s"] < GOAL_S for found in parts["large"]) and all(found["same_result"] for found in parts["textbook"])
    write_json(Path(__file__).parent / "results_anchors.json", {"goal_s": GOAL_S, "passed": passed, "machine": machine, **parts})


if __name__ == "__main__":
    typer.run(main)
