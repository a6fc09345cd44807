"""From two recognisers to an FRCSyn submission: embed the lists' images, fit the threshold on training people, write the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..challenge.frcsyn import Comparison, fit_threshold, load_comparisons
from ..challenge.frcsyn_rules import subtasks
from ..challenge.frcsyn_submission import FileKey, System, write_submission
from ..challenge.lfw import Pairs, score_pairs
from ..core.errors import UserError, near_names
from ..core.types import Embedder
from ..identity.sources import Faces, load_faces
from ..recognition.embedder import embed_faces, load_embedder


def write_entry(proposed: str, baseline: str, *, subtask: str, edition: int, lists: Path, images: Path, calibration: Path, out: Path) -> dict[str, float]:
    """Write the submission of one sub-task and return the threshold of each system.

    Args:
        images: folder with one folder for each database of the sub-task.
        calibration: faces of training identities that the recognisers did not see; the threshold comes from them alone.
        out: folder, or a name ending in .zip.

    Raises:
        UserError: unknown sub-task, missing images, or a calibration set without mated pairs.
    """
    table = subtasks(edition)
    if subtask not in table:
        raise UserError(f"unknown sub-task '{subtask}' of edition {edition}; {near_names(subtask, table)}")
    comparisons, faces = load_comparisons(lists), load_faces(calibration)
    files: dict[FileKey, tuple[np.ndarray, float]] = {}
    thresholds: dict[str, float] = {}
    systems: tuple[tuple[System, str], ...] = (("baseline", baseline), ("proposed", proposed))
    for system, name in systems:
        embedder = load_embedder(name)
        thresholds[system] = _threshold(embedder, faces)
        for key in table[subtask].databases:
            files[FileKey(subtask, key, system)] = (_scores(embedder, images / key, comparisons[key]), thresholds[system])
    write_submission(out, files)
    return thresholds


def _threshold(embedder: Embedder, faces: Faces) -> float:
    return fit_threshold(embed_faces(embedder, faces.image_NHWC), faces.identity_N).threshold


def _scores(embedder: Embedder, root: Path, comparison: Comparison) -> np.ndarray:
    pairs = Pairs(paths=comparison.paths, same_P=comparison.same_P, fold_P=np.arange(len(comparison)) % 10)
    return score_pairs(embedder, root, pairs, flip=False).score_P
