"""The number that counts, as curves: accuracy on real LFW folds 7-8 of one recogniser recipe, over people, images each, generators, mixtures and filters.

    python benchmarks/honest_curves.py --work runs/curves --mint uiface,id3,lcm,morphface,rendered      # the pools; about 50 minutes of one core
    python benchmarks/honest_curves.py --work runs/curves --minutes 60      # units whose pool stands; again on another core: both share the work
    python benchmarks/honest_curves.py --plan                                            # cells in order of worth, steps, estimated seconds

Every score is kept under --work by cell, seed and the fingerprint of its generators: a finished unit is never repeated, new weights begin anew, a training that
was cut goes on. GAP = (real - minted) / minted over common seeds; the real side has as many people and images (`honest_sides.real_like`).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from honest_cells import REAL, Cell, Sides, units
from honest_plot import draw
from honest_sides import DATA, JOBS, OVERLAP, RECIPE, NoPool, gap, score_of, source_key

from facefoundry.core.config import read_yaml
from facefoundry.core.files import write_json
from facefoundry.identity.sources import Faces
from facefoundry.recognition.train import RecogniserRecipe

HERE = Path(__file__).resolve().parent
EPOCHS, LEAST = 6, 450
"""Half the recipe's passes over the data, and at least so many steps."""

STEP_S = 0.135
"""Seconds of one core for a step of 32 faces on a quiet machine; for --plan only."""

RATES = {"uiface": 16.0, "id3": 9.5, "lcm": 50.0, "morphface": 8.0, "rendered": 100.0}
"""Images a second and core with all that a job does beside them; for --plan only."""


def steps_for(images: int, batch: int = 32) -> int:
    """Steps of a training on so many images: the same for every side of a comparison."""
    return max(LEAST, EPOCHS * images // batch)


def recipe_of(cell: Cell, seed: int) -> RecogniserRecipe:
    """The small recogniser's recipe with the steps of the cell's size."""
    return RecogniserRecipe.load(RECIPE, [f"seed={seed}", f"steps={steps_for(cell.images)}", "checkpoint_every=100"])


def score_path(work: Path, key: str, seed: int, steps: int) -> Path:
    """Where the score of a unit is kept; another recipe's scores lie elsewhere."""
    return work / "scores" / f"{key}-s{seed}-{steps}-{recipe_key()}.json"


@functools.cache
def recipe_key() -> str:
    """Eight digits of what the recipe's file says."""
    return sha256(json.dumps(read_yaml(RECIPE)[0], sort_keys=True).encode()).hexdigest()[:8]


def run_unit(cell: Cell, seed: int, sides: Sides, work: Path) -> str:
    """Score one unit; return "done", "stood" where that was done before, or "busy" where another process is at it or at its pool."""
    key = sides.key(cell)
    path = score_path(work, key, seed, steps_for(cell.images))
    if path.is_file():
        return "stood"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if path.is_file():
                return "stood"
            faces, facts = sides.faces(cell)
            begin_s = time.process_time()
            score = score_of(faces, recipe_of(cell, seed), work / "runs" / path.stem)
            write_json(path, {"cell": str(cell), "seed": seed, "steps": steps_for(cell.images), "cpu_s": time.process_time() - begin_s, "score": score, "facts": {**counts(faces), **facts}})
    except Timeout:
        return "busy"
    return "done"


def run_beside_real(cell: Cell, seed: int, sides: Sides, work: Path) -> str:
    """Score a minted unit, its real side before it; states as of `run_unit`, "done" where either was."""
    try:
        sides.check(cell)
    except Timeout:
        return "busy"
    except NoPool:
        return "no pool"
    states = [run_unit(each, seed, sides, work) for each in (cell.real_side, cell)]
    return next(state for state in ("done", "busy", "stood") if state in states)


def counts(faces: Faces) -> dict:
    """People, images, and how many images a person has."""
    count_I = np.bincount(faces.identity_N)
    return {"identities": len(count_I), "images": int(count_I.sum()), "fewest": int(count_I.min()), "median": float(np.median(count_I)), "most": int(count_I.max()), "alone": int((count_I == 1).sum())}


def collect(work: Path, sides: Sides) -> dict:
    """Return what every finished unit of the order says, by cell, with mean, deviation and GAP."""
    found: dict[str, dict] = {}
    for cell, seed in dict.fromkeys(each for cell, seed in units() for each in ((cell.real_side, seed), (cell, seed))):
        path = score_path(work, sides.key(cell), seed, steps_for(cell.images))
        if path.is_file():
            held = json.loads(path.read_text())
            row = found.setdefault(str(cell), {"scores": {}, "facts": held["facts"], "steps": held["steps"], "cpu_s": []})
            row["scores"][str(seed)] = held["score"]
            row["cpu_s"].append(held["cpu_s"])
    for text, row in found.items():
        row |= summary(row["scores"], found.get(str(Cell.parse(text).real_side), {}).get("scores", {}))
    return found


def summary(scores: dict[str, dict], real: dict[str, dict]) -> dict:
    """Mean and deviation (ddof 1) over seeds, and the GAP over the seeds both sides have."""
    keys = sorted(next(iter(scores.values())))
    common = sorted(set(scores) & set(real), key=int)
    gaps = [float(gap(real[seed]["accuracy"], scores[seed]["accuracy"])) for seed in common]
    return {
        "mean": {key: float(np.mean([score[key] for score in scores.values()])) for key in keys},
        "sd": {key: float(np.std([score[key] for score in scores.values()], ddof=1)) if len(scores) > 1 else None for key in keys},
        "gap": {"seeds": common, "values": gaps, "mean": float(np.mean(gaps)) if gaps else None, "sd": float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None},
    }


def report(work: Path, sides: Sides, out: Path, plot: Path | None = None) -> None:
    """Write the results of what stands, and the plot if a place is given."""
    cells = collect(work, sides)
    if cells:
        keys = {generator: source_key(generator) for generator in JOBS}
        write_json(out, {"recipe": RECIPE.name, "steps": f"{EPOCHS} of its 12 epochs, at least {LEAST} steps", "left_out": list(OVERLAP), "generators": keys, "cells": cells})
        if plot is not None:
            draw(cells, plot)


def plan(sides: Sides) -> None:
    """Print the units in order with estimated seconds of one core, pools included where they are first needed."""
    total, counted = 0.0, set()
    for cell, seed in units():
        for source, _, _ in cell.shares():
            need = (source, cell.per_identity * (1 + cell.filtered) > 3)
            if source != REAL and need not in counted:
                counted.add(need)
                identities, each = sides.pools()[need]
                total += identities * each / RATES[source]
                print(f"    pool {source} {identities}x{each}: {identities * each / RATES[source]:.0f} s, {total / 60:.0f} min")
        for unit in ((cell.real_side, seed), (cell, seed)):
            if unit not in counted:
                counted.add(unit)
                total += steps_for(cell.images) * STEP_S
                print(f"{unit[0]!s:28} seed {seed}  {steps_for(cell.images)} steps, {total / 60:.0f} min")


def work_through(todo: list[tuple[Cell, int]], sides: Sides, options: argparse.Namespace, until_s: float) -> None:
    """Take the first unit that is free, again and again; wait where all that is left is in other hands (a pool that another process mints)."""
    while time.monotonic() < until_s:
        states: dict[str, list[str]] = {}
        for cell, seed in todo:
            state = run_beside_real(cell, seed, sides, options.work)
            states.setdefault(state, []).append(str(cell))
            if state == "done":
                print(cell, seed, flush=True)
                report(options.work, sides, options.out)
                break  # from the front again: what was waited for may be ready
        if not states.keys() & {"done", "busy"}:
            if "no pool" in states:
                print("left out, no pool (see --mint):", ", ".join(dict.fromkeys(states["no pool"])))
            return
        if "done" not in states:
            time.sleep(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/curves"))
    parser.add_argument("--real", type=Path, default=DATA / "train112.zip")
    parser.add_argument("--cells", default="", help="regular expression: only cells whose text it is found in, e.g. '^(real|id3) '")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further unit after so many minutes")
    parser.add_argument("--mint", default="", help="mint the pools of these generators (comma separated) and stop")
    parser.add_argument("--plan", action="store_true", help="print the order and its estimated cost")
    parser.add_argument("--report", action="store_true", help="only write results and plot of what stands")
    parser.add_argument("--out", type=Path, default=HERE / "results_honest_curves.json")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "honest-curves.png")
    options = parser.parse_args()
    begin_s = time.monotonic()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    todo = list(units(only=options.cells))
    sides = Sides(options.work, options.real, [cell for cell, _ in todo])
    if options.plan:
        return plan(sides)
    if options.mint:
        return sides.mint(options.mint.split(","))
    if not options.report:
        work_through(todo, sides, options, begin_s + 60 * options.minutes)
    report(options.work, sides, options.out, options.plot)


if __name__ == "__main__":
    main()
