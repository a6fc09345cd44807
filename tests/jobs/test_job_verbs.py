"""The verbs round a job: extends, schema, preview, estimate, retry-failed, merge, diff, licences, doctor."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.images import decode, decode_file
from facefoundry.identity.dataset import FaceDataset, verify_dataset
from facefoundry.jobs.cli import main
from facefoundry.jobs.diff import diff_jobs
from facefoundry.jobs.doctor import examine
from facefoundry.jobs.estimate import HARDWARE, SHARE_OF_PEAK, estimate
from facefoundry.jobs.licences import Part, licence_chain
from facefoundry.jobs.merge import merge
from facefoundry.jobs.preview import first_rows, preview
from facefoundry.jobs.retry import retry_failed
from facefoundry.jobs.run import job_status, plan_summary, run_job
from facefoundry.jobs.schema import KINDS, schema
from facefoundry.jobs.spec import bundled_job, load_job
from procedural import ProceduralConfig, job_file, snapshot


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return job_file(tmp_path_factory.mktemp("verbs"))


@pytest.fixture(scope="module")
def done(job, tmp_path_factory):
    return run_job(load_job(job), tmp_path_factory.mktemp("verbs") / "out", workers=1).folder


# extends


def test_extends_is_the_written_out_job(job, tmp_path):
    (tmp_path / "child.yaml").write_text(f"extends: {job}\nper_identity: 5\nwriter: {{format: jpeg}}\n")
    (tmp_path / "grandchild.yaml").write_text("extends: child.yaml\nseed: 9\n")
    spec = load_job(tmp_path / "grandchild.yaml", ["engine.batch=2"])
    whole = load_job(job, ["per_identity=5", "writer.format=jpeg", "seed=9", "engine.batch=2"])
    assert spec == whole and spec.fingerprint() == whole.fingerprint()
    assert spec.writer.shard_identities == 2  # groups are merged
    assert spec.identities.file == job.parent / "anchors.npy"  # beside the file that named it


def test_another_kind_replaces_the_group(job, tmp_path):
    (tmp_path / "child.yaml").write_text(f"extends: {job}\nidentities: {{source: prior, count: 3}}\ngenerator: {{name: uiface}}\nfilters: []\n")
    spec = load_job(tmp_path / "child.yaml")
    assert (spec.identities.file, spec.generator.name, spec.filters) == (None, "uiface", ())


def test_recipes_are_extended_by_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: demo-job.yaml\nname: mine\n")
    spec, demo = load_job(tmp_path / "mine.yaml"), load_job(bundled_job("demo-job.yaml"))
    assert spec == demo.model_copy(update={"name": "mine"})


def test_extends_mistakes_name_the_place(job, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(job.read_text().replace("per_identity: 4", "per_identity: -1"))
    (tmp_path / "a.yaml").write_text("name: a\nextends: base.yaml\n")
    with pytest.raises(UserError, match=r"a\.yaml, line 4 of base\.yaml: 'per_identity' is -1"):
        load_job(tmp_path / "a.yaml")
    base.write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match=r"in a circle \(a.yaml -> base.yaml -> a.yaml\)"):
        load_job(tmp_path / "a.yaml")
    for value, words in (("nowhere.yaml", "neither beside it"), ("[a, b]", "expected the name of one job file")):
        base.write_text(f"extends: {value}\n")
        with pytest.raises(UserError, match=words):
            load_job(base)


# schema


def test_schema_knows_generators_and_filters():
    found = schema()
    generator = {entry["properties"]["name"]["const"]: entry for entry in found["else"]["properties"]["generator"]["anyOf"][1:]}
    assert {"uiface", "procedural"} <= generator.keys()
    assert {"sampler", "guidance", "denoiser"} & generator["uiface"]["properties"].keys() == {"sampler", "denoiser"}
    assert "required" not in found["then"] and set(found["else"]["required"]) == {"name", "identities", "per_identity", "generator"}
    refs = [part for part in json.dumps(found).split('"') if part.startswith("#/$defs/")]
    assert refs and {ref.removeprefix("#/$defs/") for ref in refs} <= found["$defs"].keys()


def test_schema_against_a_validator(job, tmp_path):
    validator = pytest.importorskip("jsonschema", reason="jsonschema is not installed").Draft202012Validator
    yaml = pytest.importorskip("yaml")
    check = validator(schema())
    validator.check_schema(check.schema)
    good = yaml.safe_load(job.read_text())
    assert check.is_valid(good) and check.is_valid(yaml.safe_load(bundled_job("demo-job.yaml").read_text()))
    assert check.is_valid({"extends": "base.yaml", "generator": {"spread": 0.1}, "identities": {"count": 3}})
    for change in ({"per_identity": -1}, {"seeed": 1}, {"generator": {"name": "uiface", "spread": 1}}, {"filters": [{"name": "nothing"}]}, {"extends": "b", "seeed": 1}):
        assert not check.is_valid({**good, **change})
    assert not check.is_valid({key: value for key, value in good.items() if key != "identities"})


@pytest.mark.parametrize("kind", KINDS[1:])
def test_training_files_have_schemas(kind):
    assert schema(kind)["additionalProperties"] is False


# preview, estimate


def test_preview_shows_the_jobs_own_images(job, done, tmp_path):
    found = preview(load_job(job), tmp_path / "p.png", images=7, per_identity=3)
    assert (found["images"], found["identities"], found["failed"], len(found["anchor_cosine"])) == (7, 3, [], 3)
    picture = decode_file(tmp_path / "p.png")
    assert picture.shape == (3 * 116 + 4, 3 * 116 + 4, 3)
    images = {record.face_id: decode(record.image) for part in ("data", "rejected") for record in FaceDataset.open(done, part).records()}
    for row, column in ((0, 0), (1, 2), (2, 0)):
        tile = picture[4 + row * 116 :, 4 + column * 116 :][:112, :112]
        assert np.abs(tile.astype(int) - images[f"{row:06d}/{column:04d}"]).max() <= 1
    assert (picture[4 + 2 * 116 :, 4 + 116 :] == 246).all()  # no eighth image
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png"]


def test_first_rows_stay_in_the_job(job):
    assert first_rows(load_job(job), 100, 9) == [(i, k) for i in range(6) for k in range(4)]
    assert first_rows(load_job(job), 1, 4) == [(0, 0)]


def test_estimate_is_time_times_images(job):
    spec = load_job(job, ["generator.delay_s=0.02", "identities.count=6", "engine.batch=2"])
    found = estimate(spec, batches=3, workers=2, usd_per_h=3.0, on=["H200"])
    parts = found["seconds_per_image"]
    assert 0.02 <= parts["generate"] < 0.2 and found["measured_images"] == 6
    assert found["worker_hours"] == pytest.approx(24 * sum(parts.values()) / 3600, abs=1e-4)
    assert found["hours"] == pytest.approx(found["worker_hours"] / 2, abs=1e-4)
    assert found["usd"] == pytest.approx(3 * found["hours"], abs=0.01)
    flop = 2 * 128 * 3 * 14 * 14  # the procedural generator's one matrix product
    assert found["gflop_per_image"] == pytest.approx(flop / 1e9, abs=1e-3)
    (there,) = found["elsewhere"]
    assert there["hardware"] == "h200"
    assert there["hours"][1] / max(there["hours"][0], 1e-9) == pytest.approx(SHARE_OF_PEAK[1] / SHARE_OF_PEAK[0], rel=0.5) or there["hours"][1] < 1e-3
    with pytest.raises(UserError, match="known: a100, a10g"):
        estimate(spec, on=["h2000000"])
    assert {card.usd_per_h for card in HARDWARE.values()} == {0.8, 1.0, 1.8, 2.5, 2.75, 5.0}


# retry-failed


@pytest.mark.parametrize("refill", [0, 1])
def test_retry_ends_as_if_nothing_had_failed(tmp_path, monkeypatch, refill):
    spec = load_job(job_file(tmp_path, engine="{batch: 1, lease_s: 5}", filters="[]", refill=str(refill)))  # batches of one: a retry has the shapes of the first try
    clean = run_job(spec, tmp_path / "clean", workers=1)
    whole = ProceduralConfig.tiny().generate.__func__

    def flaky(self, anchor_BD, seeds):
        if seeds[0] % 5 == 0:
            raise RuntimeError("flaky")
        return whole(self, anchor_BD, seeds)

    monkeypatch.setattr(type(ProceduralConfig.tiny()), "generate", flaky)
    broken = run_job(spec, tmp_path / "broken", workers=1)
    failed = broken.values["counts"]["failed"]
    assert failed and (failed < 24)
    if not refill:
        again = retry_failed(broken.folder, workers=1)  # still broken: nothing is lost
        assert (again["failed_before"], again["failed_after"]) == (failed, failed)
    calls = []
    monkeypatch.setattr(type(ProceduralConfig.tiny()), "generate", lambda self, anchor_BD, seeds: calls.extend(seeds) or whole(self, anchor_BD, seeds))
    found = retry_failed(broken.folder, workers=1)
    assert (found["failed_before"], found["failed_after"]) == (failed, 0)
    assert len(calls) == 8 * found["shards"] <= 24  # the shards with failures, whole; the others come from the dataset
    assert snapshot(broken.folder) == snapshot(clean.folder)
    assert job_status(broken.folder)["state"] == "finished"
    assert retry_failed(broken.folder) == {"failed_before": 0, "failed_after": 0, "shards": 0}


# merge


@pytest.fixture(scope="module")
def other(job, tmp_path_factory):
    return run_job(load_job(job, ["seed=4", "name=other", "identities.count=6"]), tmp_path_factory.mktemp("verbs") / "other", workers=1).folder


def test_merge_keeps_every_row_under_a_new_name(done, other, tmp_path):
    found = merge([done, other], tmp_path / "both", title="both")
    assert verify_dataset(tmp_path / "both") == []
    assert (found["sets"], found["data"], found["rejected"], found["identities"], found["duplicates"]) == (2, 40, 8, 12, 0)
    assert found["close_people"] == 6  # both draw the same anchors
    before = {(place, record.face_id): record for place, folder in enumerate((done, other)) for part in ("data", "rejected") for record in FaceDataset.open(folder, part).records()}
    for part in ("data", "rejected"):
        for record in FaceDataset.open(tmp_path / "both", part).records():
            place, _, old = record.source.partition(":")
            was = before.pop((int(place), old))
            assert (record.image, record.seed, record.scores, record.dropped) == (was.image, was.seed, was.scores, was.dropped)
            assert record.identity == was.identity + 6 * int(place) == int(record.face_id[:6])
    assert not before
    table = pq.read_table(tmp_path / "both" / "metadata" / "identities.parquet").to_pylist()
    assert {"identity": 7, "set": 1, "set_title": "other", "identity_in_set": 1}.items() <= table[7].items()
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert "small (" in manifest["facts"]["merged_from"] and "other (" in manifest["facts"]["merged_from"]


def test_merge_sets_equal_files_and_near_people_aside(done, other, tmp_path):
    twice = merge([done, done], tmp_path / "twice", title="twice")
    assert (twice["data"], twice["duplicates"]) == (20, 20)
    apart = merge([done, other], tmp_path / "apart", title="apart", drop_close=True)
    assert (apart["data"], apart["identities"]) == (20, 6)
    reasons = {record.dropped.partition(":")[0] for record in FaceDataset.open(tmp_path / "apart", "rejected").records() if record.source.startswith("1:")}
    assert "close_identity" in reasons


def test_merge_refusals(done, tmp_path):
    with pytest.raises(UserError, match="two or more"):
        merge([done], tmp_path / "out", title="x")
    with pytest.raises(UserError, match="not empty"):
        merge([done, done], done, title="x")
    shutil.copytree(done, tmp_path / "bad")
    shard = next((tmp_path / "bad" / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged"):
        merge([done, tmp_path / "bad"], tmp_path / "out", title="x")


# diff


def test_diff_of_files_and_folders(job, done, other, tmp_path):
    same = diff_jobs(job, done)
    assert same["same_dataset"] and not same["settings"] and not same["materials"]
    found = diff_jobs(done, other)
    assert not found["same_dataset"]
    assert found["settings"] == {"name": ["small", "other"], "seed": [3, 4]}
    assert found["images"]["same"] == 0 and found["images"]["other_pixels"] + found["images"]["only_first"] == 20
    assert diff_jobs(done, done)["images"] == {"same": 20, "other_pixels": 0, "only_first": 0, "only_second": 0}
    faster = job_file(tmp_path, engine="{batch: 4, lease_s: 5}")
    found = diff_jobs(job, faster)
    assert found["same_dataset"] and found["engine"] == {"engine.batch": [3, 4]}


# licences, doctor


def test_licence_chain_of_the_demo():
    spec = load_job(bundled_job("demo-job.yaml"))
    chain = {part.role: part for part in licence_chain(spec)}
    assert chain.keys() == {"generator.denoiser", "generator.autoencoder", "identities", "judge"}
    assert not any(part.is_open for part in chain.values())
    found = plan_summary(spec)
    assert found["licences"]["judge"].startswith("dlib: ")
    assert any(word.startswith("licence: generator.denoiser") for word in found["warnings"])
    assert any(word.startswith("leakage: ") for word in found["warnings"])


@pytest.mark.parametrize(("text", "is_open"), [("CC0", True), ("CC BY 4.0", True), ("MIT licence", True), ("CC BY-NC 4.0", False), ("for research use", False), ("not known here", False)])
def test_what_counts_as_open(text, is_open):
    assert Part(role="judge", name="x", licence=text).is_open == is_open


def test_doctor(monkeypatch):
    found = examine()
    assert found["ok"] and found["packages"]["torch"] and found["backends"]["device"]
    monkeypatch.setitem(sys.modules, "dlib", None)
    broken = examine()
    assert not broken["ok"] and "dlib is installed but cannot be imported" in broken["problems"][0]


# the command line


def call(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["facefoundry", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return ended.value.code or 0, out


def test_verbs_by_the_command_line(monkeypatch, capsys, job, done, other, tmp_path):
    assert call(monkeypatch, capsys, "schema", "--out", tmp_path / "job.json")[0] == 0
    assert json.loads((tmp_path / "job.json").read_text())["$id"] == "facefoundry-job.json"
    assert json.loads(call(monkeypatch, capsys, "schema", "recogniser")[1])["title"] == "RecogniserRecipe"
    code, out = call(monkeypatch, capsys, "preview", job, "-n", "2", "--out", tmp_path / "p.png")
    assert code == 0 and "contact sheet" in out and (tmp_path / "p.png").is_file()
    code, out = call(monkeypatch, capsys, "estimate", job, "--batches", "1", "--on", "l4", "--price", "1")
    assert code == 0 and "l4" in out and "not measured" in out
    code, out = call(monkeypatch, capsys, "plan", job)
    assert code == 0 and "Licence chain" in out and "leakage" in out
    code, out = call(monkeypatch, capsys, "diff", done, other)
    assert code == 1 and "Different datasets." in out and "seed" in out
    assert call(monkeypatch, capsys, "diff", job, done)[0] == 0
    assert "Nothing had failed" in call(monkeypatch, capsys, "retry-failed", done)[1]
    assert call(monkeypatch, capsys, "merge", done, other, "--out", tmp_path / "both")[0] == 0
    assert call(monkeypatch, capsys, "export", tmp_path / "both", "--out", tmp_path / "rec", "--format", "rec")[0] == 0
    code, out = call(monkeypatch, capsys, "ingest", tmp_path / "rec", "--out", tmp_path / "back", "--no-align", "--json")
    assert json.loads(out)["kept"] == 40
    assert set(FaceDataset.open(tmp_path / "back").table.column("origin").to_pylist()) == {"generated:procedural"}
    assert "machine" in call(monkeypatch, capsys, "doctor")[1]
    assert call(monkeypatch, capsys, "schema", "jbo")[0] == 2
    assert not Path("preview.png").exists()
