"""DDL's claim: drawing the similarities of hard faces to those of easy ones helps hard pairs (low resolution, pose, occlusion) and costs easy ones nothing.

Run: `python benchmarks/claims/ddl.py --work runs/claims/recognition` (the folder is shared with curricularface and cifp: ArcFace is trained once).
As published, a trained ArcFace network is fine-tuned. Both sides see the same number of faces in the fine-tuning: with DDL a third go to the head and
the rest are easy and hard pairs; without it all go to the head, hard ones among them in the same share ("ArcFace-FT"). The hard faces of the test are made
otherwise than those of the training: one fixed size; drawn masks, sunglasses and bars with shading; poses are natural on both sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from evidence import effect, write_claim
from PIL import Image
from recognisers import Lab, about, lab_of, lab_options, tar_by_person

from facefoundry.challenge.occluders import OCCLUDERS, occlude
from facefoundry.core.files import write_atomic
from facefoundry.recognition.pose import PosePredictor

FAR, TOLERANCE = 1e-2, 0.02
SIDE_PX = 16
TURNED_DEG, FRONTAL_DEG = 20.0, 12.0
PAIRS, HEAD_ROWS = 8, 32
TUNING = ("lr=0.001", "warmup=0.05")
HARD = {"lowres": "{flip: 0.5, lowres: 1.0, lowres_least: 0.125}", "occlusion": "{flip: 0.5, occlude: 1.0}", "pose": "{flip: 0.5}"}


def small(image_NHWC: np.ndarray) -> np.ndarray:
    """Faces shrunk to 16 px and enlarged again."""
    faces = (Image.fromarray(image).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX) for image in image_NHWC)
    return np.stack([np.asarray(face.resize((112, 112), Image.Resampling.BICUBIC)) for face in faces])


def occluded(image_NHWC: np.ndarray) -> np.ndarray:
    """Faces with a drawn occluder each."""
    kinds = sorted(OCCLUDERS)
    return np.stack([occlude(image, kinds[row % len(kinds)], seed=row) for row, image in enumerate(image_NHWC)])


def yaw_deg(image_NHWC: np.ndarray, path: Path) -> np.ndarray:
    """Yaw of faces, kept in `path`; NaN = unknown."""
    if not path.is_file():
        found_N = PosePredictor()(image_NHWC)[:, 0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: np.save(open(temporary, "wb"), found_N))
    return np.load(path)


def arms(lab: Lab, steps: int) -> dict[str, dict[int, tuple[str, ...]]]:
    """Changes of the recipe for each way of fine-tuning and each seed."""
    faces = lab.train_faces
    yaw_N = yaw_deg(faces.image_NHWC, lab.work / f"yaw-train-{lab.people}x{lab.each}.npy")
    turned = lab.work / f"turned-{lab.people}x{lab.each}.txt"
    turned.write_text("\n".join(path for path, yaw in zip(faces.paths, yaw_N) if abs(yaw) >= TURNED_DEG) + "\n")
    branches = ", ".join(f"{{faces: {turned}, changes: {changes}}}" if name == "pose" else f"{{changes: {changes}}}" for name, changes in HARD.items())
    rows = HEAD_ROWS + 2 * PAIRS * (1 + len(HARD))
    common = (*TUNING, f"steps={steps}", f"batch={rows}")
    share = 2 * PAIRS / rows  # of low resolution and of occlusion among DDL's rows
    found: dict[str, dict[int, tuple[str, ...]]] = {"ArcFace-FT": {}, "DDL": {}}
    for seed in range(lab.seeds):
        begun = f"init={lab.network((), seed)}"
        found["ArcFace-FT"][seed] = (*common, begun, f"augment.lowres={share}", "augment.lowres_least=0.125", f"augment.occlude={share}")
        found["DDL"][seed] = (*common, begun, f"ddl={{pairs: {PAIRS}, easy: {{flip: 0.5}}, hard: [{branches}]}}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    lab_options(parser)
    parser.add_argument("--tuning-steps", type=int, default=150)
    options = parser.parse_args()
    lab = lab_of(options)
    ways = {"ArcFace": {seed: () for seed in range(lab.seeds)}, **arms(lab, options.tuning_steps)}
    person_N = lab.test_faces.identity_N
    yaw_N = yaw_deg(lab.test_faces.image_NHWC, lab.work / "yaw-test.npy")
    turned_NN = (np.abs(yaw_N) <= FRONTAL_DEG)[:, None] & (np.abs(yaw_N) >= TURNED_DEG)
    figures: dict[tuple[str, str], list[np.ndarray]] = {}
    for name, changes in ways.items():
        for seed in range(lab.seeds):
            clean, low, hidden = (lab.embeddings(changes[seed], seed, test=test) for test in (None, small, occluded))
            found = {"easy pairs": (clean, None), f"{SIDE_PX} px against clean": (low, None), "occluded against clean": (hidden, None), "turned against frontal": (clean, turned_NN)}
            for pairs, (probe, mated_NN) in found.items():
                figures.setdefault((name, pairs), []).append(tar_by_person(clean, probe, person_N, FAR, mated_NN=mated_NN))
    effects, primary = [], []
    for before in ("ArcFace-FT", "ArcFace"):
        for pairs in (key[1] for key in figures if key[0] == "DDL"):
            effects.append(effect(f"TAR@FAR={FAR:g}, {pairs}, DDL over {before}", figures[before, pairs], figures["DDL", pairs], tolerance=TOLERANCE if pairs == "easy pairs" else 0.0))
            primary += [effects[-1]] if before == "ArcFace-FT" else []
    notes = [
        f"Verdict: all {len(primary)} comparisons with ArcFace-FT (the same fine-tuning without DDL, hard faces in its batches); {sum(one.holds for one in primary)} hold. Easy pairs may lose {100 * TOLERANCE:g} points. 'ArcFace' is the network before the fine-tuning.",
        f"Fine-tuning: {options.tuning_steps} steps of {HEAD_ROWS + 2 * PAIRS * (1 + len(HARD))} faces. Turned: yaw of {TURNED_DEG:g}° and more against {FRONTAL_DEG:g}° and less, by the house's pose estimate. Units: people.",
        about(lab),
    ]
    claim = "Huang et al. 2020: fine-tuning with the Distribution Distillation Loss recognises hard pairs better than fine-tuning with the margin loss alone, at no loss on easy ones."
    write_claim("ddl", claim=claim, method="DDL", shown=all(one.holds for one in primary), effects=effects, notes=notes)


if __name__ == "__main__":
    main()
