"""Augmentation: deterministic, in range, each change alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.recognition.augment import AugmentConfig, augment
from facefoundry.recognition.batches import Batches
from facefoundry.recognition.occluders import OCCLUDERS
from facefoundry.recognition.resize import resized

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


@pytest.mark.parametrize("kind", list(OCCLUDERS))
def test_an_occluder_hides_one_connected_part_of_one_colour(kind):
    image_BCHW = torch.rand(40, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    config = AugmentConfig(flip=0, occlude=1, occluders=(kind,))
    changed_BCHW = augment(image_BCHW, config, torch.Generator().manual_seed(2))
    hidden_BHW = (changed_BCHW != image_BCHW).any(1)
    share_B = hidden_BHW.float().mean((1, 2))
    low, high = {"cutout": (0.05, 0.6), "mask": (0.25, 0.5), "glasses": (0.05, 0.2), "bar": (0.05, 0.5)}[kind]
    assert low < float(share_B.min()) and float(share_B.max()) < high and len(share_B.unique()) > 10
    for changed_CHW, hidden_HW in zip(changed_BCHW, hidden_BHW):
        assert len(changed_CHW[:, hidden_HW].unique(dim=1)[0]) == 1
    assert torch.equal(changed_BCHW, augment(image_BCHW, config, torch.Generator().manual_seed(2)))


def test_occluders_stand_where_the_parts_of_an_aligned_face_are():
    image_BCHW = torch.zeros(30, 3, 112, 112)
    for kind, seen, unseen in (("mask", (95, 56), (45, 56)), ("glasses", (51, 38), (90, 56))):
        changed_BCHW = augment(image_BCHW, AugmentConfig(flip=0, occlude=1, occluders=(kind,)), torch.Generator().manual_seed(2))
        assert (changed_BCHW[:, :, seen[0], seen[1]] != 0).all() and (changed_BCHW[:, :, unseen[0], unseen[1]] == 0).all()


def test_only_the_chosen_are_occluded_and_old_recipes_draw_as_before():
    image_BCHW = torch.rand(200, 3, 112, 112) * 2 - 1
    changed_BCHW = augment(image_BCHW, AugmentConfig(flip=0, occlude=0.3), torch.Generator().manual_seed(2))
    share = float((changed_BCHW != image_BCHW).flatten(1).any(1).float().mean())
    assert 0.2 < share < 0.4
    assert AugmentConfig().interpolations == ("nearest", "bilinear", "area", "bicubic") and AugmentConfig().occlude == 0


def test_lanczos_is_the_sum_that_its_formula_says():
    image_BCHW = torch.rand(1, 2, 9, 11, dtype=torch.float64)

    def pixel(line, target, count):
        centre, total, weight = (target + 0.5) * len(line) / count - 0.5, 0.0, 0.0
        for place in range(math.floor(centre) - 3, math.floor(centre) + 5):
            x = (centre - place) * math.pi
            w = 1.0 if x == 0 else math.sin(x) / x * math.sin(x / 4) / (x / 4)
            total, weight = total + w * float(line[min(max(place, 0), len(line) - 1)]), weight + w
        return total / weight

    for size in ((5, 11), (20, 11)):
        found = resized(image_BCHW, size, "lanczos")
        assert found.shape == (1, 2, *size)
        assert all(abs(float(found[0, 1, row, 3]) - pixel(image_BCHW[0, 1, :, 3], row, size[0])) < 1e-6 for row in range(size[0]))
    flat = torch.full((1, 3, 112, 112), 0.25)
    assert torch.allclose(resized(resized(flat, (23, 31), "lanczos"), (112, 112), "lanczos"), flat, atol=1e-5)


def test_every_interpolation_runs_and_stays_in_range():
    image_BCHW = torch.rand(12, 3, 112, 112) * 2 - 1
    config = AugmentConfig(flip=0, lowres=1, interpolations=("lanczos", "bicubic", "area", "bilinear", "nearest"))
    changed_BCHW = augment(image_BCHW, config, torch.Generator().manual_seed(0))
    assert changed_BCHW.abs().max() <= 1 and (changed_BCHW != image_BCHW).flatten(1).any(1).sum() >= 10
    with pytest.raises(UserError, match="interpolations"):
        AugmentConfig.parse({"interpolations": ["cubic"]})
