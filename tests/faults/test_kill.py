"""A job that dies at any moment ends, when it is run again, with the identical dataset."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from facefoundry.jobs.run import run_job, verify_job
from facefoundry.jobs.shards import Stage
from facefoundry.jobs.spec import load_job
from procedural import job_file, snapshot

PROGRAM = Path(__file__).resolve().parents[1] / "procedural.py"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return job_file(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    """Files and digest of the dataset of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run_job(load_job(job), folder, workers=1)
    return snapshot(folder), verify_job(folder)["digest"]


def start(job: Path, out: Path, *more: str) -> subprocess.Popen:
    """Start the real command; a small delay an image keeps it busy long enough to be hit."""
    return subprocess.Popen([sys.executable, str(PROGRAM), "run", str(job), "--out", str(out), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process: subprocess.Popen, limit_s: float = 60.0) -> bool:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s and process.poll() is None:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def markers(out: Path) -> int:
    return len(list(out.glob("job/*/done/*.json")))


def crash_at_rename(spec, out: Path, number: int) -> int:
    """Run the job in a forked child that dies without a word just before its `number`-th rename; return its exit code."""
    child = os.fork()
    if child == 0:
        real, count = os.replace, iter(range(10_000))

        def replace(*args):
            if next(count) == number:
                os._exit(99)
            return real(*args)

        os.replace = replace
        try:
            run_job(spec, out, workers=1)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_death_before_every_single_rename(job, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("facefoundry.jobs.report.write_report", lambda folder: {})  # half of the time, and written after the dataset
    spec, deaths = load_job(job), 0
    while crash_at_rename(spec, tmp_path / str(deaths), deaths) == 99:
        out = tmp_path / str(deaths)
        run_job(spec, out, workers=1)
        assert snapshot(out) == whole[0], f"after a death before rename {deaths}"
        assert not list(out.rglob("*.tmp"))
        assert not list(out.glob("job/*/claims/*"))
        deaths += 1
    assert deaths > 20  # anchors, plan, shards, markers, embeddings, published files, card, manifest: each has its own death


def test_three_runs_race_in_one_folder(job, whole, tmp_path):
    out, racers = tmp_path / "out", []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_job(load_job(job), out, workers=1)
                code = 0
            finally:
                os._exit(code)
        racers.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(racer, 0)[1]) for racer in racers] == [0, 0, 0]
    assert snapshot(out) == whole[0]
    assert not list(out.rglob("*.tmp"))


def test_kill_9_at_random_moments(job, whole, tmp_path):
    out, dice = tmp_path / "out", random.Random(11)
    slow = ("--set", "generator.delay_s=0.02")
    spec = load_job(job, slow[1:])
    for done in (0, 1, 4):
        process = start(job, out, *slow, "--workers", "1")
        assert wait_for(lambda: markers(out) >= done and (out / "job" / "plan.json").exists(), process)
        time.sleep(dice.random() * 0.15)
        process.kill()
        process.communicate()
    run_job(spec, out, workers=1)
    found = verify_job(out)
    assert found["ok"]
    assert found["digest"] == whole[1]  # the delay makes it another job, with the same rows and images


def test_two_workers_one_of_them_killed(job, whole, tmp_path):
    out = tmp_path / "out"
    process = start(job, out, "--workers", "2")
    assert wait_for(lambda: any((out / "job" / "generate" / "claims").glob("0*")) if out.exists() else False, process)
    workers = [child for child in psutil.Process(process.pid).children() if "resource_tracker" not in " ".join(child.cmdline())]
    workers[0].send_signal(signal.SIGKILL)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 0, words
    assert snapshot(out) == whole[0]


def test_sigterm_leaves_nothing_half_done(job, tmp_path):
    out = tmp_path / "out"
    process = start(job, out, "--set", "generator.delay_s=0.3", "--workers", "1")
    stage = Stage(root=out, name="generate")
    assert wait_for(lambda: stage.working() > 0, process)
    time.sleep(0.05)
    process.terminate()
    _, words = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in words
    assert not list(out.rglob("*.tmp"))
    assert stage.working() == 0
    assert not list(out.glob("job/*/claims/*"))
