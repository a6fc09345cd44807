"""k-fold verification accuracy against the textbook loop: same result, time of each, in one run.

    python benchmarks/kfold.py            # 6,000 pairs, 10 folds; writes benchmarks/results_kfold.json

The peer is the loop the field copies (insightface, AdaFace, CurricularFace): for every fold, for each of 400 thresholds, true and false
accepts by masks over the pairs. The floor is one sort of the scores. `all_figures_ms`: accuracy in both forms, VAL@FAR, TAR@FAR, AUC, EER,
FNMR@FMR of a set of LFW's size, once embedded (bar: 100 ms).
"""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facefoundry.challenge.lfw import measure_pairs
from facefoundry.challenge.pair_lists import Pairs
from facefoundry.challenge.verification import kfold_accuracy
from facefoundry.core.files import write_json

PAIRS, FOLDS = 6000, 10
log = logging.getLogger("benchmark")


def textbook_accuracy(threshold: float, distance: np.ndarray, same: np.ndarray) -> float:
    """Share of right decisions at one threshold, by counting the four outcomes."""
    accept = distance < threshold
    true_accept = np.sum(np.logical_and(accept, same))
    true_reject = np.sum(np.logical_and(np.logical_not(accept), np.logical_not(same)))
    return float(true_accept + true_reject) / distance.size


def textbook_loop(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and thresholds of the ten folds, first best threshold of 0, 0.01, ..., 3.99 on the other nine."""
    grid = np.arange(0, 4, 0.01)
    accuracy, chosen = np.empty(FOLDS), np.empty(FOLDS)
    rows = np.arange(distance.size)
    for number, test in enumerate(np.array_split(rows, FOLDS)):
        train = np.setdiff1d(rows, test)
        found = [textbook_accuracy(t, distance[train], same[train]) for t in grid]
        chosen[number] = grid[int(np.argmax(found))]
        accuracy[number] = textbook_accuracy(chosen[number], distance[test], same[test])
    return accuracy, chosen


def best_time(call: Callable[[], object], repeats: int) -> float:
    """Least wall time of `repeats` calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _pairs(same: np.ndarray) -> Pairs:
    rows = np.arange(same.size)
    return Pairs(paths=tuple((f"{row}/a", f"{row}/b") for row in rows), same_P=same, fold_P=rows * FOLDS // same.size)


def measure(seed: int = 0) -> dict[str, object]:
    """Run both forms and the loop on the same scores; return the figures."""
    rng = np.random.default_rng(seed)
    same = np.tile(np.repeat([True, False], PAIRS // FOLDS // 2), FOLDS)
    score = np.clip(np.where(same, 0.55, 0.05) + 0.18 * rng.standard_normal(PAIRS), -1, 1)
    distance = 2.0 - 2.0 * score
    accuracy, chosen = textbook_loop(distance, same)
    ours = kfold_accuracy(score, same, FOLDS)
    loop_s = best_time(lambda: textbook_loop(distance, same), 3)
    grid_s = best_time(lambda: kfold_accuracy(score, same, FOLDS), 50)
    exact_s = best_time(lambda: kfold_accuracy(score, same, FOLDS, form="exact"), 50)
    return {
        "pairs": PAIRS,
        "folds": FOLDS,
        "machine": platform.processor() or platform.machine(),
        "accuracy_identical": bool(np.array_equal(accuracy, ours.accuracy_F)),
        "threshold_identical": bool(np.array_equal(1.0 - chosen / 2.0, ours.threshold_F)),
        "loop_ms": loop_s * 1e3,
        "grid_ms": grid_s * 1e3,
        "exact_ms": exact_s * 1e3,
        "sort_ms": best_time(lambda: np.sort(score), 50) * 1e3,
        "grid_speedup": loop_s / grid_s,
        "exact_speedup": loop_s / exact_s,
        "all_figures_ms": best_time(lambda: measure_pairs(score, _pairs(same), "random"), 10) * 1e3,
    }


def main() -> int:
    """Measure, write the results beside this file, return 1 unless identical and at least 100 times faster."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    figures = measure()
    write_json(Path(__file__).with_name("results_kfold.json"), figures)
    log.info(json.dumps(figures, indent=2))
    return 0 if figures["accuracy_identical"] and figures["threshold_identical"] and figures["grid_speedup"] >= 100 and figures["all_figures_ms"] < 100 else 1


if __name__ == "__main__":
    sys.exit(main())
