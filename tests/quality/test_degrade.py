"""Damage: what it does, and that it depends on the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.quality.baselines import sharpness
from facefoundry.quality.degrade import DAMAGES, degrade


def pictures(count=12):
    return np.random.default_rng(0).integers(60, 190, (count, 14, 14, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


def test_copies_depend_on_seed_and_row_alone():
    image = pictures()
    whole, part = degrade(image, seed=3), degrade(image[:5], seed=3)
    assert np.array_equal(whole.image_NHWC[:5], part.image_NHWC) and whole.kinds[:5] == part.kinds
    assert not np.array_equal(whole.image_NHWC, degrade(image, seed=4).image_NHWC)
    assert degrade(image, seed=3, copy=1).kinds != whole.kinds
    assert np.array_equal(image, pictures())


@pytest.mark.parametrize("kind", DAMAGES)
def test_strength_grows_the_damage(kind):
    image = pictures(1)[0]
    gap = [np.mean([np.abs(DAMAGES[kind](image, strength, np.random.default_rng(s)).astype(int) - image).mean() for s in range(8)]) for strength in (0.0, 0.5, 1.0)]
    assert 0 < gap[0] < gap[1] < gap[2]


def test_kinds_do_what_they_say():
    image = pictures()
    assert sharpness(degrade(image, kinds=["blur"]).image_NHWC).max() < sharpness(image).min()
    assert sharpness(degrade(image, kinds=["noise"]).image_NHWC).min() > sharpness(image).min()
    covered = degrade(image, kinds=["occlusion"], strongest=1.0)
    share = (covered.image_NHWC != image).any(axis=3).mean(axis=(1, 2))
    assert np.allclose(share, 0.08 + 0.42 * covered.strength_N, atol=0.03)


def test_strengths_fill_the_asked_range():
    strength = degrade(np.zeros((400, 4, 4, 3), np.uint8), kinds=["noise"], strongest=0.5).strength_N
    assert strength.max() <= 0.5 and strength.min() >= 0 and strength.mean() == pytest.approx(0.25, abs=0.03)


def test_bad_input():
    with pytest.raises(UserError, match="did you mean 'blur'"):
        degrade(pictures(1), kinds=["blurr"])
    with pytest.raises(UserError, match="no kind of damage"):
        degrade(pictures(1), kinds=[])
