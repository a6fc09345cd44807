"""SDFR (FG 2024): the limits of its two tasks, sanitizer scores, and the Borda count of its ranking (challenge_ecosystem.md §1.8).

The submission itself, an ONNX model, is made by `sdfr_onnx`. Axes: M models, S benchmarks, P pairs, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes

BENCHMARKS = ("lfw", "cfp_fp", "cplfw", "agedb_30", "calfw", "ijbb", "ijbc")
MAX_IMAGES = {1: 1_000_000, 2: None}
"""Most synthetic training images; task 1 also fixes the network (iResNet-50, 512 numbers), task 2 leaves everything free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BordaRow:
    """One model in the ranking.

    Attributes:
        points: sum over the benchmarks of models - rank; a tie takes the mean of its ranks.
        rank: 1 = most points; equal sums share the better rank (how the organisers break them is not published).
        tied: whether another model has the same sum.
    """

    name: str
    points: float
    rank: int
    tied: bool


def check_images(task: int, synthetic_images: int, real_images: int = 0) -> list[str]:
    """Return what breaks SDFR's rules on training data; empty = allowed."""
    if task not in MAX_IMAGES:
        raise UserError(f"SDFR has no task {task}; expected 1 or 2")
    limit = MAX_IMAGES[task]
    problems = [f"{synthetic_images} synthetic images, task {task} allows {limit}"] if limit is not None and synthetic_images > limit else []
    return problems + ([f"{real_images} real images; SDFR allows synthetic data only"] if real_images else [])


def borda(accuracy: Mapping[str, Sequence[float]]) -> list[BordaRow]:
    """Rank models by the Borda count over the benchmarks.

    Args:
        accuracy: model → figure on each benchmark, larger = better, in one order for all.

    Raises:
        UserError: no models, different numbers of benchmarks, or a figure that is not finite.
    """
    names, table = list(accuracy), [list(map(float, row)) for row in accuracy.values()]
    if not names or len({len(row) for row in table}) != 1 or not table[0]:
        raise UserError(f"{len(names)} models with {sorted({len(row) for row in table})} figures; expected the same benchmarks for each")
    value_MS = np.array(table)
    if not np.isfinite(value_MS).all():
        raise UserError(f"the figures of '{names[int(np.argmin(np.isfinite(value_MS).all(axis=1)))]}' are not all finite; a model needs a figure on every benchmark")
    better_MS = (value_MS[None] > value_MS[:, None]).sum(axis=1)
    equal_MS = (value_MS[None] == value_MS[:, None]).sum(axis=1)
    rank_MS = better_MS + (equal_MS + 1) / 2
    points_M = (len(names) - rank_MS).sum(axis=1)
    rows = [BordaRow(name=name, points=float(points), rank=1 + int((points_M > points).sum()), tied=int((points_M == points).sum()) > 1) for name, points in zip(names, points_M)]
    return sorted(rows, key=lambda row: (row.rank, row.name))


def write_sanitizer_scores(folder: Path | str, task: int, score_P: np.ndarray) -> Path:
    """Write `task<1|2>_sanitizer_scores.txt`, one cosine a line; return its path.

    Raises:
        UserError: a score that is not finite.
    """
    if task not in MAX_IMAGES:
        raise UserError(f"SDFR has no task {task}; expected 1 or 2")
    if not np.isfinite(score_P).all():
        raise UserError(f"the score of pair {int(np.argmin(np.isfinite(score_P)))} is not finite; the model is broken")
    path = Path(folder) / f"task{task}_sanitizer_scores.txt"
    write_bytes(path, "".join(f"{score}\n" for score in np.asarray(score_P, np.float32).tolist()).encode("ascii"))
    return path
