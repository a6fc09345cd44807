"""New identities keep their distance from each other and from real people."""

from dataclasses import replace

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.files import bundled
from facefoundry.identity import anchors
from facefoundry.identity.anchors import AnchorPrior, draw_anchors, sample_anchors, seal_prior


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


@pytest.fixture(scope="module")
def sealed(prior, tmp_path_factory):
    """A prior as it would ship: 60 checked anchors, read back from its file."""
    path = tmp_path_factory.mktemp("sealed") / "p.safetensors"
    seal_prior(prior, 60, max_cosine=0.6, leak_cosine=0.8).save(path)
    return AnchorPrior.load(path)


def test_a_sealed_file_holds_no_real_people_and_keeps_its_limits(prior, sealed):
    anchor_ID = sealed.pool.anchor_ID.astype(np.float64)
    assert not len(sealed.real_ID) and anchor_ID.shape == (60, 16) and sealed.pool.people == 200
    assert (sealed.pool.max_cosine, sealed.pool.leak_cosine) == (0.6, 0.8)
    assert (anchor_ID @ anchor_ID.T - 2 * np.eye(60)).max() < 0.6 and (anchor_ID @ prior.real_ID.T).max() < 0.8
    np.testing.assert_allclose(np.linalg.norm(anchor_ID, axis=1), 1.0, atol=1e-6)


def test_shares_are_the_nearest_draws(prior, monkeypatch):
    monkeypatch.setattr(anchors, "_SHARE_BLOCKS", 2)
    pool = seal_prior(prior, 10, max_cosine=0.6, leak_cosine=0.8).pool
    count_I = np.full(10, 0.5)
    for number in range(2):
        for drawn_D in prior.draw(anchors.numpy_rng(0, "shares", number), anchors._BLOCK):
            if (prior.real_ID @ drawn_D).max() < 0.8:
                count_I[np.argmax(pool.anchor_ID @ drawn_D)] += 1
    np.testing.assert_allclose(pool.share_I, count_I / count_I.sum(), atol=2e-3)  # a draw between two anchors may go to either


def test_pool_anchors_come_in_the_order_of_the_seed(sealed):
    every_ID = sample_anchors(sealed, 60, 1, 0.6, 0.8)
    assert np.array_equal(np.sort(every_ID, axis=0), np.sort(sealed.pool.anchor_ID, axis=0))
    np.testing.assert_array_equal(sample_anchors(sealed, 7, 1, 0.6, 0.8), every_ID[:7])
    assert not np.array_equal(sample_anchors(sealed, 7, 2, 0.6, 0.8), every_ID[:7])
    apart_ID = sample_anchors(sealed, 15, 1, 0.45, 0.9)
    assert (apart_ID @ apart_ID.T - 2 * np.eye(15)).max() < 0.45
    np.testing.assert_array_equal(sample_anchors(sealed, 4, 1, 0.45, 0.9), apart_ID[:4])


def test_common_anchors_come_first(sealed):
    pool = replace(sealed.pool, share_I=np.where(np.arange(60) < 30, 0.033, 0.0003).astype(np.float32))
    first_ID = sample_anchors(replace(sealed, pool=pool), 20, 0, 0.6, 0.8)
    assert np.isin(first_ID[:, 0], pool.anchor_ID[:30, 0]).sum() >= 18


def test_what_a_pool_cannot_give_is_said(sealed):
    for arguments, message in (
        ((61, 0, 0.6, 0.8), "is 61, but this prior holds 60 checked anchors.*fit_prior.*file: anchors.npy"),
        ((5, 0, 0.6, 0.79), "leak_cosine is 0.79, but .* checked at 0.8 against 200 real people.*expected 0.8 or more.*fit_prior"),
        ((50, 0, 0.1, 0.8), "of 50 identities fit.*raise max_cosine"),
    ):
        with pytest.raises(UserError, match=message):
            draw_anchors(sealed, *arguments)
    with pytest.raises(UserError, match="neither real centres nor a pool"):
        sample_anchors(replace(sealed, pool=None), 5, 0)
    with pytest.raises(UserError, match="no real centres to check"):
        seal_prior(sealed, 5)


def test_bundled_prior_holds_no_templates_and_its_limits_hold():
    prior = AnchorPrior.load(bundled("anchor-prior.safetensors"))
    anchor_ID = sample_anchors(prior, 8000, 0)
    assert not len(prior.real_ID) and anchor_ID.shape == (8000, 128) == prior.pool.anchor_ID.shape
    assert (prior.pool.max_cosine, prior.pool.leak_cosine, prior.pool.people) == (anchors.MAX_COSINE, anchors.LEAK_COSINE, 4200)
    highest = [(anchor_ID[row : row + 1000] @ anchor_ID.T - 2 * np.eye(1000, 8000, row)).max() for row in range(0, 8000, 1000)]
    assert max(highest) < anchors.MAX_COSINE
