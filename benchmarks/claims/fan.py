"""FAN's claim: a recogniser adapted with random scale augmentation recognises small faces better than one without it, and than plain bicubic enlarging.

Run: `python benchmarks/claims/fan.py --work runs/claims/fan`. All arms begin at the bundled mobilefacenet-small and get its faces enlarged by bicubic resampling:
"bicubic" is that network as it is; "plain" is adapted by the same losses and steps on faces that are never shrunk; "fixed" shrinks to 14, 28 or 56 px; "FAN" at
random. The first face of each of the 1,200 pairs of LFW folds 7-8 is whole, the second is shrunk by area. Pictures (the normalisation branch) play no part here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evidence import DATA, HERE, effect, write_claim
from recognisers import Lab, lab_of, lab_options, right_of_pairs

from facefoundry.challenge.pair_lists import read_pairs
from facefoundry.core.files import bundled, write_atomic
from facefoundry.core.images import to_float, to_uint8
from facefoundry.recognition.embedder import embed_faces, load_embedder
from facefoundry.recognition.fan_train import FanRecipe, train_fan
from facefoundry.recognition.scale_augment import rescale

SIDES_PX = (14, 20, 28)
ARMS = {"plain": ["scales.keep=1"], "fixed": ["scales.fixed=[0.125, 0.25, 0.5]"], "FAN": []}
RECIPE = HERE.parent.parent / "recipes" / "fan-small.yaml"
NO_PICTURES = ["adapt.rec=0", "adapt.identity=0", "adapt.gan=0"]


def adapted(lab: Lab, arm: str, seed: int, steps: int, batch: int) -> Path:
    """Weights of an arm, trained at need."""
    folder = lab.work / f"{arm}-{lab.people}x{lab.each}-{steps}x{batch}-{seed}"
    path = folder / "recogniser.safetensors"
    if not path.is_file():
        changes = [*ARMS[arm], *NO_PICTURES, f"adapt.steps={steps}", f"adapt.batch={batch}", f"adapt.seed={seed}", *lab.settings]
        train_fan(FanRecipe.load(RECIPE, changes), lab.train_faces, folder)
    return path


def right_by_side(lab: Lab, weights: Path, cache: Path) -> dict[int, np.ndarray]:
    """Whether each pair is judged rightly when its second face has so many pixels a side (112 = whole), kept in `cache` (.npz)."""
    if not cache.is_file():
        embedder, faces = load_embedder(weights), lab.test_faces
        row_of = {path: row for row, path in enumerate(faces.paths)}
        first_M, second_M = (np.unique([row_of[pair[side]] for pair in read_pairs(DATA / "lfw_folds7_8_pairs.txt").paths]) for side in (0, 1))
        rows = {side: np.zeros((len(faces), embedder.dim), np.float32) for side in (0, 112, *SIDES_PX)}
        rows[0][first_M] = embed_faces(embedder, faces.image_NHWC[first_M])
        for side in (112, *SIDES_PX):
            rows[side][second_M] = embed_faces(embedder, shrunk(faces.image_NHWC[second_M], side))
        found = {str(side): right_of_pairs(lab, rows[0], rows[side]) for side in (112, *SIDES_PX)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, lambda temporary: np.savez(open(temporary, "wb"), **found))
    with np.load(cache) as held:
        return {int(side): held[side] for side in held.files}


def shrunk(image_NHWC: np.ndarray, side: int) -> np.ndarray:
    """Faces shrunk to `side` pixels by area and enlarged by bicubic resampling, uint8."""
    parts = [to_uint8(rescale(to_float(part), torch.full((len(part),), side / 112))) for part in np.array_split(image_NHWC, 20)]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    lab_options(parser)
    parser.set_defaults(work=Path("runs/claims/fan"))
    parser.add_argument("--steps", type=int, default=130)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    lab = lab_of(options)
    untouched = right_by_side(lab, bundled("mobilefacenet-small.safetensors"), lab.work / "bicubic.npz")
    right = {"bicubic": [untouched] * lab.seeds}
    for arm in ARMS:
        paths = [adapted(lab, arm, seed, options.steps, options.batch) for seed in range(lab.seeds)]
        right[arm] = [right_by_side(lab, path, path.parent / "right.npz") for path in paths]

    def compared(before: str, side: int, tolerance: float = 0.0):
        sides = ([found[side] for found in right[arm]] for arm in (before, "FAN"))
        return effect(f"accuracy, {side} px against whole: FAN over {before}" if side < 112 else f"accuracy, whole faces: FAN over {before}", *sides, tolerance=tolerance)

    decisive = [compared(before, side) for side in SIDES_PX for before in ("plain", "bicubic")]
    further = [compared("fixed", side) for side in SIDES_PX] + [compared("bicubic", 112, 0.02)]
    notes = [
        f"Shown = FAN over plain and over bicubic at {', '.join(map(str, SIDES_PX))} px, all {len(decisive)} intervals above 0; {sum(one.holds for one in decisive)} hold. Units: the 1,200 pairs; thresholds by the other fold, at the same resolution.",
        f"recipes/fan-small.yaml without pictures: {options.steps} steps of {options.batch} rows on {lab.people} × {lab.each} faces of train112.zip from mobilefacenet-small, which saw these faces before, a tenth of them shrunk to 39 px and more. Its own training had no seeds: 'bicubic' is one network.",
        "A reconstruction (recognition.md §5): random against fixed scales, and the cost on whole faces (2 points allowed), are shown for information.",
    ]
    claim = "FAN (abstract): random scale augmentation and adaptation of the identity features make them robust to resolution."
    write_claim("fan", claim=claim, method="FAN (ACCV 2020)", shown=all(one.holds for one in decisive), effects=[*decisive, *further], notes=notes)


if __name__ == "__main__":
    main()
