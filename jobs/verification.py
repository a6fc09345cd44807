"""Wiring of the measuring verbs: recogniser by name, sets by path, aligners and pose predictors where they are wanted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..challenge.bin_file import read_bin
from ..challenge.datacv import board, check_dataset, read_images, squared_distances, write_distances
from ..challenge.dataset_pairs import read_dataset_pairs, score_dataset
from ..challenge.embedding import Aligner
from ..challenge.lfw import VerificationResult, score_bin, score_pairs
from ..challenge.lists import read_lines, read_table
from ..challenge.mini import build_mini
from ..challenge.pair_lists import read_pairs
from ..challenge.provenance import read_training_set
from ..challenge.result import Trials, evaluate, groups_of_people, people_of
from ..core.errors import UserError
from ..core.types import Embedder
from ..identity.trees import open_tree
from ..recognition.embedder import load_embedder
from .result_report import write_result


def embedder_and_aligner(recogniser: str, align: bool) -> tuple[Embedder, Aligner | None]:
    """Return an embedder by name and dlib's aligner where photos are to be aligned."""
    from ..recognition.align import DlibAligner

    return load_embedder(recogniser), DlibAligner() if align else None


def score_list(recogniser: str, pairs: Path, images: Path | None, *, flip: bool = True, align: bool = False, mark: bool = False) -> VerificationResult:
    """Score a pair list with its images, a .bin set, or the pairs a dataset folder brings.

    Raises:
        UserError: a pair list without --images, or one of the others with.
    """
    if pairs.suffix == ".bin" or pairs.is_dir():
        if images is not None:
            raise UserError(f"{pairs} holds its own images; leave --images out")
        if pairs.is_dir():
            return score_dataset(load_embedder(recogniser), read_dataset_pairs(pairs), flip=flip)
        return score_bin(load_embedder(recogniser), read_bin(pairs), flip=flip)
    if images is None:
        raise UserError(f"{pairs} is a list of names; say where the images are: --images FOLDER_OR_ZIP")
    embedder, aligner = embedder_and_aligner(recogniser, align)
    return score_pairs(embedder, images, read_pairs(pairs), flip=flip, aligner=aligner, on_failure="mark" if mark else "stop")


def report_pairs(result: VerificationResult, pairs: Path, images: Path | None, out: Path, groups: Path | None = None) -> dict[str, Path]:
    """Write the report of a verification result; return its files."""
    people_P2 = people_of(result.pairs.paths, result.pairs.same_P)
    if groups is not None and people_P2 is None:
        raise UserError(f"--groups needs images in a folder for each person, which {pairs} has not")
    trials = Trials(
        name=pairs.stem, system=result.embedder, score_P=result.score_P, same_P=result.pairs.same_P, paths=result.pairs.paths, fold_P=result.pairs.fold_P, marks=result.marks,
        people_P2=people_P2, group_P=groups_of_people(read_table(groups, "person", "group"), people_P2) if groups is not None and people_P2 is not None else None,
    )  # fmt: skip
    values = evaluate(trials) | {"summary": result.summary()}
    if images is None:
        return write_result(out, values, trials, (read_dataset_pairs(pairs) if pairs.is_dir() else read_bin(pairs)).read)
    with open_tree(images) as tree:
        return write_result(out, values, trials, tree.read)


def score_bins(recogniser: str, files: Sequence[Path], *, flip: bool = True) -> dict[str, Any]:
    """Score .bin sets one after the other; return the figures of each and the mean accuracy."""
    embedder = load_embedder(recogniser)
    sets = {path.stem: score_bin(embedder, read_bin(path), flip=flip).summary() for path in files}
    return {"sets": sets, "mean": float(np.mean([row["accuracy"] for row in sets.values()]))}


def build_mini_benchmark(faces: Path, pairs: Path, out: Path, *, seed: int = 0, pose: bool = True) -> dict[str, int | str]:
    """Build the mini benchmark with dlib's yaw, or with the proxy of `challenge.mini`."""
    return build_mini(faces, pairs, out, pose=_yaw if pose else None, seed=seed)


def _yaw(image_NHWC: np.ndarray) -> np.ndarray:
    from ..recognition.pose import PosePredictor

    return np.nan_to_num(PosePredictor()(image_NHWC)[:, 0])


def submit_datacv(recogniser: str, test: Path, name: str, *, split: str, training: Path | None, out: Path) -> Path:
    """Write DataCV's distances; the training set is checked against the board where it is given."""
    row = board(name)
    if training is not None:
        held = read_training_set(training)
        problems = check_dataset(row, identities=held.identities, images=held.images, real=held.is_real)
        if problems:
            raise UserError(f"{training} breaks the rules of DataCV's board {row.name}:\n  " + "\n  ".join(problems))
    return write_distances(out, squared_distances(load_embedder(recogniser), read_images(test)), row=row, split=split)


def read_figures(path: Path) -> dict[str, list[float]]:
    """Read a CSV of models and figures: a header line, then name, figure, figure, ...; messages name the line."""
    rows: dict[str, list[float]] = {}
    for number, fields in enumerate(csv.reader(read_lines(path, "table of models")), 1):
        if number == 1 or not fields:
            continue
        try:
            rows[fields[0]] = [float(field) for field in fields[1:]]
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}; expected a name and one figure for each benchmark") from error
    return rows
