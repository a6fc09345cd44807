"""Replacements: every identity gets its count, whoever works and whenever it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from facefoundry.core.seeds import derive_seed
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs.plan import make_plan
from facefoundry.jobs.refill import replacements
from facefoundry.jobs.run import job_status, run_job, verify_job
from facefoundry.jobs.spec import load_job
from procedural import job_file, snapshot


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return job_file(tmp_path_factory.mktemp("job"), filters="[{name: anchor_similarity, below: 0.74}, {name: sdd_fiqa, lowest_share: 0.1}]", refill="6", generator="{name: procedural, fail_every: 9, spread: 2.0}")


@pytest.fixture(scope="module")
def result(job, tmp_path_factory):
    return run_job(load_job(job), tmp_path_factory.mktemp("result") / "out", workers=1)


def rows(folder):
    return list(FaceDataset.open(folder).records()), list(FaceDataset.open(folder, "rejected").records())


def test_every_identity_has_its_count(job, result):
    kept, rejected = rows(result.folder)
    assert Counter(record.identity for record in kept) == {identity: 4 for identity in range(6)}
    numbers = [tuple(map(int, record.face_id.split("/"))) for record in kept + rejected]
    assert len(set(numbers)) == len(numbers) and max(image for _, image in numbers) >= 4  # somebody was replaced
    for record in kept + rejected:
        identity, image = (int(part) for part in record.face_id.split("/"))
        assert record.seed == derive_seed(load_job(job).seed, identity, image, "noise")  # the seed follows from original index and round
    assert result.values["counts"]["failed"] > 0
    assert [name for name, _, _ in result.values["flow"]] == ["anchor_similarity", "sdd_fiqa", "surplus"]
    seen = [seen for _, seen, _ in result.values["flow"]]
    assert seen[0] == len(kept) + len(rejected) and seen[-1] - result.values["flow"][-1][2] == len(kept)
    assert [record.face_id for record in kept] == sorted(record.face_id for record in kept)


def test_status_counts_the_rounds(result):
    found = job_status(result.folder)
    assert found["state"] == "finished" and "generate-1" in found["stages"] and found["stages"]["generate-1"]["done"] == found["stages"]["generate-1"]["shards"] > 0
    assert verify_job(result.folder)["ok"]
    assert not list(result.folder.glob("job/generate*/*.parquet"))


def test_no_rounds_without_need(tmp_path):
    run_job(load_job(job_file(tmp_path, filters="[]", refill="3")), tmp_path / "out", workers=1)
    assert json.loads((tmp_path / "out" / "job" / "refill" / "1.json").read_text()) == {"round": 1, "shards": {}}
    assert not (tmp_path / "out" / "job" / "generate-1").exists() and len(FaceDataset.open(tmp_path / "out")) == 24


def test_rounds_are_bounded(tmp_path):
    values = run_job(load_job(job_file(tmp_path, filters="[{name: balance, most: 3}]", refill="2")), tmp_path / "out", workers=1).values
    assert values["counts"]["kept"] == 18 and values["counts"]["generated"] == 24 + 2 * 6  # one slot of each identity, tried twice


def test_identities_refused_as_such_are_not_minted_again(tmp_path):
    path = job_file(tmp_path, filters="[{name: identity_separation, above: 0.7}, {name: anchor_similarity, below: 0.8}]", refill="3")
    anchors = np.load(tmp_path / "anchors.npy")
    anchors[4] = anchors[1]
    np.save(tmp_path / "anchors.npy", anchors)
    run_job(load_job(path), tmp_path / "out", workers=1)
    kept, rejected = rows(tmp_path / "out")
    assert Counter(record.identity for record in kept) == {identity: 4 for identity in (0, 1, 2, 3, 5)}
    assert sum(record.identity == 4 for record in rejected) == 4


def test_slots_worked_by_hand(tmp_path):
    plan = make_plan(load_job(job_file(tmp_path)))
    identity, image = np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6)
    kept = np.ones(24, bool)
    kept[[1, 3, 4, 20, 21, 22, 23]] = False  # identity 0 lacks slots 1 and 3, identity 1 lacks 0, identity 5 all
    assert replacements(plan, 1, identity_N=identity, image_N=image, kept_N=kept, refused=frozenset({5})) == {"0": [(0, 5), (0, 7), (1, 4)]}
    # Round 2: image 5 (slot 1) came, 7 did not; image 9 is slot 1 again.
    more = replacements(plan, 2, identity_N=np.append(identity, [0, 0, 1]), image_N=np.append(image, [5, 7, 4]), kept_N=np.append(kept, [True, False, True]), refused=frozenset({5}))
    assert more == {"0": [(0, 11)]}


def test_old_folders_go_on(tmp_path):
    """A job without refill has the fingerprint it had before there was one."""
    assert "refill" in load_job(job_file(tmp_path)).document()
    assert load_job(job_file(tmp_path)).fingerprint() != load_job(job_file(tmp_path, refill="1")).fingerprint()


def test_two_workers_give_the_same_files(job, result, tmp_path):
    program = Path(__file__).resolve().parents[1] / "procedural.py"
    done = subprocess.run([sys.executable, str(program), "run", str(job), "--out", str(tmp_path / "two"), "--workers", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert snapshot(tmp_path / "two") == snapshot(result.folder)


@pytest.mark.parametrize("place", ["embed/done/00002", "refill/1.json", "generate-1/00000", "generate-1/done", "embed-1/done", "refill/2.json", "README.md"])
def test_a_death_at_any_place_changes_nothing(job, result, place, tmp_path, monkeypatch):
    monkeypatch.setattr("facefoundry.jobs.report.write_report", lambda folder: {})
    assert crash_at_rename(load_job(job), tmp_path / "out", place) == 99
    run_job(load_job(job), tmp_path / "out", workers=1)
    assert snapshot(tmp_path / "out") == snapshot(result.folder)


def crash_at_rename(spec, out, place):
    """Run the job in a forked child that dies without a word just before it renames a file to a path with `place` in it; return its exit code."""
    child = os.fork()
    if child == 0:
        real = os.replace

        def replace(source, target):
            if place in str(target):
                os._exit(99)
            return real(source, target)

        os.replace = replace
        try:
            run_job(spec, out, workers=1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
