"""IJB-C size on random embeddings: pool 469,375 images into 23,124 templates, score 15.7 M pairs, TAR@FAR at six rates; and the textbook way.

    python benchmarks/templates.py                # whole size, the textbook script on --peer-scale of it; writes results_templates.json
    python benchmarks/templates.py --scale 0.1    # both on a tenth (a quick look; a tenth of images, templates and pairs)

Peer, in our own words: a loop over templates that looks for its images in the whole list and a loop over its media; pairs in batches of
100,000 by gathering both sides; sklearn's roc_curve. Same random embeddings, equal figures. Bar: 60 s on 2 cores and 6 GiB.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from pathlib import Path

import numpy as np

from facefoundry.challenge.roc import IJB_FARS, Roc
from facefoundry.challenge.templates import pool_templates, score_template_pairs, template_rows
from facefoundry.core.files import write_json

IMAGES, TEMPLATES, MATED, NON_MATED, DIM = 469_375, 23_124, 19_557, 15_638_932, 512
log = logging.getLogger("benchmark")


def random_set(scale: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Random features and lists of IJB-C's proportions; templates hold about 20 images in about 7 media."""
    rng = np.random.default_rng(seed)
    images, templates = int(IMAGES * scale), max(20, int(TEMPLATES * scale))
    template_N = np.sort(np.concatenate([np.arange(templates), rng.integers(0, templates, images - templates)]))
    left_P, right_P = (rng.integers(0, templates, int((MATED + NON_MATED) * scale), dtype=np.int32) for _ in range(2))
    left_P.sort()
    return {
        "feature_ND": rng.standard_normal((images, DIM), dtype=np.float32),
        "template_N": template_N, "media_N": rng.integers(0, 7, images), "detector_N": rng.uniform(0.3, 1.0, images).astype(np.float32),
        "left_P": left_P, "right_P": right_P, "same_P": rng.random(left_P.size) < MATED / (MATED + NON_MATED),
    }  # fmt: skip


def ours(data: dict[str, np.ndarray]) -> tuple[list[float], np.ndarray, dict[str, float]]:
    """Return (TAR at the six rates, scores, seconds of each part)."""
    marks = [time.perf_counter()]
    id_T, template_TD = pool_templates(data["feature_ND"], data["template_N"], data["media_N"], weight_N=data["detector_N"])
    marks.append(time.perf_counter())
    score_P = score_template_pairs(template_TD, template_rows(id_T, data["left_P"]), template_rows(id_T, data["right_P"]))
    marks.append(time.perf_counter())
    tar = [point.tar for point in Roc(score_P, data["same_P"]).points()]
    marks.append(time.perf_counter())
    return tar, score_P, dict(zip(("pool_s", "pairs_s", "roc_s"), np.diff(marks).tolist()))


def textbook(data: dict[str, np.ndarray]) -> tuple[list[float], dict[str, float]]:
    """The way the field's script goes."""
    from sklearn.metrics import roc_curve

    marks = [time.perf_counter()]
    feature_ND = data["feature_ND"] * data["detector_N"][:, None]
    names = np.unique(data["template_N"])
    template_TD = np.zeros((len(names), DIM))
    for number, name in enumerate(names):
        (rows,) = np.where(data["template_N"] == name)
        parts = [feature_ND[rows[data["media_N"][rows] == medium]].mean(axis=0) for medium in np.unique(data["media_N"][rows])]
        template_TD[number] = np.sum(parts, axis=0)
    template_TD /= np.linalg.norm(template_TD, axis=1, keepdims=True)
    marks.append(time.perf_counter())
    place = np.zeros(names.max() + 1, int)
    place[names] = np.arange(len(names))
    score_P = np.empty(len(data["left_P"]))
    for start in range(0, len(score_P), 100_000):
        rows = slice(start, start + 100_000)
        score_P[rows] = np.sum(template_TD[place[data["left_P"][rows]]] * template_TD[place[data["right_P"][rows]]], axis=-1)
    marks.append(time.perf_counter())
    fpr, tpr, _ = roc_curve(data["same_P"], score_P)
    fpr, tpr = fpr[::-1], tpr[::-1]
    tar = [float(tpr[np.argmin(np.abs(fpr - far))]) for far in IJB_FARS]
    marks.append(time.perf_counter())
    return tar, dict(zip(("pool_s", "pairs_s", "roc_s"), np.diff(marks).tolist()))


def measure(scale: float, peer_scale: float) -> dict[str, object]:
    """Time ours at `scale` and both at `peer_scale`; ratios are of the latter."""
    ours(random_set(0.002))  # compile
    small = random_set(peer_scale)
    peer_tar, peer = textbook(small)
    our_tar, _, mine = ours(small)
    peer_total, my_total = sum(peer.values()), sum(mine.values())
    # One order, one type: float32 sums against float64 may turn neighbouring scores.
    equal = float(np.max(np.abs(np.array(peer_tar) - our_tar)))
    result: dict[str, object] = {
        "peer_scale": peer_scale, "textbook": {**peer, "total_s": peer_total}, "ours_at_peer_scale": {**mine, "total_s": my_total},
        "ratio": peer_total / my_total, "largest_tar_difference": equal,
    }  # fmt: skip
    del small
    if scale != peer_scale:
        data = random_set(scale)
        _, _, mine = ours(data)
        result |= {"scale": scale, "images": len(data["feature_ND"]), "pairs": len(data["left_P"]), "ours": {**mine, "total_s": sum(mine.values())}}
    return result | {"peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> int:
    """Measure, write the results beside this file; return 1 if the whole size takes 60 s or 6 GiB."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--peer-scale", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results_templates.json"))
    options = parser.parse_args()
    figures = measure(options.scale, min(options.peer_scale, options.scale))
    write_json(options.out, figures)
    log.info(json.dumps(figures, indent=2))
    total = figures.get("ours", figures["ours_at_peer_scale"])["total_s"]  # type: ignore[index]
    return 0 if total < 60 and figures["peak_memory_gib"] < 6 else 1  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
