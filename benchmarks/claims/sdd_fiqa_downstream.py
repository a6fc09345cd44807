"""SDD-FIQA's use: minted faces filtered by it train a better recogniser than all of them, or than as many chosen at random.

Run: `python benchmarks/claims/sdd_fiqa_downstream.py --minted runs/honest/minted --work runs/claims/sdd_fiqa` (9 trainings of about two minutes on a
core). The minted set is any dataset folder, e.g. what benchmarks/honest_number.py made; nothing may have been filtered from it before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from evidence import effect, right_by_pair, write_claim

from facefoundry.core.seeds import numpy_rng
from facefoundry.identity.sources import Faces, load_faces
from facefoundry.quality.sdd_fiqa import sdd_fiqa
from facefoundry.recognition.embedder import embed_faces, load_embedder


def compare(work: Path, minted: Path, share: float, seeds: int, judge: str) -> None:
    """Recognisers trained on minted faces: all, without the worst, and without as many drawn by chance."""
    faces = load_faces(minted)
    label_N = sdd_fiqa(embed_faces(load_embedder(judge), faces.image_NHWC), faces.identity_N, mode="exact", signed=True)
    dropped = int(share * len(faces))
    by_quality = np.sort(np.argsort(label_N, kind="stable")[dropped:])
    right: dict[str, list[np.ndarray]] = {"all": [], "filtered": [], "random": []}
    for seed in range(seeds):
        by_chance = np.sort(numpy_rng(seed, "sdd_fiqa", "random subset").permutation(len(faces))[dropped:])
        for name, rows in (("all", np.arange(len(faces))), ("filtered", by_quality), ("random", by_chance)):
            right[name].append(right_by_pair(_subset(faces, rows), seed, work / f"recogniser-{name}-{seed}"))
    stacked = {name: np.stack(rows) for name, rows in right.items()}
    effects = [effect(f"accuracy on LFW folds 7-8: filtered over {words}", stacked[name], stacked["filtered"]) for name, words in (("random", "a random subset of equal size"), ("all", "all images"))]
    left = len(np.unique(faces.identity_N[by_quality]))
    notes = [
        f"{len(faces)} minted images of {len(faces.names)} people; filtered: without the {dropped} of lowest label (exact, signed, judge {judge}), which leaves {left} people; random: without as many drawn anew for each seed.",
        "`recipes/recogniser-small.yaml`: epochs are fixed, so a smaller set means fewer steps. The verdict is the first effect, against the random subset; units are the 1,200 pairs.",
    ]
    write_claim("sdd_fiqa_downstream", claim="Filtering minted faces by SDD-FIQA trains a better recogniser than dropping as many at random.", method="SDD-FIQA as a filter", shown=effects[0].holds, effects=effects, notes=notes)


def _subset(faces: Faces, rows: np.ndarray) -> Faces:
    return Faces(image_NHWC=faces.image_NHWC[rows], identity_N=faces.identity_N[rows], names=faces.names, paths=tuple(faces.paths[row] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/claims/sdd_fiqa"))
    parser.add_argument("--minted", type=Path, default=Path("runs/honest/minted"))
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", default="dlib")
    options = parser.parse_args()
    compare(options.work, options.minted, options.share, options.seeds, options.judge)


if __name__ == "__main__":
    main()
