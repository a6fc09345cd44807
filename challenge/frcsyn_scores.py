"""FRCSyn's figures from a submission: AVG, SD, AVG - SD, FNMR@FMR = 1 %, AUC, GAP (challenge_ecosystem.md §1.5).

Rates are shares, not per cent. Accuracies come from the decisions, FNMR and AUC from the scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.stats import auc, fnmr_at_fmr
from .frcsyn import Comparison
from .frcsyn_rules import SubTask, subtasks
from .frcsyn_submission import Decided, FileKey, System, read_submission
from .lists import read_table
from .verification import best_threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemScore:
    """Figures of one system (baseline or proposed) in one sub-task.

    Attributes:
        accuracy: of each group (task 1: races, or race and gender) or database (task 2).
        average: AVG, mean of `accuracy`.
        deviation: SD over the groups (task 1), with the ddof of the score; None in task 2.
        average_best: AVG if each file had the threshold that is best on its own pairs (nobody can know it; what the threshold cost is the difference).
        fnmr_pooled, auc_pooled: over all pairs of the sub-task together, one threshold.
        fnmr_macro, auc_macro: mean over the groups or databases.
    """

    accuracy: dict[str, float]
    average: float
    deviation: float | None
    average_best: float
    fnmr_pooled: float
    fnmr_macro: float
    auc_pooled: float
    auc_macro: float

    @property
    def trade_off(self) -> float | None:
        """AVG - SD before rounding: task 1's ranking figure."""
        return None if self.deviation is None else self.average - self.deviation

    @property
    def threshold_loss(self) -> float:
        """What transferring the threshold from training people cost in AVG."""
        return self.average_best - self.average


@dataclass(frozen=True, slots=True, kw_only=True)
class SubTaskScore:
    """Figures of one sub-task.

    Attributes:
        groups: what the groups of `accuracy` are ("4 races", "8 groups (race and gender)", "databases").
        ddof: of the deviation; the organisers do not say which they use.
        gap: (REAL - SYN) / SYN, REAL = AVG of the baseline, SYN = AVG of the proposed system; negative = synthetic better.
    """

    subtask: str
    groups: str
    ddof: int
    proposed: SystemScore
    baseline: SystemScore
    gap: float


def gap(real: float, synthetic: float) -> float:
    """(REAL - SYN) / SYN as a share; NaN for SYN = 0."""
    return (real - synthetic) / synthetic if synthetic else math.nan


def score_submission(
    path: Path | str,
    comparisons: Mapping[str, Comparison],
    *,
    edition: int = 1,
    ddof: int = 0,
    gender: Mapping[str, str] | None = None,
    only: str | None = None,
) -> dict[str, SubTaskScore]:
    """Return the figures of every complete sub-task of a submission (folder or zip).

    Args:
        ddof: of SD; published figures do not tell 0 from 1.
        only: the one sub-task wanted.
        gender: BUPT subject -> gender. The official 8 groups need it; without it task 1 uses the 4 races and says so.

    Raises:
        UserError: no complete sub-task, or line counts that do not fit (run `validate` for the list of problems).
    """
    submission = read_submission(path, edition)
    found = {}
    for row in subtasks(edition).values():
        if only not in (None, row.name):
            continue
        systems: dict[System, dict[str, Decided]] = {
            system: {key: submission.files[FileKey(row.name, key, system)] for key in row.databases if FileKey(row.name, key, system) in submission.files}
            for system in ("baseline", "proposed")
        }
        if all(len(files) == len(row.databases) for files in systems.values()):
            found[row.name] = _score_subtask(row, systems, comparisons, ddof, gender)
    if not found:
        first = f"; first problem: {submission.problems[0].where}: {submission.problems[0].message}" if submission.problems else ""
        raise UserError(f"{path} holds no complete sub-task{f' {only}' if only else ''} of edition {edition}{first}; run the validator for the whole list")
    return found


def read_gender_table(path: Path | str) -> dict[str, str]:
    """Read `subject,gender` lines (comma, semicolon, tab or spaces; a header is skipped) for the 8 groups of task 1.

    Raises:
        UserError: unreadable, a line with other than two fields, or a subject with two genders (names file and line).
    """
    table = read_table(path, "subject", "gender")
    if len(set(table.values())) != 2:
        raise UserError(f"{path} holds {len(set(table.values()))} values of gender ({', '.join(sorted(set(table.values()))[:5])}); the 8 groups of task 1 are 4 races x 2")
    return table


def score_system(row: SubTask, files: Mapping[str, Decided], comparisons: Mapping[str, Comparison], *, ddof: int = 0, gender: Mapping[str, str] | None = None) -> SystemScore:
    """Return the figures of one system from its files by database."""
    group_P = np.concatenate([groups_of(comparisons[key], gender) if row.task == 1 else np.full(len(comparisons[key]), key) for key in row.databases])
    same_P = np.concatenate([comparisons[key].same_P for key in row.databases])
    score_P = np.concatenate([files[key].score_P for key in row.databases])
    decision_P = np.concatenate([files[key].decision_P for key in row.databases])
    parts = {str(name): group_P == name for name in sorted(set(group_P.tolist()))}
    accuracy = {name: float(np.mean(decision_P[rows] == same_P[rows])) for name, rows in parts.items()}
    ideal_P = np.concatenate([files[key].score_P >= best_threshold(files[key].score_P, comparisons[key].same_P) for key in row.databases])
    values = list(accuracy.values())
    return SystemScore(
        accuracy=accuracy,
        average=float(np.mean(values)),
        deviation=float(np.std(values, ddof=ddof)) if row.task == 1 else None,
        average_best=float(np.mean([np.mean(ideal_P[rows] == same_P[rows]) for rows in parts.values()])),
        fnmr_pooled=fnmr_at_fmr(score_P, same_P, 0.01),
        fnmr_macro=float(np.mean([fnmr_at_fmr(score_P[rows], same_P[rows], 0.01) for rows in parts.values()])),
        auc_pooled=auc(score_P, same_P),
        auc_macro=float(np.mean([auc(score_P[rows], same_P[rows]) for rows in parts.values()])),
    )


def _score_subtask(row: SubTask, systems: Mapping[System, dict[str, Decided]], comparisons: Mapping[str, Comparison], ddof: int, gender: Mapping[str, str] | None) -> SubTaskScore:
    for system, files in systems.items():
        for key, content in files.items():
            if key not in comparisons or content.score_P.size != len(comparisons[key]):
                wanted = len(comparisons[key]) if key in comparisons else "a comparison list for it"
                raise UserError(f"{FileKey(row.name, key, system).name} has {content.score_P.size} lines, expected {wanted}")
    proposed, baseline = (score_system(row, systems[system], comparisons, ddof=ddof, gender=gender) for system in ("proposed", "baseline"))
    races = "8 groups (race and gender)" if gender is not None else "4 races (no gender labels given)"
    return SubTaskScore(
        subtask=row.name,
        groups=races if row.task == 1 else "databases",
        ddof=ddof,
        proposed=proposed,
        baseline=baseline,
        gap=gap(baseline.average, proposed.average),
    )


def groups_of(comparison: Comparison, gender: Mapping[str, str] | None) -> np.ndarray:
    """Return the group of each pair of a list: its race, or race and gender where a table is given."""
    if comparison.race_P is None:
        raise UserError(f"the paths of '{comparison.database.key}' tell no race; task 1 is scored on bupt")
    if gender is None:
        return comparison.race_P
    unknown = sorted(set(comparison.subject_P.tolist()) - set(gender))
    if unknown:
        raise UserError(f"the gender table lacks {len(unknown)} subjects, e.g. {unknown[0]}; expected all {len(set(comparison.subject_P.tolist()))} of the list")
    return np.array([f"{race} {gender[subject]}" for race, subject in zip(comparison.race_P.tolist(), comparison.subject_P.tolist())])
