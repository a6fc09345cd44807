"""The line from a job file to a dataset, with a generator that draws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode
from facefoundry.core.seeds import derive_seed
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs.plan import make_plan, read_plan
from facefoundry.jobs.run import job_status, plan_summary, run_job, verify_job
from facefoundry.jobs.spec import bundled_job, load_job
from procedural import ProceduralConfig, job_file, snapshot


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return job_file(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def result(job, tmp_path_factory):
    return run_job(load_job(job), tmp_path_factory.mktemp("result") / "out", workers=1)


def test_rows_are_what_the_plan_says(job, result):
    spec = load_job(job)
    records = [record for part in ("data", "rejected") for record in FaceDataset.open(result.folder, part).records()]
    assert sorted(record.face_id for record in records) == [f"{i:06d}/{k:04d}" for i in range(6) for k in range(4)]
    for record in records:
        identity, image = (int(part) for part in record.face_id.split("/"))
        assert record.identity == identity
        assert record.seed == derive_seed(spec.seed, identity, image, "noise")
        assert record.origin == "generated:procedural"
        assert {"anchor_similarity", "centre_similarity", "sdd_fiqa"} <= record.scores.keys()


def test_images_are_the_generators_for_anchor_and_seed(job, result):
    anchor_ID = np.load(job.parent / "anchors.npy")
    record = next(FaceDataset.open(result.folder).records())
    batch = ProceduralConfig.tiny().generate(anchor_ID[[record.identity]], [record.seed])
    assert np.abs(decode(record.image).astype(int) - np.round((batch.image_BCHW[0].permute(1, 2, 0).numpy() + 1) * 127.5)).max() <= 1
    assert np.allclose(record.anchor, anchor_ID[record.identity], atol=1e-6)


def test_rejected_rows_are_kept_with_reason(result):
    counts = result.values["counts"]
    rejected = list(FaceDataset.open(result.folder, "rejected").records())
    assert counts == {"generated": 24, "kept": 24 - len(rejected), "rejected": len(rejected), "failed": 0, "identities": counts["identities"], "reasons": {"sdd_fiqa": len(rejected)}}
    assert len(rejected) == 4  # a fifth of 24, rounded down
    assert all(record.dropped.startswith("sdd_fiqa ") for record in rejected)


def test_figures_agree_with_the_plain_reference(result):
    records = list(FaceDataset.open(result.folder).records())
    embed_ND = np.concatenate([np.load(path) for path in sorted((result.folder / "job" / "embed").glob("*.npy"))])
    names = [name for path in sorted((result.folder / "job" / "generate" / "done").glob("*.json")) for name in json.loads(path.read_text())["face_id"]]
    row = {name: embed_ND[index] for index, name in enumerate(names)}
    mated, non_mated = [], []
    for left in range(len(records)):
        for right in range(left):
            cos = float(row[records[left].face_id] @ row[records[right].face_id])
            (mated if records[left].identity == records[right].identity else non_mated).append(cos)
    auc = np.mean([(m > n) + 0.5 * (m == n) for m in mated for n in non_mated])
    assert result.values["figures"]["auc"] == pytest.approx(auc)
    assert result.values["figures"]["mated_mean"] == pytest.approx(np.mean(mated), abs=1e-5)
    anchor = np.mean([row[record.face_id] @ record.anchor for record in records])
    assert result.values["figures"]["anchor_cosine"] == pytest.approx(anchor, abs=1e-5)


def test_opens_with_datasets_alone(result, tmp_path):
    table = datasets.load_dataset(str(result.folder), cache_dir=str(tmp_path))["train"]
    assert len(table) == result.values["counts"]["kept"]
    assert table[0]["image"].size == (112, 112)


def test_second_run_has_nothing_to_do(job, result):
    before, times = snapshot(result.folder), {path: path.stat().st_mtime_ns for path in result.folder.glob("data/*")}
    run_job(load_job(job), result.folder, workers=1)
    assert snapshot(result.folder) == before
    assert times == {path: path.stat().st_mtime_ns for path in result.folder.glob("data/*")}


def test_two_workers_give_the_same_files(job, result, tmp_path):
    program = Path(__file__).resolve().parents[1] / "procedural.py"
    done = subprocess.run([sys.executable, str(program), "run", str(job), "--out", str(tmp_path / "out"), "--workers", "2", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images_sha256"] == result.values["images_sha256"]
    assert snapshot(tmp_path / "out") == snapshot(result.folder)


def test_verify_and_status(result):
    found = verify_job(result.folder)
    assert found == {"ok": True, "problems": [], "rows": 24, "digest": result.values["images_sha256"]}
    status = job_status(result.folder)
    assert status["state"] == "finished"
    assert status["stages"]["generate"]["images"] == 24


def test_status_of_a_job_half_done(job, tmp_path, monkeypatch):
    monkeypatch.setattr("facefoundry.jobs.steps.EmbedStep.open", lambda self: (_ for _ in ()).throw(UserError("stop")))
    with pytest.raises(UserError, match="stop"):
        run_job(load_job(job), tmp_path / "out", workers=1)
    status = job_status(tmp_path / "out")
    assert (status["state"], status["stages"]["generate"]["done"], status["stages"]["embed"]["done"]) == ("stopped", 3, 0)


def test_plan_writes_nothing_and_names_materials(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = plan_summary(load_job(job))
    assert (summary["images"], summary["shards"], summary["identities"]) == (24, 3, 6)
    assert not list(tmp_path.iterdir())
    assert len(make_plan(load_job(job)).materials["identities"]) == 64


def test_demo_plan_hashes_the_weights():
    assert {"identities", "generator.denoiser", "generator.autoencoder"} <= make_plan(load_job(bundled_job("demo-job.yaml"))).materials.keys()


def test_plan_on_disk_and_back(result, job):
    plan = read_plan(result.folder)
    assert plan.spec.fingerprint() == load_job(job).fingerprint()
    assert [shard.first_identity for shard in plan.shards] == [0, 2, 4]


def test_report_is_one_file_without_network(result):
    page = (result.folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    assert "https://" not in page.replace("https://matplotlib.org", "")
    assert "<script" not in page and "<link" not in page
    assert page.count("data:image/jpeg;base64,") >= 19
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page
    figures = json.loads((result.folder / "report.json").read_text())
    assert figures["counts"]["kept"] == 20 and len(figures["identities"]) == 6


def test_report_escapes_what_users_write(tmp_path):
    values = run_job(load_job(job_file(tmp_path, generator="{name: procedural, fail_every: 9}")), tmp_path / "out", workers=1).values
    page = (tmp_path / "out" / "report.html").read_text()
    assert values["counts"]["failed"] > 0 and "failed: <code>" in page


def test_jpeg_writer(tmp_path):
    run_job(load_job(job_file(tmp_path, writer="{format: jpeg, quality: 90}", filters="[]")), tmp_path / "out", workers=1)
    dataset = FaceDataset.open(tmp_path / "out")
    assert len(dataset) == 24
    assert next(dataset.records()).image[:3] == b"\xff\xd8\xff"
    assert not (tmp_path / "out" / "rejected").exists()


def test_filters_that_take_all_are_said(tmp_path):
    with pytest.raises(UserError, match="rejected all 24 images.*anchor_similarity"):
        run_job(load_job(job_file(tmp_path, filters="[{name: anchor_similarity, below: 1}]")), tmp_path / "out", workers=1)


def test_one_image_each_has_no_pairs_and_no_charts(tmp_path):
    values = run_job(load_job(job_file(tmp_path, per_identity="1", filters="[]")), tmp_path / "out", workers=1).values
    assert "auc" not in values["figures"]
    assert "Same or different" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.full((6, 128), np.nan, np.float32), "6 rows that are NaN"),
        (np.ones((5, 128), np.float32), r"shape \(5, 128\), but count = 6"),
        (np.ones((6, 64), np.float32), "the identities have 64 numbers each, but the generator 'procedural' takes 128"),
        (np.ones(6, object), "cannot be read as a .npy file"),
    ],
)
def test_bad_anchor_files(rows, words, tmp_path):
    path = job_file(tmp_path)
    np.save(tmp_path / "anchors.npy", rows)
    with pytest.raises(UserError, match=words):
        run_job(load_job(path), tmp_path / "out", workers=1)


def test_device_that_is_not_there(tmp_path):
    for name in ("cuda:77", "abacus"):
        with pytest.raises(UserError, match="use auto or cpu"):
            run_job(load_job(job_file(tmp_path), [f"engine.device={name}"]), tmp_path / "out", workers=1)


def test_fifty_thousand_shards_are_planned(tmp_path):
    plan = make_plan(load_job(job_file(tmp_path), ["identities.count=100000", "writer.shard_identities=2"]))
    assert len(plan.shards) == 50_000 and sum(shard.identities for shard in plan.shards) == 100_000

