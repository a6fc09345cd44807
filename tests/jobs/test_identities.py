"""The `identities:` section: every source gives a job its anchors, what is dropped is counted, and old files mean what they meant."""

from __future__ import annotations

import json

import numpy as np
import pytest
from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.identity.anchors import AnchorPrior
from facefoundry.identity.centres import write_centres
from facefoundry.identity.separation import measure_separation
from facefoundry.jobs.identities import make_identities
from facefoundry.jobs.plan import make_plan
from facefoundry.jobs.spec import IdentitySource, JobSpec, load_job
from procedural import job_file

PRIOR_LAW = AnchorPrior.load(bundled("anchor-prior.safetensors"))


def section(**values) -> IdentitySource:
    return IdentitySource.parse(values)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Thirty 'people' by the prior's own law, so that its draws do come near them."""
    path = tmp_path_factory.mktemp("real") / "real.safetensors"
    write_centres(PRIOR_LAW.draw(np.random.default_rng(5), 300), np.arange(300), path, embedder="blocks")
    return path


# Computed with the version of issue 2 (commit 43331c6), before this section had more than two sources.
@pytest.mark.parametrize(
    ("identities", "fingerprint"),
    [
        ("{source: prior, count: 3}", "8f4b7833fbd9b0971afad33888225b55193655e9c755646522e924e4542686b2"),
        ("{source: prior, count: 3, max_cosine: 0.3, leak_cosine: 0.6}", "455ed131bd0592d80e8b5d4d67275d931e235f37196e71457bc7a9260f044576"),
    ],
)
def test_a_file_of_before_keeps_its_fingerprint(identities, fingerprint, tmp_path):
    assert load_job(job_file(tmp_path, identities=identities, filters="[]")).fingerprint() == fingerprint


def test_new_keys_count_for_the_fingerprint(tmp_path, real):
    base = load_job(job_file(tmp_path, identities="{source: uniform, count: 6}"))
    prints = {base.fingerprint()}
    for change in ("identities.dim=64", "identities.repulsion={}", "identities.repulsion.steps=7", "anchor_image=true"):
        prints.add(load_job(tmp_path / "job.yaml", [change]).fingerprint())
    assert len(prints) == 5 and JobSpec.parse(base.document()) == base
    plans = [make_plan(load_job(tmp_path / "job.yaml", sets)) for sets in ([], [f"identities.centres={real}"])]
    assert plans[0].fingerprint != plans[1].fingerprint and "identities.centres" in plans[1].materials


@pytest.mark.parametrize("source", ["prior", "gaussian", "uniform", "embeddings"])
def test_every_source_keeps_its_distance_and_counts(source, real, tmp_path):
    extra = {}
    if source == "embeddings":
        np.save(tmp_path / "g.npy", PRIOR_LAW.draw(np.random.default_rng(1), 900))
        extra = {"file": tmp_path / "g.npy"}
    chosen = section(source=source, count=40, centres=real, max_cosine=0.4, leak_cosine=0.5, **extra) if source != "prior" else section(source=source, count=40, centres=real, max_cosine=0.4)
    anchor_ID, counts = make_identities(chosen, 3)
    limit = chosen.leak_cosine or 0.58
    real_ID = PRIOR_LAW.draw(np.random.default_rng(5), 300)
    assert anchor_ID.shape == (40, 128) and not measure_separation(anchor_ID, 0.4).close and (anchor_ID @ real_ID.T).max() < limit
    assert counts["people"] == 300 and counts["drawn"] >= 40 + counts["leaked"]
    assert counts["leaked"] > 0 or source in ("prior", "uniform")  # one was checked before, the other lies far from faces
    np.testing.assert_array_equal(make_identities(chosen, 3)[0], anchor_ID)
    assert not np.array_equal(make_identities(chosen, 4)[0], anchor_ID)


def test_an_own_prior_gives_more_than_the_pool_and_checks_its_own_people(tmp_path):
    prior = AnchorPrior.fit(PRIOR_LAW.draw(np.random.default_rng(0), 400), np.arange(400))
    prior.save(tmp_path / "own.safetensors")
    for source in ("prior", "gaussian"):
        anchor_ID, counts = make_identities(section(source=source, count=20, file=tmp_path / "own.safetensors"), 0)
        assert counts["people"] == 400 and counts["leaked"] > 0 and (anchor_ID @ prior.real_ID.T).max() < 0.581


def test_repulsion_lowers_the_highest_cosine_and_keeps_the_limits(real):
    chosen = section(source="gaussian", count=60, centres=real, max_cosine=0.45, repulsion={"steps": 30, "gallery": 200, "spare": 0.5})
    anchor_ID, counts = make_identities(chosen, 1)
    assert anchor_ID.shape == (60, 128) and not measure_separation(anchor_ID, 0.45).close
    assert counts["highest_after_repulsion"] < counts["highest_before_repulsion"]
    assert (anchor_ID @ PRIOR_LAW.draw(np.random.default_rng(5), 300).T).max() < 0.58


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "gaussian", "count": 5}, "law of real people.*centres: real.safetensors"),
        ({"source": "prior", "count": 5, "repulsion": {}}, "away from where they were checked"),
        ({"source": "uniform", "count": 5, "dim": 64, "centres": "REAL"}, "centres have 128 numbers, the anchors 64"),
        ({"source": "embeddings", "count": 50, "file": "ROWS"}, "holds 6 rows, but count = 50"),
        ({"source": "gaussian", "count": 5, "centres": "none.safetensors"}, "none.safetensors is not there"),
    ],
)
def test_what_cannot_be_is_said_by_the_plan(values, words, real, tmp_path):
    path = job_file(tmp_path)
    values = {key: {"REAL": str(real), "ROWS": "anchors.npy"}.get(value, value) if isinstance(value, str) else value for key, value in values.items()}
    path = job_file(tmp_path, identities=json.dumps(values))
    with pytest.raises(UserError, match=words):
        make_plan(load_job(path))


@pytest.mark.parametrize(
    ("identities", "words"),
    [
        ("{source: embeddings, count: 6}", "'source: embeddings' and 'file: anchors.npy' go together"),
        ("{source: uniform, count: 6, file: anchors.npy}", "'source: uniform' reads no 'file'"),
        ("{source: prior, count: 6, dim: 9}", "'dim' belongs to 'source: uniform'"),
        ("{source: file, file: anchors.npy, count: 6, repulsion: {}}", "for 'repulsion' of given rows use 'source: embeddings'"),
        ("{source: uniform, count: 6, repulsion: {stepps: 3}}", "unknown key 'identities.repulsion.stepps'.*'steps'"),
        ("{source: uniform, count: 6, dim: 1}", "greater than or equal to 2"),
    ],
)
def test_keys_that_do_not_fit_are_named(identities, words, tmp_path):
    with pytest.raises(UserError, match=f"line 3.*{words}"):
        load_job(job_file(tmp_path, identities=identities))


def test_a_file_is_held_to_the_limits_it_names(tmp_path, real):
    rows = np.eye(6, 128, dtype=np.float32)
    rows[4, 1] = 3.0  # cosine 0.949 to row 1
    np.save(tmp_path / "a.npy", rows)
    chosen = section(source="file", count=6, file=tmp_path / "a.npy")
    assert make_identities(chosen, 0)[1]["people"] == 0
    with pytest.raises(UserError, match=r"1 pairs have a cosine of 0.5 or more \(the closest: rows 1 and 4, 0.9487\).*source: embeddings"):
        make_identities(chosen.model_copy(update={"max_cosine": 0.5}), 0)
    rows[2] = PRIOR_LAW.draw(np.random.default_rng(5), 300)[7]
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(UserError, match=r"1 anchors .* come within 0.58 of a real person \(the first is row 2\)"):
        make_identities(chosen.model_copy(update={"centres": real}), 0)


def test_centres_of_another_embedder_are_refused(tmp_path, real):
    path = job_file(tmp_path, filters="[{name: leakage_identity, above: 0.5}]", centres=str(real))
    make_plan(load_job(path))
    write_centres(np.eye(3, 128, dtype=np.float32), np.arange(3), tmp_path / "other.safetensors", embedder="arcface")
    with pytest.raises(UserError, match="made with the embedder 'arcface', but the judge is 'blocks'"):
        make_plan(load_job(path, [f"centres={tmp_path / 'other.safetensors'}"]))


def test_the_first_image_is_made_from_the_anchor_itself(tmp_path):
    """A generator whose sampler turns contexts away is asked with them at rest for image 0, and as it is for the others."""
    from facefoundry.generators.sampling import SamplerConfig
    from facefoundry.jobs.make_images import _makers
    from procedural import ProceduralConfig

    generator = ProceduralConfig.tiny()
    generator.sampler = SamplerConfig(cone=0.6, negative=0.3, guidance=2.0)
    rows = [(identity, image) for identity in (0, 1) for image in (0, 1, 2, 3, 4)]  # 4: a replacement of slot 0
    plan = make_plan(load_job(job_file(tmp_path, anchor_image="true")))
    (plain, first), (whole, rest) = _makers(plan, generator, rows)
    assert first == [(0, 0), (0, 4), (1, 0), (1, 4)] and sorted(first + rest) == rows and whole is generator
    assert (plain.sampler.cone, plain.sampler.negative, plain.sampler.guidance) == (1.0, 0.0, 2.0) and generator.sampler.cone == 0.6
    assert _makers(make_plan(load_job(job_file(tmp_path))), generator, rows) == [(generator, rows)]


def test_the_order_of_rows_does_not_depend_on_the_anchor_image(tmp_path):
    from facefoundry.identity.dataset import FaceDataset
    from facefoundry.jobs.run import run_job

    for name, value in (("with", "true"), ("without", "false")):
        run_job(load_job(job_file(tmp_path, anchor_image=value, filters="[]")), tmp_path / name, workers=1)
    faces = [[(record.face_id, record.image) for record in FaceDataset.open(tmp_path / name).records()] for name in ("with", "without")]
    assert faces[0] == faces[1]  # this generator has no sampler that could move anything
