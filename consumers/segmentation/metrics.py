"""How well eyes are segmented, and how well an uncertainty knows where they are not (consumers.md §6).

Axes: B pictures, H W pixels, K classes, N pixels or pictures.
"""

from __future__ import annotations

import numpy as np

from ...core.check import check


def segmentation_scores(predicted_BHW: np.ndarray, truth_BHW: np.ndarray, classes: int = 4) -> dict[str, float | list[float]]:
    """Return iou (a list, NaN where a class is neither there nor predicted), miou, accuracy, e1 (mean over pictures of the share of wrong pixels, NICE.I) and f1 (macro)."""
    check("predicted_BHW", predicted_BHW, f"{truth_BHW.shape[0]} {truth_BHW.shape[1]} {truth_BHW.shape[2]}")
    count_KK = confusion(predicted_BHW, truth_BHW, classes)
    hit_K = np.diag(count_KK).astype(np.float64)
    either_K = count_KK.sum(0) + count_KK.sum(1) - hit_K
    both_K = count_KK.sum(0) + count_KK.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou_K, f1_K = hit_K / either_K, 2 * hit_K / both_K
    wrong_B = (predicted_BHW != truth_BHW).mean((1, 2))
    return {"iou": iou_K.tolist(), "miou": float(np.nanmean(iou_K)), "accuracy": float(hit_K.sum() / count_KK.sum()), "e1": float(wrong_B.mean()), "f1": float(np.nanmean(f1_K))}


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Return counts, (K, K): rows the truth, columns the prediction."""
    return np.bincount(truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel(), minlength=classes**2).reshape(classes, classes)


def error_auroc(uncertainty_N: np.ndarray, wrong_N: np.ndarray) -> float:
    """Return the chance that a wrong pixel is more uncertain than a right one (ties count half); NaN where all are right or all wrong."""
    wrong_N = np.asarray(wrong_N, bool).ravel()
    if wrong_N.all() or not wrong_N.any():
        return float("nan")
    order = np.argsort(np.asarray(uncertainty_N).ravel(), kind="stable")
    value, wrong = np.asarray(uncertainty_N).ravel()[order], wrong_N[order]
    start = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
    ends = np.concatenate([start[1:], [len(value)]])
    rank = np.repeat((start + ends + 1) / 2, ends - start)  # ties share their mean rank
    bad = int(wrong.sum())
    return float((rank[wrong].sum() - bad * (bad + 1) / 2) / (bad * (len(value) - bad)))


def sparsification(uncertainty_N: np.ndarray, error_N: np.ndarray, shares: int = 20) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean error of what is left when the most uncertain are taken away, the same by an oracle, (shares,) each, and the mean gap between the two (AUSE)."""
    error_N, uncertainty_N = np.asarray(error_N, np.float64).ravel(), np.asarray(uncertainty_N).ravel()
    left = [max(1, round(len(error_N) * (1 - share / shares))) for share in range(shares)]
    curves = []
    for order in (np.argsort(uncertainty_N, kind="stable"), np.argsort(error_N, kind="stable")):
        running = np.cumsum(error_N[order])
        curves.append(np.array([running[count - 1] / count for count in left]))
    return curves[0], curves[1], float((curves[0] - curves[1]).mean())
