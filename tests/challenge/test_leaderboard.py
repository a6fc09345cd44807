"""The published tables: do their own figures agree, and where does a result stand."""

from __future__ import annotations

import math

import pytest
from facefoundry.challenge.frcsyn_rules import subtasks
from facefoundry.challenge.leaderboard import board, boards, five_sets, place, ranking_figure
from facefoundry.core.errors import UserError

ROWS = [(table, entry) for table in boards() for entry in table.entries]
TASK_1 = [pytest.param(table, entry, id=f"{table.edition}-{table.subtask}-{entry.team}") for table, entry in ROWS if entry.trade_off is not None]


def test_every_subtask_of_both_editions_has_its_table():
    assert {(table.edition, table.subtask) for table in boards()} == {(edition, name) for edition in (1, 2) for name in subtasks(edition)}
    assert len(ROWS) == 36 + 5 + 6 + 6 + 6 and all(table.source for table, _ in ROWS)
    for table in boards():
        figures = [ranking_figure(table, entry) for entry in table.entries]
        assert figures == sorted(figures, reverse=True) and table.ranked_by == ("trade_off" if table.subtask[0] == "1" else "average")


@pytest.mark.parametrize(("table", "entry"), TASK_1)
def test_avg_minus_sd_reproduces_what_is_printed(table, entry):
    # Three figures rounded to two digits: AVG - SD of the printed ones may be off by one in the last place, never more.
    assert abs(round(entry.average - entry.deviation - entry.trade_off, 2)) <= 0.01


def test_how_many_reproduce_to_the_digit():
    exact = [entry for table, entry in ROWS if entry.trade_off is not None and round(entry.average - entry.deviation, 2) == entry.trade_off]
    assert len(exact) == 24 and len(TASK_1) == 29  # the other five were rounded after the subtraction


@pytest.mark.parametrize(("table", "entry"), TASK_1)
def test_average_and_fnmr_are_counts_of_the_official_list(table, entry):
    # 8 groups of 1,000 pairs: AVG is k / 8000; FNMR at FMR = 1 % counts 4,000 mated pairs.
    for printed, count in ((entry.average, 8000), (entry.fnmr, 4000)):
        assert any(abs(100 * k / count - printed) <= 0.005 + 1e-9 for k in (math.floor(printed * count / 100), math.ceil(printed * count / 100)))


@pytest.mark.parametrize(("table", "entry"), TASK_1)
def test_gap_reproduces_from_a_printed_baseline(table, entry):
    # REAL is not printed, but it is k / 8000 rounded to two digits; with one such REAL the printed GAP must come out of the printed AVG.
    reals = {round((math.floor(k / 0.8 + 0.5 + nudge)) / 100, 2) for k in range(4000, 8001) for nudge in (-1e-9, 1e-9)}
    fits = any(abs(100 * (real - entry.average) / entry.average - entry.gap) <= 0.005 + 1e-9 for real in reals)
    if (table.edition, table.subtask, entry.team) == (1, "1.2", "Idiap"):
        assert not fits  # the one row that no baseline explains: 91.54 and -0.65 ask for 90.945, between 90.94 and 90.95
    else:
        assert fits


def test_one_team_one_system_has_one_row_in_two_subtasks():
    for first, second, team in (("1.1", "1.2", "ID R&D"), ("1.1", "1.2", "CTAI"), ("2.1", "2.2", "ID R&D"), ("2.1", "2.2", "CTAI")):
        both = [next(entry for entry in board(2, name).entries if entry.team == team) for name in (first, second)]
        assert both[0] == both[1]


@pytest.mark.parametrize(
    ("value", "rank", "above", "below"),
    [(0.99, 1, None, "ID R&D"), (0.942, 3, "ADMIS", "SRCN_AIVL"), (0.943, 2, "ID R&D", "ADMIS"), (0.5, 7, "K-IBS-DS", None), (0.94306, 2, "ID R&D", "ADMIS")],
)
def test_placing(value, rank, above, below):
    found = place(board(2, "1.1"), value)
    assert (found.rank, found.of, found.above and found.above.team, found.below and found.below.team) == (rank, 7, above, below)


def test_mistakes():
    with pytest.raises(UserError, match="expected one of 1.1, 1.2, 2.1, 2.2"):
        board(1, "1.3")
    with pytest.raises(UserError, match="share of at most 1"):
        place(board(2, "1.1"), 94.2)


def test_five_sets_average():
    source, rows = five_sets()
    full = next(row for row in rows if row["lfw"] is not None)
    assert source and round(sum(full[name] for name in ("lfw", "cfp_fp", "cplfw", "agedb_30", "calfw")) / 5, 2) == full["average"]
