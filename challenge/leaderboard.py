"""The published leaderboards as data, and where a result would stand in them (challenge_ecosystem.md §1.6).

The tables (`leaderboards.yaml`) hold per cent as printed; everywhere else in the house rates are shares. Task 1 is ranked by AVG - SD, task 2 by AVG.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from ..core.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One published row, in per cent as printed; None where the table has no such column."""

    team: str
    average: float
    trade_off: float | None = None
    deviation: float | None = None
    fnmr: float | None = None
    auc: float | None = None
    gap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The table of one sub-task, best first.

    Attributes:
        source: where the figures were printed.
        ranked_by: "trade_off" (task 1) or "average" (task 2).
    """

    edition: int
    subtask: str
    source: str
    ranked_by: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a result would stand.

    Attributes:
        value: the ranking figure in per cent, not rounded.
        rank: 1 = first; the published rows with a larger figure, plus one.
        of: rows of the table with this one.
        above, below: the neighbours, None at the ends. Equal figures count as below: a tie takes the better rank.
    """

    board: Board
    value: float
    rank: int
    of: int
    above: Entry | None
    below: Entry | None


def boards() -> tuple[Board, ...]:
    """Return all published tables of both editions."""
    return tuple(_board(part) for part in _data()["boards"])


def board(edition: int, subtask: str) -> Board:
    """Return the table of one sub-task."""
    known = {(one.edition, one.subtask): one for one in boards()}
    if (edition, subtask) not in known:
        names = ", ".join(name for number, name in known if number == edition) or "none"
        raise UserError(f"no published table for sub-task '{subtask}' of edition {edition}; expected one of {names}")
    return known[edition, subtask]


def place(table: Board, value: float) -> Placement:
    """Return where a ranking figure would stand.

    Args:
        value: AVG - SD (task 1) or AVG (task 2) as a SHARE, e.g. 0.9306.

    Raises:
        UserError: a value outside [-1, 1] (per cent given instead of a share).
    """
    if not -1.0 <= value <= 1.0:
        raise UserError(f"the figure to place is {value:g}, expected a share of at most 1 (93.06 % is 0.9306)")
    percent = 100.0 * value
    better = [entry for entry in table.entries if ranking_figure(table, entry) > percent]
    others = [entry for entry in table.entries if ranking_figure(table, entry) <= percent]
    return Placement(
        board=table,
        value=percent,
        rank=len(better) + 1,
        of=len(table.entries) + 1,
        above=better[-1] if better else None,
        below=others[0] if others else None,
    )


def ranking_figure(table: Board, entry: Entry) -> float:
    """Return the figure a table is sorted by, in per cent."""
    return float(getattr(entry, table.ranked_by))


def five_sets() -> tuple[str, list[dict[str, Any]]]:
    """Return (source, rows) of published k-fold accuracies on LFW, CFP-FP, CPLFW, AgeDB-30, CALFW, in per cent; None = not printed."""
    part = _data()["five_sets"]
    return part["source"], [dict(zip(part["columns"], row)) for row in part["rows"]]


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return yaml.safe_load((resources.files(__package__) / "leaderboards.yaml").read_text(encoding="utf-8"))


def _board(part: dict[str, Any]) -> Board:
    ranked_by = "trade_off" if "trade_off" in part["columns"] else "average"
    entries = [Entry(**dict(zip(part["columns"], row))) for row in part["rows"]]
    ordered = tuple(sorted(entries, key=lambda entry: -getattr(entry, ranked_by)))
    return Board(edition=part["edition"], subtask=part["subtask"], source=part["source"], ranked_by=ranked_by, entries=ordered)
