"""The honest number: one recogniser recipe trained on N real faces and on N minted faces of each generator, all scored on real LFW folds 7-8.

Run: `python benchmarks/honest_number.py --real ../shared/data/faces/train112.zip --work runs/honest`. Same number of images and of
identities on both sides, the same seeds, no filter (so that N stays N). GAP = (real - minted) / minted in accuracy, as FRCSyn has it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from honest_sides import DATA, JOBS, RECIPE, gap, mint, real_subset, score_of

from facefoundry.core.files import write_json
from facefoundry.identity.sources import load_faces
from facefoundry.recognition.train import RecogniserRecipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=DATA / "train112.zip")
    parser.add_argument("--pairs", type=Path, default=DATA / "lfw_folds7_8_pairs.txt")
    parser.add_argument("--images", type=Path, default=DATA / "lfw_folds7_8.zip")
    parser.add_argument("--identities", type=int, default=300)
    parser.add_argument("--per-identity", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--generators", default="uiface,id3,lcm", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--work", type=Path, default=Path("runs/honest"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_honest.json"))
    options = parser.parse_args()
    sides = {"real": real_subset(load_faces(options.real), options.identities, options.per_identity)}
    sides |= {name: mint(name, options.identities, options.per_identity, options.work / name) for name in options.generators.split(",")}
    assert all(len(faces) == options.identities * options.per_identity for faces in sides.values())
    scores: dict[str, list[dict]] = {name: [] for name in sides}
    for seed in range(options.seeds):
        for name, faces in sides.items():
            recipe = RecogniserRecipe.load(options.recipe, [f"seed={seed}"])
            scores[name].append(score_of(faces, recipe, options.work / f"{name}-{seed}", options.images, options.pairs))
            print(name, seed, scores[name][-1], flush=True)
    accuracy = {name: np.array([row["accuracy"] for row in rows]) for name, rows in scores.items()}
    result = {
        "identities": options.identities, "per_identity": options.per_identity, "images": options.identities * options.per_identity,
        "scores": scores,
        "mean": {name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} for name, rows in scores.items()},
        "sd": {name: {key: float(np.std([row[key] for row in rows], ddof=1)) for key in rows[0]} for name, rows in scores.items()},
        "gap_per_seed": {name: gap(accuracy["real"], values).tolist() for name, values in accuracy.items() if name != "real"},
    }
    write_json(options.out, result)
    print(json.dumps({key: result[key] for key in ("mean", "sd", "gap_per_seed")}, indent=2))


if __name__ == "__main__":
    main()
