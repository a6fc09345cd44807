"""CurricularFace's claim: hard negatives that count more as training goes on give a better recogniser than ArcFace's margin alone, or none.

Run: `python benchmarks/claims/curricularface.py --work runs/claims/recognition` (the folder is shared with cifp and ddl: ArcFace is trained once).
Heads alone differ: same network, faces, order, augmentation, scale; both margins are equal.
"""

from __future__ import annotations

import argparse

from evidence import effect, write_claim
from recognisers import about, lab_of, lab_options, right_of_pairs, tar_by_person

ARMS = {"softmax": ("head.name=softmax", "head.margin=null"), "ArcFace": (), "CurricularFace": ("head.name=curricularface",)}
FARS = (1e-2, 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    lab_options(parser)
    lab = lab_of(parser.parse_args())
    person_N = lab.test_faces.identity_N
    embed = {name: [lab.embeddings(changes, seed) for seed in range(lab.seeds)] for name, changes in ARMS.items()}
    tar = {(name, far): [tar_by_person(rows, rows, person_N, far) for rows in found] for name, found in embed.items() for far in FARS}
    right = {name: [right_of_pairs(lab, rows) for rows in found] for name, found in embed.items()}
    effects = []
    for before in ("ArcFace", "softmax"):
        effects += [effect(f"TAR@FAR={far:g}, CurricularFace over {before}", tar[before, far], tar["CurricularFace", far]) for far in FARS]
        effects.append(effect(f"pair accuracy, CurricularFace over {before}", right[before], right["CurricularFace"]))
    notes = [
        f"{sum(one.holds for one in effects)} of {len(effects)} comparisons hold; the verdict needs all TAR comparisons. Units: people (TAR), pairs (accuracy).",
        about(lab),
    ]
    claim = "Huang et al. 2020: CurricularFace recognises better than ArcFace and than softmax, most of all with hard pairs (low false accept rates)."
    write_claim("curricularface", claim=claim, method="CurricularFace", shown=all(one.holds for one in effects if "TAR" in one.name), effects=effects, notes=notes)


if __name__ == "__main__":
    main()
