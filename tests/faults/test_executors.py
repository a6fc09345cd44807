"""The same dataset from every executor, whoever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from facefoundry.core.errors import UserError
from facefoundry.jobs.executors import RayExecutor
from facefoundry.jobs.ranks import detect_rank
from facefoundry.jobs.run import run_job, verify_job
from facefoundry.jobs.spec import JobSpec, load_job
from procedural import job_file, snapshot

TESTS = Path(__file__).resolve().parents[1]
SLOW = "{name: procedural, delay_s: 0.05}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Files of the dataset of an undisturbed run by one process."""
    folder = tmp_path_factory.mktemp("whole")
    run_job(load_job(job_file(folder, generator=SLOW)), folder / "out", workers=1)
    return snapshot(folder / "out"), verify_job(folder / "out")["digest"]


def job(folder: Path, executor: str) -> JobSpec:
    """A job whose workers, fresh processes on "other machines", learn of the test's generator by `imports`."""
    return load_job(job_file(folder, generator=SLOW, engine=f"{{batch: 3, lease_s: 5, imports: [procedural], executor: {executor}}}"))


def owners(out: Path) -> list[int]:
    """Process numbers of those who hold a shard."""
    found = []
    for claim in (out / "job" / "generate" / "claims").glob("0*"):
        try:
            found.append(json.loads(claim.read_bytes())["pid"])
        except (OSError, json.JSONDecodeError):
            continue
    return found


# ranks


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0, False)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (3, 4, 1, True)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "2"}, (5, 8, 2, True)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "2", "RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 0, False)),
        ({"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}, (1, 2, 0, False)),
        ({"JOB_COMPLETION_INDEX": "7"}, (7, None, 0, False)),
    ],
)
def test_ranks_of_the_schedulers(environment, expected):
    rank = detect_rank(environment)
    assert (rank.index, rank.count, rank.local, rank.shares_host) == expected


@pytest.mark.parametrize("environment", [{"RANK": "two"}, {"RANK": "4", "WORLD_SIZE": "4"}, {"SLURM_PROCID": "-1", "SLURM_NTASKS": "2"}])
def test_nonsense_ranks_are_refused(environment):
    with pytest.raises(UserError, match="RANK|SLURM_PROCID"):
        detect_rank(environment)


def test_ranks_of_one_launch_share_the_job_and_one_reports(whole, tmp_path):
    path, out = job_file(tmp_path, generator=SLOW), tmp_path / "out"
    command = [sys.executable, str(TESTS / "procedural.py"), "run", str(path), "--out", str(out), "--json"]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank)}) for rank in range(3)]
    words = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0]
    assert json.loads(words[0])["counts"]["generated"] == 24 and words[1:] == ["", ""]
    assert snapshot(out) == whole[0] and (out / "report.html").is_file()


# Slurm, by submitit's own stand-in for a cluster


def test_slurm_tasks_make_the_same_dataset(whole, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    run_job(job(tmp_path, "{name: slurm, cluster: local, gpus: 0, time_min: 5}"), tmp_path / "out", workers=2)
    assert snapshot(tmp_path / "out") == whole[0]
    assert list((tmp_path / "out" / "job" / "slurm").glob("*_log.out"))


def test_a_mistake_on_a_node_is_told_here(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    spec = load_job(job_file(tmp_path, generator="{name: procedural, fail_every: 1}", engine="{batch: 3, lease_s: 5, imports: [procedural], executor: {name: slurm, cluster: local, gpus: 0}}"))
    with pytest.raises(UserError, match="images failed.*the procedural generator fails"):
        run_job(spec, tmp_path / "out", workers=2)


def test_a_worker_that_is_queued_again_is_the_same_worker():
    pytest.importorskip("submitit")
    from facefoundry.jobs.slurm import Worker

    worker = Worker(steps=(), shards=(), number=3)
    assert worker.checkpoint().function is worker


def test_slurm_asks_for_a_number_of_workers_and_for_slurm(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="engine.workers"):
        run_job(job(tmp_path, "{name: slurm, cluster: local}"), tmp_path / "out")
    with pytest.raises(UserError, match="login node"):
        run_job(job(tmp_path, "slurm"), tmp_path / "out", workers=1)


def test_unknown_executors_and_modules_are_mistakes_with_their_line(tmp_path):
    with pytest.raises(UserError, match="line 9.*(slurrm|executor)"):
        job(tmp_path, "slurrm")
    with pytest.raises(UserError, match="line 9: cannot import 'no_such_module'"):
        load_job(job_file(tmp_path, engine="{imports: [no_such_module]}"))


# Ray: a cluster of two nodes on this machine


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Address of a head and a second node with a processor each; its processes, to be killed."""
    ray = pytest.importorskip("ray")
    short = Path(f"/tmp/ff-ray-{os.getpid()}")  # Ray's sockets need short paths
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    before = {process.pid for process in psutil.process_iter()}
    start = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
    port = 20_000 + os.getpid() % 20_000
    subprocess.run([*start, "--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={short}"], env=environment, check=True, capture_output=True, timeout=120)
    subprocess.run([*start, f"--address=127.0.0.1:{port}"], env=environment, check=True, capture_output=True, timeout=120)
    mine = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in before and "ray" in " ".join(process.info["cmdline"] or ())]
    yield f"127.0.0.1:{port}", mine
    ray.shutdown()
    for process in mine:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    subprocess.run(["rm", "-rf", str(short)], check=False)


def test_ray_actors_one_of_them_killed_then_the_head(cluster, whole, tmp_path):
    address, processes = cluster
    out, path = tmp_path / "out", tmp_path / "job"
    child = os.fork()
    if child == 0:  # a leader of its own: Ray does not let a process leave a cluster that died under it
        code = 1
        try:
            run_job(job(path, f"{{name: ray, address: '{address}'}}"), out)
            code = 0
        except UserError as error:
            (tmp_path / "words").write_text(str(error))
            code = 2
        finally:
            os._exit(code)
    _await(lambda: len(owners(out)) == 2)
    os.kill(owners(out)[0], signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert snapshot(out) == whole[0]
    _lose_the_head(address, processes, whole, tmp_path)


def _lose_the_head(address: str, processes: list, whole, tmp_path: Path) -> None:
    """Part two, with the same cluster (starting one takes seconds)."""
    path, out = job_file(tmp_path / "second", generator=SLOW, engine=f"{{batch: 1, lease_s: 5, imports: [procedural], executor: {{name: ray, address: '{address}'}}}}"), tmp_path / "second" / "out"
    leader = subprocess.Popen([sys.executable, str(TESTS / "procedural.py"), "run", str(path), "--out", str(out)], stderr=subprocess.PIPE, text=True)
    _await(lambda: bool(owners(out)))
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, words = leader.communicate(timeout=60)
    assert leader.returncode == 2 and "run the same command again" in words, words
    for owner in owners(out):
        if psutil.pid_exists(owner):
            os.kill(owner, signal.SIGKILL)
    run_job(load_job(path, ["engine.executor=local"]), out, workers=1)
    found = verify_job(out)
    assert found["ok"] and found["digest"] == whole[1]


def test_no_cluster_is_a_mistake_with_a_remedy():
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="nothing answers there.*ray start --head"):
        RayExecutor(name="ray", address="127.0.0.1:1").workers("cpu")


def _await(condition, limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come about"
        time.sleep(0.02)
