"""Real people and a job: what ships, what is compared, and what is said about it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.identity.dataset import FaceDataset
from facefoundry.jobs.plan import make_plan
from facefoundry.jobs.run import run_job
from facefoundry.jobs.spec import load_job
from procedural import job_file

LEAKAGE = "[{name: leakage, above: 0.5}]"


def _centres(folder, dim=128):
    """Centres of seven people; the first is the anchor of identity 0, the others are nobody."""
    row_ID = np.random.default_rng(1).standard_normal((7, dim)).astype(np.float32)
    row_ID[0] = np.load(folder / "anchors.npy")[0, :dim]
    np.save(folder / "real.npy", row_ID)


def test_images_near_a_real_person_are_set_aside_and_counted(tmp_path):
    path = job_file(tmp_path, filters=LEAKAGE, centres="real.npy")
    _centres(tmp_path)
    values = run_job(load_job(path), tmp_path / "out", workers=1).values
    rejected = list(FaceDataset.open(tmp_path / "out", "rejected").records())
    assert rejected and all(record.dropped.startswith("leakage ") and record.dropped.endswith("real centre 0") for record in rejected)
    kept = np.array([record.scores["leakage"] for record in FaceDataset.open(tmp_path / "out").records()])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    highest = {row["identity"]: row["cos_real"] for row in report["identities"] if row["kept"]}
    for identity, cosine in highest.items():
        assert cosine == pytest.approx(max(record.scores["leakage"] for record in FaceDataset.open(tmp_path / "out").records() if record.identity == identity), abs=1e-6)
    assert highest and "nearest real person</th>" in (tmp_path / "out" / "report.html").read_text()
    near = values["near_real_people"]
    assert np.allclose([near["images_median"], near["images_highest"]], [np.median(kept), kept.max()], atol=1e-3) and near["images_p99"] <= near["images_highest"] <= near["cosine"]
    assert near["real_fmr"] == 0.0 and f"{near['images_highest']:.3f} at most; for the mean" in values["leakage"] and "0.00% reach the limit" in values["leakage"]
    words = f"compared with the centres of 7 real people by blocks: {len(rejected)} above a cosine of 0.5 were set aside"
    for text in (values["leakage"], (tmp_path / "out" / "README.md").read_text(), (tmp_path / "out" / "report.html").read_text()):
        assert words in text and "came from a file" in text
    assert json.loads((tmp_path / "out" / "report.json").read_text())["leakage"] == values["leakage"]
    assert not [file for file in (tmp_path / "out").rglob("*") if "real" in file.name or "centres" in file.name]  # templates stay where they are


def test_whole_identities_are_set_aside_and_all_is_counted(tmp_path):
    """Real person 0 is the anchor of identity 0. At this limit no image of theirs is near, but the mean of the four is."""
    path = job_file(tmp_path, filters="[{name: leakage, above: 0.97}, {name: leakage_identity, above: 0.97}]", centres="real.npy", identities="{source: file, file: anchors.npy, count: 6}", generator="{name: procedural, spread: 0.6}")
    _centres(tmp_path)
    embed = {}
    values = run_job(load_job(path, ["filters=[{name: leakage, above: 0.9999}]"]), tmp_path / "look", workers=1).values
    assert values["near_real_people"]["images_dropped"] == 0
    for record in FaceDataset.open(tmp_path / "look").records():
        embed.setdefault(record.identity, []).append(record.scores["leakage"])
    one_by_one = max(embed[0])
    limit = round(one_by_one + 0.002, 4)
    out = tmp_path / "out"
    values = run_job(load_job(path, [f"filters=[{{name: leakage, above: {limit}}}, {{name: leakage_identity, above: {limit}}}]"]), out, workers=1).values
    near = values["near_real_people"]
    assert (near["images_dropped"], near["identities_dropped"], near["images_left"], near["identities_left"]) == (0, 1, 0, 0)
    rejected = list(FaceDataset.open(out, "rejected").records())
    assert {record.identity for record in rejected} == {0} and len(rejected) == 4 and all(record.dropped.startswith("leakage_identity ") for record in rejected)
    assert "and 1 identities whose mean was above it" in values["leakage"] and "Of what is kept, 0 images and the means of 0 identities" in values["leakage"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["facts"]["near_real_people"] == near and "identities_dropped 1" in (out / "README.md").read_text()
    only_images = run_job(load_job(path, [f"filters=[{{name: leakage, above: {limit}}}]"]), tmp_path / "images", workers=1).values
    assert only_images["near_real_people"]["identities_left"] == 1  # said, though not asked to be dropped


def test_dropped_anchors_are_counted(tmp_path):
    path = job_file(tmp_path, identities="{source: embeddings, file: many.npy, centres: real.npy, count: 6}", filters="[]")
    _centres(tmp_path)
    rows = np.random.default_rng(3).standard_normal((30, 128))
    rows[:20] = np.eye(7, 128)[np.arange(20) % 7] + 0.02 * rows[:20]
    np.save(tmp_path / "real.npy", np.eye(7, 128))
    np.save(tmp_path / "many.npy", rows)
    values = run_job(load_job(path), tmp_path / "out", workers=1).values
    assert values["near_real_people"] == {"anchors_compared_with": 7, "anchors_dropped": 20}
    assert "30 candidates were compared with the centres of 7 real people: 20 came within a cosine of 0.58 and were dropped" in values["leakage"]
    assert "anchors_dropped 20" in (tmp_path / "out" / "README.md").read_text()


def test_without_centres_the_report_says_so(tmp_path):
    path = job_file(tmp_path, identities="{source: prior, count: 3}", filters="[]")
    words = run_job(load_job(path), tmp_path / "out", workers=1).values["leakage"]
    assert "a pool of 8,000 that was checked before it shipped" in words and "below 0.45" in words and "0.58" in words and "4,200 real people" in words
    assert words.endswith("The images were not compared with real people: no centres were given.")


@pytest.mark.parametrize("changes", [{"filters": LEAKAGE}, {"filters": "[]", "centres": "real.npy"}])
def test_filter_and_centres_go_together(changes, tmp_path):
    with pytest.raises(UserError, match="line 7: the filter 'leakage' and 'centres: real.safetensors' go together.*write_centres"):
        load_job(job_file(tmp_path, **changes))


def test_bad_centres_are_refused_before_anything_is_made(tmp_path):
    spec = load_job(job_file(tmp_path, filters=LEAKAGE, centres="real.npy"))
    with pytest.raises(UserError, match="real.npy cannot be read"):
        make_plan(spec)
    _centres(tmp_path, dim=64)
    with pytest.raises(UserError, match="have 64 numbers, those of the judge 'blocks' 128"):
        make_plan(spec)


def test_centres_count_by_content_not_by_place(tmp_path):
    plans = []
    for name in ("a", "b"):
        path = job_file(tmp_path / name, filters=LEAKAGE, centres="real.npy")
        _centres(tmp_path / name)
        plans.append(make_plan(load_job(path)))
    assert plans[0].fingerprint == plans[1].fingerprint and plans[0].spec.centres != plans[1].spec.centres
    np.save(tmp_path / "b" / "real.npy", np.eye(128))
    assert make_plan(plans[1].spec).fingerprint != plans[0].fingerprint


@pytest.mark.parametrize(("identities", "words"), [("{count: 9000}", "is 9000, but this prior holds 8000"), ("{count: 6, leak_cosine: 0.4}", "leak_cosine is 0.4, but")])
def test_what_the_pool_cannot_give_is_said_by_the_plan(identities, words, tmp_path):
    with pytest.raises(UserError, match=words):
        make_plan(load_job(job_file(tmp_path, identities=identities)))
