"""What disks, other programs and other jobs do to a dataset folder: it is seen, said and mended."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from facefoundry.core.errors import UserError
from facefoundry.jobs.report import write_report
from facefoundry.jobs.run import job_status, run_job, verify_job
from facefoundry.jobs.shards import Stage
from facefoundry.jobs.spec import load_job
from procedural import job_file, snapshot


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return load_job(job_file(tmp_path_factory.mktemp("job")))


@pytest.fixture(scope="module")
def finished(spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "out"
    run_job(spec, folder, workers=1)
    return folder


@pytest.fixture
def out(finished, tmp_path):
    """A copy of a finished job to be damaged."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def damage(kind: str, path: Path) -> None:
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "flipped", "empty", "missing"])
def test_damaged_dataset_is_seen_and_mended(kind, finished, out, spec):
    damage(kind, out / "data" / "train-00001-of-00003.parquet")
    found = verify_job(out)
    assert not found["ok"]
    assert "train-00001" in found["problems"][0]
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)
    assert verify_job(out)["ok"]


@pytest.mark.parametrize("kind", ["truncated", "flipped", "missing"])
def test_damaged_shard_is_made_again(kind, finished, tmp_path, spec, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr("facefoundry.jobs.publish.PublishStep.open", lambda self: (_ for _ in ()).throw(UserError("stop here")))
    with pytest.raises(UserError, match="stop here"):
        run_job(spec, out, workers=1)
    monkeypatch.undo()
    damage(kind, out / "job" / "generate" / "00001.parquet")
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)


def test_data_without_marker_and_marker_without_sense_are_redone(finished, out, spec):
    (out / "job" / "publish" / "done" / "00000.json").unlink()
    (out / "job" / "generate" / "done" / "00000.json").write_text("{")
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)


def test_lost_embeddings_are_made_again(finished, out, spec):
    shutil.rmtree(out / "job" / "embed")
    with pytest.raises(UserError, match="is not finished; run it again"):
        write_report(out)
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)


def test_stale_lease_is_taken_over_and_live_one_is_not(tmp_path):
    stage = Stage(root=tmp_path, name="generate", lease_s=0.6)
    stage.repair([0])
    claim = stage.folder / "claims" / "00000"
    claim.write_text(json.dumps({"host": "another-machine", "pid": 1, "born": 0.0}))
    with stage.claim(0) as mine:
        assert not mine
    os.utime(claim, (time.time() - 60, time.time() - 60))
    with stage.claim(0) as mine:
        assert mine
        with stage.claim(0) as twice:
            assert not twice
        time.sleep(1.0)  # longer than the lease: the heart-beat must have kept it
        with stage.claim(0) as later:
            assert not later
    assert not claim.exists()


def test_claim_of_a_dead_process_here_is_free_at_once(tmp_path):
    stage = Stage(root=tmp_path, name="generate", lease_s=3600)
    stage.repair([0])
    child = subprocess.Popen(["true"])
    child.wait()
    (stage.folder / "claims" / "00000").write_text(json.dumps({"host": socket.gethostname(), "pid": child.pid, "born": 1.0}))
    with stage.claim(0) as mine:
        assert mine


def test_another_job_is_refused_with_the_difference(out, finished, tmp_path):
    other = load_job(job_file(tmp_path / "other", seed="4"))
    with pytest.raises(UserError, match=r"another job's data.*seed: 3 there, 4 asked"):
        run_job(other, out, workers=1)
    assert snapshot(out) == snapshot(finished)


def test_changed_anchor_file_is_another_job(out, spec, tmp_path):
    import numpy as np

    path = job_file(tmp_path / "other")
    np.save(path.parent / "anchors.npy", np.eye(6, 128, dtype=np.float32))
    with pytest.raises(UserError, match="another job's data"):
        run_job(load_job(path), out, workers=1)


def test_folder_with_foreign_files_is_refused(spec, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        run_job(spec, tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_batch_on_resuming_keeps_the_first(finished, tmp_path, spec, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr("facefoundry.jobs.steps.EmbedStep.open", lambda self: (_ for _ in ()).throw(UserError("stop here")))
    with pytest.raises(UserError, match="stop here"):
        run_job(spec, out, workers=1)
    monkeypatch.undo()
    run_job(spec.model_copy(update={"engine": spec.engine.model_copy(update={"batch": 8})}), out, workers=1)
    assert snapshot(out) == snapshot(finished)


@pytest.mark.parametrize("after", [0, 2, 5, 9])
def test_full_disk_is_said_and_nothing_is_lost(after, finished, tmp_path, spec, monkeypatch):
    out, real, calls = tmp_path / "out", os.fsync, iter(range(10_000))

    def fsync(handle):
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match=r"No space left on device; free space"):
        run_job(spec, out, workers=1)
    monkeypatch.undo()
    assert not list(out.rglob("*.tmp"))
    assert not list(out.glob("job/*/claims/*"))
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root; the monkeypatched test covers the same path")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_really_full_disk(small_disk, finished, spec):
    filler, out = small_disk / "filler", small_disk / "out"
    filler.write_bytes(bytes(216 * 1024))
    with pytest.raises(UserError, match="No space left on device"):
        run_job(spec, out, workers=1)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    run_job(spec, out, workers=1)
    assert snapshot(out) == snapshot(finished)


def test_failed_images_are_recorded_not_lost(tmp_path):
    spec = load_job(job_file(tmp_path, generator="{name: procedural, fail_every: 5, nan_every: 3}"))
    values = run_job(spec, tmp_path / "out", workers=1).values
    counts = values["counts"]
    assert counts["failed"] > 0
    assert counts["generated"] + counts["failed"] == 24
    reasons = json.loads((tmp_path / "out" / "job" / "generate" / "done" / "00000.json").read_text())["failed"]
    assert {"face_id", "reason"} == set(reasons[0])
    assert job_status(tmp_path / "out")["stages"]["generate"]["failed"] == counts["failed"]


def test_generator_that_always_fails_says_why(tmp_path):
    with pytest.raises(UserError, match="6 of a shard.s 8 images failed.*RuntimeError: the procedural generator fails"):
        run_job(load_job(job_file(tmp_path, generator="{name: procedural, fail_every: 1}")), tmp_path / "out", workers=1)
