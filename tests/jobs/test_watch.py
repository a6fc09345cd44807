"""Who works on which shard: notes beside claims, bars for each worker, nothing where nobody looks."""

from __future__ import annotations

import io
import os
import socket
import time

import pytest
from facefoundry.core import progress
from facefoundry.jobs import watch
from facefoundry.jobs.shards import Stage
from facefoundry.jobs.watch import show_workers
from rich.console import Console


@pytest.fixture
def stage(tmp_path):
    made = Stage(root=tmp_path, name="generate")
    made.repair([0, 1])
    return made


def test_claims_say_who_and_how_far(stage):
    me = f"{socket.gethostname()}, process {os.getpid()}"
    assert stage.at_work() == {}
    with stage.claim(1) as mine:
        assert mine and stage.at_work() == {me: (1, 0)}
        stage.tell(1, 24)
        assert stage.at_work() == {me: (1, 24)}
        (stage.folder / "progress" / "00001").write_text("")  # read while it is being written
        assert stage.at_work() == {me: (1, 0)}
    assert stage.at_work() == {} and not list((stage.folder / "progress").iterdir())


def test_a_dead_workers_claim_is_not_shown(stage):
    (stage.folder / "claims" / "00000").write_text(f'{{"host": "{socket.gethostname()}", "pid": 999999999, "born": 0}}')
    assert stage.at_work() == {}


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path):
    Stage(root=tmp_path / "nowhere", name="generate").tell(0, 5)


def test_records_are_the_markers_in_order(stage):
    for shard in (3, 1):
        stage.complete(shard, [], {"rows": shard})
    assert [marker["rows"] for marker in stage.records([0, 1, 2, 3])] == [1, 3]


def test_bars_of_workers_come_and_go(stage, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=True, width=160))
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    seen = []
    with progress.bar("generate", 100) as bar, show_workers(stage, {1: 64}, bar):
        parts = bar.parts
        monkeypatch.setattr(bar, "parts", lambda state: (seen.append(state), parts(state)))
        with stage.claim(1):
            stage.tell(1, 16)
            end = time.monotonic() + 5
            while not any((16, 64) in state.values() for state in seen) and time.monotonic() < end:
                time.sleep(0.01)
    assert any((16, 64) in state.values() for state in seen) and seen[-1] == {}
    assert "shard 1" in out.getvalue()


def test_nobody_is_followed_where_no_bar_is_shown(stage, monkeypatch):
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    with progress.bar("generate", 1) as bar:
        monkeypatch.setattr(stage.__class__, "at_work", lambda self: pytest.fail("looked"))
        with show_workers(stage, {0: 1}, bar):
            time.sleep(0.05)
