"""FRCSyn submissions: write the tree or zip, read it back, find what is wrong with it (challenge_ecosystem.md §1.4).

One file for each sub-task, database and system: `<sub-task>/<database>/{baseline,proposed}.txt`, a line `score,decision` for each pair.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes
from ..core.stats import auc
from ..identity.trees import open_tree
from .frcsyn import Comparison
from .frcsyn_rules import SubTask, subtasks

System = Literal["baseline", "proposed"]
SYSTEMS: tuple[System, System] = ("baseline", "proposed")
_DIGITS = 8


class FileKey(NamedTuple):
    """Address of one submission file."""

    subtask: str
    database: str
    system: System

    @property
    def name(self) -> str:
        """Its path in the tree."""
        return f"{self.subtask}/{self.database}/{self.system}.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding; an error makes the submission invalid, a warning does not."""

    severity: Literal["error", "warning"]
    where: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The content of one file: a similarity and a 0/1 decision for each pair."""

    score_P: np.ndarray
    decision_P: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The files that could be read, and what was wrong with the others."""

    files: Mapping[FileKey, Decided]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What validation found."""

    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Findings that make the submission invalid."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Findings to look at."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


def format_file(score_P: np.ndarray, threshold: float) -> bytes:
    """Return `score,decision` lines with CRLF; decision = printed score >= printed threshold, so that the file agrees with itself."""
    score_P = np.asarray(score_P, np.float64)
    if not np.isfinite(score_P).all() or not math.isfinite(threshold):
        first = int(np.argmin(np.isfinite(score_P)))
        raise UserError(f"the score of pair {first} is {score_P[first]} (threshold {threshold}); every pair needs a finite score: embed a fallback centre crop where no face is found")
    printed = [f"{score:.{_DIGITS}f}" for score in score_P.tolist()]
    limit = float(f"{threshold:.{_DIGITS}f}")
    return "".join(f"{text},{int(float(text) >= limit)}\r\n" for text in printed).encode("ascii")


def write_submission(path: Path | str, files: Mapping[FileKey, tuple[np.ndarray, float]]) -> None:
    """Write sub-tasks of a submission: into a zip if `path` ends in .zip, else into a folder.

    What is there already stays, but for the sub-tasks that are written now: these are replaced whole.

    Args:
        files: for each file the scores in the order of the comparison list and the decision threshold. The same files always give the
            same bytes.

    Raises:
        UserError: NaN scores, a file at `path` that is no zip, or the disk is full.
    """
    path = Path(path)
    data = {key.name: format_file(*files[key]) for key in sorted(files)}
    if path.suffix == ".zip":
        kept = _other_subtasks(path, {key.subtask for key in files}) if path.exists() else {}
        write_bytes(path, zip_bytes(dict(sorted({**kept, **data}.items()))))
        return
    for name, content in data.items():
        write_bytes(path / name, content)


def read_submission(path: Path | str, edition: int = 1) -> Submission:
    """Read a submission folder or zip; damaged or unexpected files become problems, not exceptions.

    Raises:
        UserError: nothing there, no zip, or a zip with unsafe paths.
    """
    expected = {FileKey(row.name, key, system).name: FileKey(row.name, key, system) for row in subtasks(edition).values() for key in row.databases for system in SYSTEMS}
    files: dict[FileKey, Decided] = {}
    problems: list[Problem] = []
    problems += [Problem(severity="error", where=name, message="stands in the zip twice; zip the folder again") for name in _repeated_names(Path(path))]
    with open_tree(path) as tree:
        for name in tree.names():
            if name not in expected:
                problems.append(_unexpected(name, list(expected), edition))
                continue
            parsed = _parse(tree.read(name).decode("ascii", errors="replace"), name)
            if isinstance(parsed, Problem):
                problems.append(parsed)
            else:
                files[expected[name]] = parsed
    return Submission(files=files, problems=tuple(problems))


def validate(path: Path | str, comparisons: Mapping[str, Comparison], *, edition: int = 1, required: Sequence[str] | None = None) -> Report:
    """Check a submission against the comparison lists.

    Errors are what the server cannot score or the rules forbid: a wrong tree, a missing file (GAP needs the baseline), line counts,
    decisions other than 0 and 1, scores that are not finite, decisions that no single threshold explains, one score for all pairs,
    and an AUC six standard errors below chance (scores upside down). Warnings are what only looks wrong: unknown files, absent
    sub-tasks, one decision for all pairs, and an AUC not clearly above chance. The organisers' own example holds random scores (its 20
    AUCs lie within two standard errors of 0.5), so "no better than chance" cannot be an error.

    Args:
        required: sub-tasks that must be there; by default any one is enough, but a sub-task that is begun must be whole.
    """
    submission = read_submission(path, edition)
    problems = list(submission.problems)
    broken = {problem.where for problem in problems}
    present = {key.subtask for key in submission.files} | {where.split("/")[0] for where in broken}
    table = subtasks(edition)
    for name in required or ():
        if name not in table:
            raise UserError(f"unknown sub-task '{name}' of edition {edition}; expected one of {', '.join(table)}")
    if not present & set(table):
        problems.append(Problem(severity="error", where=str(path), message=f"no sub-task folder; expected {', '.join(table)}"))
    for row in table.values():
        if row.name in present or row.name in (required or ()):
            problems += _check_subtask(row, submission, comparisons, broken)
        else:
            problems.append(Problem(severity="warning", where=row.name, message="this sub-task is not in the submission"))
    return Report(problems=tuple(problems))


def _unexpected(name: str, expected: Sequence[str], edition: int) -> Problem:
    inside = next((known for known in expected if name.replace("\\", "/").endswith(known)), None)
    if inside is None:
        return Problem(severity="warning", where=name, message=f"no file of edition {edition}")
    if "\\" in name:
        return Problem(severity="error", where=name, message=f"back-slashes in a path; expected '{inside}': zip with forward slashes")
    return Problem(severity="error", where=name, message=f"no file of edition {edition}; '{inside}' must stand at the top: zip the contents, not the folder around them")


def _repeated_names(path: Path) -> list[str]:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [name for name, count in Counter(archive.namelist()).items() if count > 1]


def _check_subtask(row: SubTask, submission: Submission, comparisons: Mapping[str, Comparison], broken: set[str]) -> list[Problem]:
    problems = []
    for key in (FileKey(row.name, database, system) for database in row.databases for system in SYSTEMS):
        if key in submission.files:
            problems += _check_file(key, submission.files[key], comparisons)
        elif key.name not in broken:
            problems.append(Problem(severity="error", where=key.name, message="missing" + ("; the baseline (real data only) is needed for GAP" if key.system == "baseline" else "")))
    for database in row.databases:
        both = [submission.files.get(FileKey(row.name, database, system)) for system in SYSTEMS]
        if both[0] is not None and both[1] is not None and np.array_equal(both[0].score_P, both[1].score_P):
            problems.append(Problem(severity="warning", where=FileKey(row.name, database, "proposed").name, message="the same scores as the baseline"))
    return problems


def _check_file(key: FileKey, content: Decided, comparisons: Mapping[str, Comparison]) -> list[Problem]:
    def error(message: str) -> list[Problem]:
        return [Problem(severity="error", where=key.name, message=message)]

    if key.database not in comparisons:
        return error("there is no comparison list for this database")
    comparison = comparisons[key.database]
    if content.score_P.size != len(comparison):
        return error(f"{content.score_P.size} lines, expected {len(comparison)}, one for each pair in the order of the list")
    finite_P = np.isfinite(content.score_P)
    if not finite_P.all():
        line = int(np.argmin(finite_P))
        return error(f"line {line + 1}: score {content.score_P[line]} ({int((~finite_P).sum())} such lines); embed a fallback centre crop where no face is found")
    if np.ptp(content.score_P) == 0.0:
        return error("all scores are equal")
    return _check_decisions(key, content) + _check_orientation(key, content, comparison)


def _check_decisions(key: FileKey, content: Decided) -> list[Problem]:
    yes = content.decision_P == 1
    if yes.all() or not yes.any():
        return [Problem(severity="warning", where=key.name, message=f"all decisions are {int(yes[0])}; is the threshold outside the scores?")]
    refused, accepted = int(np.argmax(np.where(yes, -np.inf, content.score_P))), int(np.argmin(np.where(yes, content.score_P, np.inf)))
    if content.score_P[refused] < content.score_P[accepted]:
        return []
    lines = f"line {refused + 1}: score {content.score_P[refused]:.8g} has 0, line {accepted + 1}: score {content.score_P[accepted]:.8g} has 1"
    return [Problem(severity="error", where=key.name, message=f"no single threshold explains the decisions ({lines}); decide all lines by one threshold, larger = same person")]


def _check_orientation(key: FileKey, content: Decided, comparison: Comparison) -> list[Problem]:
    value = auc(content.score_P, comparison.same_P)
    mated, non_mated = int(comparison.same_P.sum()), int((~comparison.same_P).sum())
    chance_error = math.sqrt((mated + non_mated + 1) / (12 * mated * non_mated))  # of the rank sum under no difference
    if value < 0.5 - 6 * chance_error:
        return [Problem(severity="error", where=key.name, message=f"AUC {value:.3f}: scores are upside down; larger must mean same person")]
    if value >= 0.5 + 6 * chance_error:
        return []
    by_name = np.array(sorted(range(len(comparison)), key=lambda pair: comparison.paths[pair]))
    for order, same_P in {"from the last line to the first": comparison.same_P[::-1], "sorted by path": comparison.same_P[by_name], "mated pairs first": np.sort(comparison.same_P)[::-1]}.items():
        if auc(content.score_P, same_P) > 0.5 + 6 * chance_error:
            return [Problem(severity="error", where=key.name, message=f"AUC {value:.3f}, but {auc(content.score_P, same_P):.3f} if the lines are {order}: wrong order; write line k for pair k of the list")]
    return [Problem(severity="warning", where=key.name, message=f"AUC {value:.3f}: no better than chance (random scores, or the lines are in another order)")]


def _parse(text: str, name: str) -> Decided | Problem:
    lines = text.removesuffix("\n").removesuffix("\r").split("\n") if text else []
    score_P, decision_P = np.empty(len(lines)), np.empty(len(lines), np.int8)
    for index, line in enumerate(lines):
        score, comma, decision = line.removesuffix("\r").partition(",")
        try:
            score_P[index] = float(score)
            decision_P[index] = ("0", "1").index(decision.strip())
        except ValueError:
            return Problem(severity="error", where=name, message=f"line {index + 1}: '{line.strip()[:60]}'; expected score,decision with decision 0 or 1 and no header")
    return Decided(score_P=score_P, decision_P=decision_P)


def _other_subtasks(path: Path, written: set[str]) -> dict[str, bytes]:
    with open_tree(path) as tree:
        return {name: tree.read(name) for name in tree.names() if name.split("/")[0] not in written}


def zip_bytes(data: Mapping[str, bytes]) -> bytes:
    """Return a zip of named files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in data.items():
            # A fixed date: the same scores give the same zip.
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()
