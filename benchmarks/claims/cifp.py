"""CIFP's claim: a penalty on each image's own false positives evens them out, and with them the accuracy of groups of people, at no loss of accuracy.

Run: `python benchmarks/claims/cifp.py --work runs/claims/recognition` (the folder is shared with curricularface and ddl: ArcFace is trained once).
No labels of groups: people of the evaluation set are clustered by their mean embedding under another network (mobilefacenet-small, which neither trained
nor judges), into four as RFW has. Axes: N faces, I people, G groups.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from evidence import effect, write_claim
from recognisers import Lab, about, lab_of, lab_options, resampled, right_of_pairs
from scipy.cluster.vq import kmeans2

from facefoundry.recognition.embedder import embed_faces, load_embedder

ARMS = {"ArcFace": (), "CosFace": ("head.name=cosface", "head.margin=0.2"), "CIFP": ("head.name=cifp", "head.margin=0.2")}
GROUPS, GROUPING = 4, "mobilefacenet-small"
FAR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Decisions between people at one threshold common to all.

    Attributes:
        accepted_II, pairs_II: non-mated pairs accepted, and all, of two people; the diagonal is 0.
        hits_I, mated_I: mated pairs accepted, and all, of each person.
    """

    accepted_II: np.ndarray
    pairs_II: np.ndarray
    hits_I: np.ndarray
    mated_I: np.ndarray


def groups(lab: Lab) -> np.ndarray:
    """Cluster of each person of the evaluation set, int (I,)."""
    embed_ND = embed_faces(load_embedder(GROUPING), lab.test_faces.image_NHWC)
    mean_ID = np.stack([embed_ND[lab.test_faces.identity_N == i].mean(0) for i in range(len(lab.test_faces.names))])
    return kmeans2(mean_ID / np.linalg.norm(mean_ID, axis=1, keepdims=True), GROUPS, minit="++", seed=1, iter=50)[1]


def thresholds(embed_ND: np.ndarray, person_N: np.ndarray) -> tuple[float, float]:
    """The similarity that FAR of all non-mated pairs exceed, and the one at which misses and false accepts are equally frequent."""
    upper = np.triu_indices(len(embed_ND), 1)
    cos_P, same_P = (embed_ND @ embed_ND.T)[upper], (person_N[:, None] == person_N)[upper]
    other_P, mated_P = np.sort(cos_P[~same_P]), np.sort(cos_P[same_P])
    grid_T = np.linspace(-1, 1, 4001)
    false_T, missed_T = 1 - np.searchsorted(other_P, grid_T) / len(other_P), np.searchsorted(mated_P, grid_T) / len(mated_P)
    return float(other_P[-max(1, int(FAR * len(other_P)))]), float(grid_T[np.argmin(np.abs(false_T - missed_T))])


def counted(embed_ND: np.ndarray, person_N: np.ndarray, threshold: float) -> Counts:
    """Decisions by people; faces are sorted by person."""
    start_I = np.searchsorted(person_N, np.arange(person_N[-1] + 1))
    passed_NN = embed_ND @ embed_ND.T > threshold
    np.fill_diagonal(passed_NN, False)
    passed_II = np.add.reduceat(np.add.reduceat(passed_NN.astype(np.int64), start_I, 0), start_I, 1)
    size_I = np.bincount(person_N)
    pairs_II = np.outer(size_I, size_I)
    hits_I, mated_I = np.diag(passed_II).copy(), size_I * (size_I - 1)
    np.fill_diagonal(passed_II, 0)
    np.fill_diagonal(pairs_II, 0)
    return Counts(accepted_II=passed_II.astype(float), pairs_II=pairs_II.astype(float), hits_I=hits_I.astype(float), mated_I=mated_I.astype(float))


def group_rates(counts: Counts, group_I: np.ndarray, times_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy (mean of the shares of mated and non-mated pairs judged rightly) and false positive rate of each group's own pairs, (G,) each."""
    accuracy, false = [], []
    for group in range(GROUPS):
        inside = group_I == group
        weight_I, block = times_I[inside].astype(float), np.ix_(inside, inside)
        tar = weight_I @ counts.hits_I[inside] / max(1e-9, weight_I @ counts.mated_I[inside])
        far = weight_I @ counts.accepted_II[block] @ weight_I / max(1e-9, weight_I @ counts.pairs_II[block] @ weight_I)
        accuracy.append((tar + 1 - far) / 2)
        false.append(far)
    return np.array(accuracy), np.array(false)


def unevenness(embed_ND: np.ndarray, person_N: np.ndarray, threshold: float) -> np.ndarray:
    """(instance FPR / its mean - 1)², a mean for each person; their mean is the squared coefficient of variation over images (of equal weight a person), (I,)."""
    rate_N = ((embed_ND @ embed_ND.T > threshold) & (person_N[:, None] != person_N)).mean(1)
    return np.bincount(person_N, weights=(rate_N / max(rate_N.mean(), 1e-12) - 1) ** 2) / np.bincount(person_N)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    lab_options(parser)
    lab = lab_of(parser.parse_args())
    person_N, group_I = lab.test_faces.identity_N, groups(lab)
    embed = {name: [lab.embeddings(changes, seed) for seed in range(lab.seeds)] for name, changes in ARMS.items()}
    at = {name: [thresholds(rows, person_N) for rows in found] for name, found in embed.items()}
    uneven = {name: [unevenness(rows, person_N, low[0]) for rows, low in zip(found, at[name])] for name, found in embed.items()}
    low_far, even = ({name: [counted(rows, person_N, limit[side]) for rows, limit in zip(found, at[name])] for name, found in embed.items()} for side in (0, 1))

    def spread(before: str, part: int, counts: dict[str, list[Counts]]):
        return lambda side, seed, times_I: float(group_rates(counts[("CIFP", before)[1 - side]][seed], group_I, times_I)[part].std(ddof=1))

    effects, primary = [], []
    for before in ("ArcFace", "CosFace"):
        found = [
            effect(f"squared variation of the instance FPR at FPR {FAR:g}, CIFP against {before}", uneven[before], uneven["CIFP"], better="lower"),
            resampled(f"std of group accuracy, CIFP against {before}", spread(before, 0, even), seeds=lab.seeds, people=len(group_I), better="lower"),
            resampled(f"std of group FPR at total FPR {FAR:g}, CIFP against {before}", spread(before, 1, low_far), seeds=lab.seeds, people=len(group_I), better="lower"),
            effect(f"pair accuracy, CIFP against {before}", *([right_of_pairs(lab, rows) for rows in embed[name]] for name in (before, "CIFP")), tolerance=0.01),
        ]
        effects += found
        primary += found if before == "ArcFace" else []
    accuracy = {name: np.mean([group_rates(one, group_I, np.ones_like(group_I))[0] for one in even[name]], axis=0) for name in ARMS}
    notes = [
        f"Verdict: against ArcFace, the instance FPR and the groups' accuracy must both be more even and pair accuracy no more than a point lower; {sum(one.holds for one in primary)} of {len(primary)} hold. CosFace (CIFP's own base) is listed beside, without a vote.",
        f"Groups: k-means of people by {GROUPING} ({', '.join(map(str, np.bincount(group_I).tolist()))} people); accuracy at the common threshold of equal errors: "
        + "; ".join(f"{name} {', '.join(f'{100 * value:.1f}' for value in values)} %" for name, values in accuracy.items()) + ".",
        about(lab),
    ]  # fmt: skip
    shown = all(one.holds for one in (primary[0], primary[1], primary[3]))
    claim = "Xu et al. 2021: CIFP makes false positives more even over images and accuracy more even over groups than ArcFace, without labels of groups and at no loss."
    write_claim("cifp", claim=claim, method="CIFP", shown=shown, effects=effects, notes=notes)


if __name__ == "__main__":
    main()
