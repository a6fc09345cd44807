"""A sub-task of an FRCSyn submission as one result: its trials, its official figures, and its place in the published table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .frcsyn import Comparison
from .frcsyn_rules import SubTask, subtasks
from .frcsyn_scores import SubTaskScore, groups_of, score_submission
from .frcsyn_submission import FileKey, System, read_submission
from .leaderboard import Placement, board, place, ranking_figure
from .result import Trials, evaluate

UNSTATED = "the organisers state neither the ddof of SD nor how FNMR and AUC are taken over several databases"


def result_of(path: Path | str, comparisons: Mapping[str, Comparison], subtask: str, *, edition: int = 1, ddof: int = 0, gender: Mapping[str, str] | None = None, draws: int = 200) -> dict[str, Any]:
    """Return the figures of the proposed system in one sub-task, with a block `challenge`: AVG, SD, AVG - SD, GAP, threshold loss, neighbours.

    Raises:
        UserError: the sub-task is not complete in the submission.
    """
    row = subtasks(edition)[subtask]
    score = score_submission(path, comparisons, edition=edition, ddof=ddof, gender=gender, only=subtask)[subtask]
    values = evaluate(trials_of(path, comparisons, row, gender=gender), draws=draws)
    return values | {"challenge": _challenge(score, edition)}


def trials_of(path: Path | str, comparisons: Mapping[str, Comparison], row: SubTask, *, system: System = "proposed", gender: Mapping[str, str] | None = None) -> Trials:
    """Return all comparison trials of a sub-task; groups are races (and gender) in task 1, databases in task 2; images are `<database>/<path>`."""
    files = read_submission(path, row.edition).files
    parts = [(key, comparisons[key], files[FileKey(row.name, key, system)]) for key in row.databases]
    group_P = np.concatenate([groups_of(comparison, gender) if row.task == 1 else np.full(len(comparison), key) for key, comparison, _ in parts])
    # The mini benchmark's lists show the same people; the challenge's databases do not.
    people_P2 = np.array([[("" if row.edition == 0 else f"{key}/") + comparison.database.subject(image) for image in pair] for key, comparison, _ in parts for pair in comparison.paths])
    edition = {0: "mini benchmark", 1: "FRCSyn, 1st edition", 2: "FRCSyn, 2nd edition"}[row.edition]
    return Trials(
        name=f"{edition}, sub-task {row.name}",
        system=f"{Path(path).stem} ({system})",
        score_P=np.concatenate([content.score_P for _, _, content in parts]),
        same_P=np.concatenate([comparison.same_P for _, comparison, _ in parts]),
        paths=[(f"{key}/{first}", f"{key}/{second}") for key, comparison, _ in parts for first, second in comparison.paths],
        people_P2=people_P2,
        decision_P=np.concatenate([content.decision_P for _, _, content in parts]),
        group_P=group_P,
        list_P=np.concatenate([np.full(len(comparison), key) for key, comparison, _ in parts]),
    )


def placement(score: SubTaskScore, edition: int) -> Placement | None:
    """Return where the proposed system would stand; None for the mini benchmark, which has no published table."""
    if edition == 0:
        return None
    return place(board(edition, score.subtask), score.proposed.average if score.proposed.trade_off is None else score.proposed.trade_off)


def placement_rows(found: Placement) -> list[dict[str, Any]]:
    """Return the rows around a placement: neighbour above, the result, neighbour below; figures in per cent."""
    rows = [{"rank": found.rank - 1, "team": found.above.team, "figure": ranking_figure(found.board, found.above)}] if found.above else []
    rows.append({"rank": found.rank, "team": "this result", "figure": round(found.value, 4)})
    return rows + ([{"rank": found.rank + 1, "team": found.below.team, "figure": ranking_figure(found.board, found.below)}] if found.below else [])


def _challenge(score: SubTaskScore, edition: int) -> dict[str, Any]:
    found = placement(score, edition)
    published = {"source": found.board.source, "ranked_by": found.board.ranked_by, "rank": found.rank, "of": found.of, "neighbours": placement_rows(found), "table": [asdict(entry) for entry in found.board.entries]} if found else None
    return {
        "edition": edition,
        "subtask": score.subtask,
        "groups": score.groups,
        "ddof": score.ddof,
        "average": score.proposed.average,
        "deviation": score.proposed.deviation,
        "trade_off": score.proposed.trade_off,
        "average_best": score.proposed.average_best,
        "threshold_loss": score.proposed.threshold_loss,
        "baseline_average": score.baseline.average,
        "gap": score.gap,
        "fnmr_pooled": score.proposed.fnmr_pooled,
        "fnmr_macro": score.proposed.fnmr_macro,
        "auc_pooled": score.proposed.auc_pooled,
        "auc_macro": score.proposed.auc_macro,
        "unstated": UNSTATED,
        "published": published,
    }
