"""Workers without a common disk that meet in an object store: a stand-in for S3, and what goes wrong with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from facefoundry.core.errors import UserError
from facefoundry.jobs.run import run_job, verify_job
from facefoundry.jobs.spec import load_job
from facefoundry.jobs.store import Store, StoreStage
from procedural import job_file, snapshot

PROGRAM = Path(__file__).resolve().parents[1] / "procedural.py"
SLOW = "{name: procedural, delay_s: 0.05}"


@pytest.fixture(scope="module")
def bucket():
    """URL of a fresh bucket; its server listens on the loopback until the module is done."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    keep = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}"}
    import fsspec

    fsspec.filesystem("s3").mkdir("faces")
    yield "s3://faces"
    server.stop()
    os.environ.clear()
    os.environ |= keep


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run_job(load_job(job_file(folder, generator=SLOW)), folder / "out", workers=1)
    return snapshot(folder / "out"), verify_job(folder / "out")["digest"]


def engine(url: str) -> str:
    return f"{{batch: 3, lease_s: 2, store: '{url}'}}"


def start(path: Path, out: Path, rank: int, count: int = 2) -> subprocess.Popen:
    environment = {**os.environ, "JOB_COMPLETION_INDEX": str(rank), "JOB_COMPLETIONS": str(count)}
    return subprocess.Popen([sys.executable, str(PROGRAM), "run", str(path), "--out", str(out), "--workers", "1"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_two_machines_share_a_job_and_a_third_finds_it_done(bucket, whole, tmp_path):
    path = job_file(tmp_path, generator=SLOW, engine=engine(f"{bucket}/two"))
    machines = [start(path, tmp_path / f"machine{rank}", rank) for rank in range(2)]
    words = [machine.communicate(timeout=120)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], words
    assert snapshot(tmp_path / "machine0") == whole[0]
    fresh = run_job(load_job(path), tmp_path / "fresh", workers=1)
    assert snapshot(fresh.folder) == whole[0]
    assert Store(f"{bucket}/two").names("job/generate") and not [name for name in Store(f"{bucket}/two").names("job/generate") if name.endswith(".parquet")]


def test_a_machine_that_dies_loses_its_lease(bucket, whole, tmp_path):
    path = job_file(tmp_path, generator="{name: procedural, delay_s: 0.2}", engine=engine(f"{bucket}/death"))
    first = start(path, tmp_path / "first", 1)
    end_s = time.monotonic() + 60
    while not Store(f"{bucket}/death").names("job/generate/claims"):
        assert time.monotonic() < end_s and first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.communicate()
    run_job(load_job(path), tmp_path / "second", workers=1)
    found = verify_job(tmp_path / "second")
    assert found["ok"] and found["digest"] == whole[1]


def test_only_one_of_many_gets_a_claim_and_a_live_one_is_left_alone(bucket, tmp_path):
    stages = [StoreStage(root=tmp_path / str(k), name="generate", lease_s=0.4, store=Store(f"{bucket}/claims")) for k in range(2)]
    with stages[0].claim(3) as mine:
        assert mine
        end_s = time.monotonic() + 1.2  # three leases: the heart beats
        while time.monotonic() < end_s:
            with stages[1].claim(3) as other:
                assert not other
            time.sleep(0.05)
    with stages[1].claim(3) as free:
        assert free


def test_damaged_objects_take_their_marker_back(bucket, tmp_path):
    store = Store(f"{bucket}/damage")
    maker, reader = (StoreStage(root=tmp_path / name, name="generate", store=store) for name in ("maker", "reader"))
    for stage in (maker, reader):
        stage.repair([0])
    path = maker.data(0, ".bin")
    path.write_bytes(b"the images")
    maker.complete(0, [path], {"rows": 1})
    assert reader.data(0, ".bin").read_bytes() == b"the images"
    reader.data(0, ".bin").unlink()
    store.put("job/generate/00000.bin", b"the imagez")
    with pytest.raises(UserError, match="damaged or missing"):
        reader.data(0, ".bin")
    assert reader.marked() == set() and not (tmp_path / "reader" / "job" / "generate" / "00000.bin").exists()


def test_the_first_plan_counts(bucket, tmp_path):
    one, two = (job_file(tmp_path / name, engine=f"{{batch: {batch}, store: '{bucket}/plans'}}") for name, batch in (("one", 2), ("two", 3)))
    run_job(load_job(one), tmp_path / "a", workers=1)
    run_job(load_job(two), tmp_path / "b", workers=1)
    assert json.loads((tmp_path / "b" / "job" / "plan.json").read_bytes())["job"]["engine"]["batch"] == 2
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


def test_another_job_in_the_store_and_another_store_are_refused(bucket, tmp_path):
    run_job(load_job(job_file(tmp_path / "one", engine=f"{{store: '{bucket}/mine'}}")), tmp_path / "a", workers=1)
    with pytest.raises(UserError, match="another job's data"):
        run_job(load_job(job_file(tmp_path / "two", seed="4", engine=f"{{store: '{bucket}/mine'}}")), tmp_path / "b", workers=1)
    with pytest.raises(UserError, match="belongs to the store"):
        run_job(load_job(job_file(tmp_path / "one", engine=f"{{store: '{bucket}/other'}}")), tmp_path / "a", workers=1)


@pytest.mark.parametrize(("url", "message"), [("s3://no-such-bucket/x", "cannot be used"), ("nosuch://x", "cannot be opened")])
def test_unusable_stores_are_mistakes(bucket, url, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run_job(load_job(job_file(tmp_path, engine=f"{{store: '{url}'}}")), tmp_path / "out", workers=1)
