"""Job files: what is read, what is refused and how it is said, what counts for the fingerprint."""

from __future__ import annotations

import pytest
from facefoundry.core.errors import UserError
from facefoundry.identity.anchors import LEAK_COSINE
from facefoundry.jobs.spec import JobSpec, bundled_job, load_job
from procedural import job_file


def test_document_and_back(tmp_path):
    spec = load_job(job_file(tmp_path))
    again = JobSpec.parse(spec.document())
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_bundled_demo_job_is_valid():
    spec = load_job(bundled_job("demo-job.yaml"))
    assert (spec.identities.count, spec.per_identity, spec.generator.name) == (24, 8, "uiface")


def test_match_cosine_is_the_measured_one():
    assert JobSpec.model_fields["match_cosine"].default == LEAK_COSINE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"per_identity": "-4"}, ["line 4", "'per_identity' is -4", "greater than 0"]),
        ({"identities": "{count: many}"}, ["line 3", "identities.count", "'many'", "integer"]),
        ({"identities": "{source: file, count: 6}"}, ["line 3", "'file: anchors.npy' go together"]),
        ({"per_identiti": "3"}, ["line 10", "unknown key 'per_identiti'", "did you mean 'per_identity'"]),
        ({"generator": "{name: procedurall}"}, ["line 5", "unknown generator 'procedurall'", "did you mean 'procedural'"]),
        ({"generator": "{name: procedural, delay: 3}"}, ["line 5", "unknown key 'delay'", "did you mean 'delay_s'"]),
        ({"generator": "{delay_s: 3}"}, ["line 5", "has no 'name'"]),
        ({"generator": "7"}, ["line 5", "'generator' is 7"]),
        ({"filters": "[{name: sdd_fiqa}, {name: sddfiqa}]"}, ["exactly one of 'below'", "unknown filter 'sddfiqa'; did you mean 'sdd_fiqa'"]),
        ({"filters": "[{name: sdd_fiqa, lowest: 0.1}]"}, ["line 7", "unknown key 'lowest'", "did you mean 'lowest_share'"]),
        ({"writer": "{format: gif}"}, ["line 8", "writer.format", "'png' or 'jpeg'"]),
        ({"engine": "{workers: 0}"}, ["line 9", "engine.workers"]),
        ({"name": "../evil"}, ["line 1", "'name' is '../evil'"]),
    ],
)
def test_bad_job_file_names_line_and_remedy(changes, words, tmp_path):
    with pytest.raises(UserError) as caught:
        load_job(job_file(tmp_path, **changes))
    for word in words:
        assert word in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        load_job(job_file(tmp_path, per_identity="0", generator="{name: procedural, delay: 1}", seed="-1"))
    assert len(str(caught.value).splitlines()) == 3


def test_absent_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="there is no job file"):
        load_job(tmp_path / "job.yaml")
    (tmp_path / "job.yaml").write_text("name: [a\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load_job(tmp_path / "job.yaml")
    (tmp_path / "job.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_job(tmp_path / "job.yaml")


def test_fingerprint_is_of_what_decides_bytes(tmp_path):
    path = job_file(tmp_path)
    base = load_job(path).fingerprint()
    for same in ("engine.workers=7", "engine.batch=1", "engine.device=cpu", "engine.threads=2"):
        assert load_job(path, [same]).fingerprint() == base
    others = [load_job(path, [other]).fingerprint() for other in ("seed=4", "per_identity=5", "generator.spread=0.4", "filters=[]", "writer.format=jpeg", "judge=dlib")]
    assert len({base, *others}) == 7


def test_relative_anchor_file_lies_beside_the_job_file(tmp_path, monkeypatch):
    path = job_file(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert load_job(path.relative_to(tmp_path)).identities.file == (tmp_path / "elsewhere" / "anchors.npy")
