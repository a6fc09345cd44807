"""Augmentation: deterministic, in range, each change alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.recognition.augment import AugmentConfig, augment
from facefoundry.recognition.batches import Batches

STRONG = AugmentConfig(flip=0.5, shift=0.05, zoom=0.05, crop=0.5, lowres=0.5, photometric=0.5)


def images(count: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def changed(config: AugmentConfig, seed: int = 0) -> torch.Tensor:
    return augment(images(), config, torch.Generator().manual_seed(seed))


def test_the_generator_decides_everything_and_the_range_is_kept():
    state, kept = torch.get_rng_state(), images()
    assert torch.equal(changed(STRONG), changed(STRONG)) and not torch.equal(changed(STRONG), changed(STRONG, 1))
    assert changed(STRONG).abs().max() <= 1 and torch.equal(state, torch.get_rng_state()) and torch.equal(images(), kept)


def test_all_off_changes_nothing():
    assert torch.equal(changed(AugmentConfig(flip=0)), images())


def test_certain_flip_is_a_mirror_with_and_without_resampling():
    assert torch.equal(changed(AugmentConfig(flip=1)), images().flip(3))
    assert torch.allclose(changed(AugmentConfig(flip=1, zoom=1e-9)), images().flip(3), atol=1e-4)


def test_crop_keeps_pixels_in_place_on_black():
    out = changed(AugmentConfig(flip=0, crop=1))
    black = (out == -1).all(1, keepdim=True)
    assert torch.where(black, 0.0, out - images()).abs().max() == 0
    assert 0.05 < float(black.float().mean()) < 0.85


def test_lowres_and_photometric_touch_only_the_chosen():
    for config in (AugmentConfig(flip=0, lowres=0.5), AugmentConfig(flip=0, photometric=0.5)):
        distance_B = (changed(config) - images()).abs().amax((1, 2, 3))
        assert 0 < int((distance_B < 1e-5).sum()) < len(distance_B)


def faces(count: int = 10) -> np.ndarray:
    image_NHWC = np.zeros((count, 112, 112, 3), np.uint8)
    image_NHWC[:] = np.arange(count)[:, None, None, None]
    return image_NHWC


def batches(**changes) -> Batches:
    settings = {"batch": 4, "seed": 1, "changes": AugmentConfig(flip=0)} | changes
    return Batches(faces(), torch.arange(10), **settings)


def test_a_pass_draws_no_row_twice_and_any_step_can_be_asked_first():
    rows = [batches().rows(step) for step in range(6)]
    one = batches()
    assert all(np.array_equal(one.rows(step), rows[step]) for step in (5, 0, 3, 1))
    for epoch in range(3):
        drawn = np.concatenate(rows[2 * epoch : 2 * epoch + 2])
        assert len(set(drawn.tolist())) == 8
    assert not np.array_equal(rows[0], rows[2])


def test_processes_share_a_step_without_overlap():
    whole = set(batches().rows(1).tolist())
    shares = [batches()(1, rank, 2)[1].tolist() for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted(whole)


def test_balanced_draws_every_identity_equally_often():
    owner_N = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    counts = np.zeros(3, int)
    for step in range(30):
        counts += np.bincount(owner_N[batches(batch=3, groups_N=owner_N).rows(step)], minlength=3)
    assert counts.max() - counts.min() <= 10  # the tenth row of each pass is dropped


def test_too_few_faces_is_a_user_error():
    with pytest.raises(UserError, match="10 faces, less than one batch of 64"):
        batches(batch=64)


def test_rows_count_as_often_as_they_are_told():
    from facefoundry.recognition.train import first_counts

    assert first_counts(np.array([2, 2, 0, 0, 2, 1]), 5).tolist() == [5, 1, 5, 1, 1, 5]
    times_N = np.array([5, 1, 1, 1, 1, 5, 1, 1, 1, 1])
    plain, repeated = batches(), batches(times_N=times_N)
    assert repeated.steps_per_epoch == 18 // 4
    seen = np.concatenate([repeated.rows(step) for step in range(repeated.steps_per_epoch * 50)])
    share_N = np.bincount(seen, minlength=10) / len(seen)
    np.testing.assert_allclose(share_N, times_N / 18, atol=0.02)  # what a pass drops at its end differs from pass to pass
    assert np.array_equal(plain.rows(1), batches(times_N=np.ones(10, int)).rows(1))
