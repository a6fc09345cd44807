"""New identities keep their distance from each other and from real people."""

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.identity import anchors
from facefoundry.identity.anchors import AnchorPrior, draw_anchors, sample_anchors


@pytest.fixture(scope="module")
def prior(unit_faces):
    return AnchorPrior.fit(*unit_faces)


def _slow(prior, count, seed, max_cosine, leak_cosine, block):
    """One candidate after the other, everything compared by hand."""
    taken = []
    for number in range(10_000):
        if number % block == 0:
            block_BD = prior.draw(anchors.numpy_rng(seed, "anchors", number // block), block)
        candidate_D = block_BD[number % block]
        if all(candidate_D @ real_D < leak_cosine for real_D in prior.real_ID) and all(candidate_D @ other_D < max_cosine for other_D in taken):
            taken.append(candidate_D)
        if len(taken) == count:
            return np.stack(taken)


def test_equals_the_slow_loop(prior, monkeypatch):
    monkeypatch.setattr(anchors, "_BLOCK", 64)
    sample = draw_anchors(prior, 30, 5, 0.5, 0.75)
    np.testing.assert_array_equal(sample.anchor_ID, _slow(prior, 30, 5, 0.5, 0.75, 64))
    assert sample.drawn % 64 == 0 and 0 < sample.leaked and 0 < sample.crowded and sample.leaked + sample.crowded + 30 <= sample.drawn


def test_distances_hold_and_the_first_do_not_depend_on_the_count(prior):
    anchor_ID = sample_anchors(prior, 40, 1, 0.6, 0.8)
    cos_II = anchor_ID @ anchor_ID.T - 2 * np.eye(40)
    assert anchor_ID.dtype == np.float32 and cos_II.max() < 0.6 and (anchor_ID @ prior.real_ID.T).max() < 0.8
    np.testing.assert_allclose(np.linalg.norm(anchor_ID, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(sample_anchors(prior, 7, 1, 0.6, 0.8), anchor_ID[:7])
    assert not np.array_equal(sample_anchors(prior, 7, 2, 0.6, 0.8), anchor_ID[:7])


def test_global_random_state_is_left_alone(prior):
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    sample_anchors(prior, 5, 1, 0.6, 0.8)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_a_full_space_and_bad_limits_are_user_errors(prior, monkeypatch):
    monkeypatch.setattr(anchors, "_GIVE_UP", 2)
    with pytest.raises(UserError, match="of 500 identities fit.*raise max_cosine"):
        sample_anchors(prior, 500, 1, 0.1, 0.9)
    for count, high, leak in ((0, 0.5, 0.5), (-3, 0.5, 0.5), (3, -1.0, 0.5), (3, 0.5, 1.5), (3, float("nan"), 0.5)):
        with pytest.raises(UserError, match="expected"):
            sample_anchors(prior, count, 1, high, leak)


def test_bundled_prior_serves_the_demo():
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    sample = draw_anchors(prior, 200, 0)
    cos_II = sample.anchor_ID @ sample.anchor_ID.T - 2 * np.eye(200)
    assert sample.anchor_ID.shape == (200, 128) and cos_II.max() < anchors.MAX_COSINE and (sample.anchor_ID @ prior.real_ID.T).max() < anchors.LEAK_COSINE


def test_a_prior_without_templates_still_draws(tmp_path, prior):
    bare = AnchorPrior(mean_D=prior.mean_D, axis_RD=prior.axis_RD, mixture=prior.mixture, real_ID=prior.real_ID[:0])
    bare.save(tmp_path / "bare.safetensors")
    assert draw_anchors(AnchorPrior.load(tmp_path / "bare.safetensors"), 5, 0, 0.6, 0.5).leaked == 0
