"""From two recognisers to an FRCSyn submission: embed the lists' images, fit the threshold on training people, write the files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..challenge.embedding import Aligner, Mark
from ..challenge.frcsyn import Comparison, fit_threshold, load_comparisons
from ..challenge.frcsyn_result import UNSTATED, placement, result_of, trials_of
from ..challenge.frcsyn_rules import SubTask, subtasks
from ..challenge.frcsyn_scores import SubTaskScore, read_gender_table, score_submission
from ..challenge.frcsyn_submission import FileKey, System, write_submission
from ..challenge.leaderboard import Placement
from ..challenge.lfw import embed_pair_images
from ..challenge.pair_lists import Pairs
from ..challenge.provenance import check_training_sets, read_training_set
from ..core.errors import UserError, near_names
from ..core.files import write_bytes
from ..core.types import Embedder
from ..identity.sources import Faces, load_faces
from ..identity.trees import open_tree
from ..recognition.embedder import embed_faces, load_embedder
from .result_report import write_result


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was written.

    Attributes:
        thresholds: of each system.
        marked: images that failed, over both systems.
        marks: the table of the lines concerned, None where there are none.
    """

    thresholds: dict[str, float]
    marked: int
    marks: Path | None


def subtask_row(name: str, edition: int) -> SubTask:
    """Return a sub-task by its name, or a UserError with near names."""
    table = subtasks(edition)
    if name not in table:
        raise UserError(f"unknown sub-task '{name}' of edition {edition}; {near_names(name, table)}")
    return table[name]


def check_training(row: SubTask, folders: Sequence[Path]) -> dict[str, Any]:
    """Check the datasets a recogniser was trained on against a sub-task's rules, by their manifests; return what they hold.

    Raises:
        UserError: a rule is broken: every one is named.
    """
    sets = [read_training_set(folder) for folder in folders]
    problems = check_training_sets(row, sets)
    if problems:
        raise UserError(f"the training data breaks the rules of sub-task {row.name}, edition {row.edition}:\n  " + "\n  ".join(problems))
    return {one.title: f"{one.images} images of {one.identities} identities, {', '.join(one.origins)} ({one.generator})" for one in sets}


def checked_lists(lists: Path, official: bool = True) -> dict[str, Comparison]:
    """Read comparison lists; `official=False` takes lists of other lengths."""
    return load_comparisons(lists, official=official)


def write_entry(proposed: str, baseline: str, *, subtask: str, edition: int, comparisons: Mapping[str, Comparison], images: Path, calibration: Path, out: Path, align: bool = False) -> Entry:
    """Write the submission of one sub-task and return the threshold of each system; other sub-tasks that `out` holds stay.

    Args:
        images: folder with one folder for each database of the sub-task.
        calibration: faces of training identities that the recognisers did not see; the threshold comes from them alone.
        out: folder, or a name ending in .zip.
        align: detect and align photos that are not 112x112.

    Every line of the lists gets its score. A photo without a found face is embedded from its centre, a missing or damaged file scores -1 and
    decides 0; the lines concerned stand in `<out>.marked.csv`, because the submission's format has no room for a mark.

    Raises:
        UserError: unknown sub-task, no image of a database at all, or a calibration set without mated pairs.
    """
    row = subtask_row(subtask, edition)
    faces = load_faces(calibration)
    lost = [key for key in row.databases if key not in comparisons]
    if lost:
        raise UserError(f"there is no list for {', '.join(lost)}; sub-task {row.name} of edition {edition} needs {', '.join(row.databases)}")
    aligner = _aligner() if align else None
    files: dict[FileKey, tuple[np.ndarray, float]] = {}
    thresholds: dict[str, float] = {}
    marked: list[tuple[FileKey, int, str, Mark]] = []
    systems: tuple[tuple[System, str], ...] = (("baseline", baseline), ("proposed", proposed))
    for system, name in systems:
        embedder = load_embedder(name)
        thresholds[system] = _threshold(embedder, faces)
        for key in row.databases:
            file = FileKey(row.name, key, system)
            score_P, marks = _scores(embedder, images / key, comparisons[key], aligner)
            files[file] = (score_P, thresholds[system])
            marked += [(file, line, image, marks[image]) for line, pair in enumerate(comparisons[key].paths, 1) for image in pair if image in marks]
    write_submission(out, files)
    return Entry(thresholds=thresholds, marked=len({image for _, _, image, _ in marked}), marks=_write_marks(out, marked))


def place_submission(submission: Path, lists: Path | None, subtask: str, *, edition: int, ddof: int = 0, gender: Path | None = None) -> Placement | None:
    """Return where a submission would stand in the published table of a sub-task."""
    if lists is None:
        raise UserError("placing a submission needs the comparison lists: --lists FOLDER_OR_ZIP")
    table = read_gender_table(gender) if gender else None
    score = score_submission(submission, checked_lists(lists), edition=edition, ddof=ddof, gender=table, only=subtask)[subtask]
    return placement(score, edition)


def score_values(row: SubTaskScore, edition: int) -> dict[str, Any]:
    """Return the figures of a sub-task as plain values, with what they leave open and its place in the published table."""
    found = placement(row, edition)
    values = asdict(row)
    for name, system in (("proposed", row.proposed), ("baseline", row.baseline)):
        values[name] |= {"trade_off": system.trade_off, "threshold_loss": system.threshold_loss}
    return values | {"unstated": UNSTATED} | ({"place": f"{found.rank} of {found.of}", "published": found.board.source} if found else {})


def report_submission(submission: Path, comparisons: Mapping[str, Comparison], subtask: str, *, out: Path, edition: int = 1, images: Path | None = None, gender: Path | None = None, ddof: int = 0) -> dict[str, Path]:
    """Write the report of one sub-task of a submission; return its files."""
    row, table = subtask_row(subtask, edition), read_gender_table(gender) if gender else None
    values = result_of(submission, comparisons, subtask, edition=edition, ddof=ddof, gender=table)
    trials = trials_of(submission, comparisons, row, gender=table)
    if images is None:
        return write_result(out, values, trials)
    with open_tree(images) as tree:
        return write_result(out, values, trials, tree.read)


def _threshold(embedder: Embedder, faces: Faces) -> float:
    return fit_threshold(embed_faces(embedder, faces.image_NHWC), faces.identity_N).threshold


def _scores(embedder: Embedder, root: Path, comparison: Comparison, aligner: Aligner | None) -> tuple[np.ndarray, dict[str, Mark]]:
    pairs = Pairs(paths=comparison.paths, same_P=comparison.same_P, fold_P=np.arange(len(comparison)) % 10)
    found = embed_pair_images(embedder, root, pairs, flip=False, on_failure="mark", aligner=aligner)
    if all(mark.absent for mark in found.marks.values()) and len(found.marks) == len(found.row):
        name, mark = next(iter(found.marks.items()))
        raise UserError(f"not one of the {len(found.row)} images of {comparison.database.key} can be used in {root}, e.g. {name}: {mark.reason}; expected the images below that folder by the names of the list")
    return found.pair_scores(comparison.paths), found.marks


def _write_marks(out: Path, marked: Sequence[tuple[FileKey, int, str, Mark]]) -> Path | None:
    path = out.with_name(f"{out.name}.marked.csv")
    if not marked:
        path.unlink(missing_ok=True)
        return None
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(("file", "line", "image", "reason", "done"))
    writer.writerows((file.name, line, image, mark.reason, "score -1, decision 0" if mark.absent else "centre crop embedded") for file, line, image, mark in marked)
    write_bytes(path, buffer.getvalue().encode())
    return path


def _aligner() -> Aligner:
    from ..recognition.align import DlibAligner

    return DlibAligner()
