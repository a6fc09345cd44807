"""Random scale augmentation: the worked example E5.1, what is left alone, and the distribution of ratios."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facefoundry.core.errors import UserError
from facefoundry.recognition.scale_augment import ScaleConfig, enlarge, rescale

RAMP = torch.arange(16.0).view(1, 1, 4, 4)


def test_e51_area_down_bilinear_up():
    found = rescale(RAMP, torch.tensor([0.5]), up="bilinear")[0, 0]
    assert F.interpolate(RAMP, (2, 2), mode="area")[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert found[0].tolist() == pytest.approx([2.5, 3.0, 4.0, 4.5]) and found[3].tolist() == pytest.approx([10.5, 11.0, 12.0, 12.5])
    assert float(found.mean()) == pytest.approx(7.5)
    wrong = F.interpolate(torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]), (4, 4), mode="bilinear", align_corners=True)[0, 0]
    assert (found - wrong).abs().max() > 0.1  # corners aligned: row 0 is 2.5, 3.17, 3.83, 4.5


def test_a_full_ratio_is_the_image_to_the_bit():
    image = torch.rand(3, 3, 16, 16)
    found = rescale(image, torch.tensor([1.0, 0.5, 0.99]))  # 0.99 of 16 pixels rounds to 16
    assert torch.equal(found[0], image[0]) and torch.equal(found[2], image[2]) and not torch.equal(found[1], image[1])


def test_a_batch_is_each_image_alone():
    image, ratio = torch.rand(5, 3, 16, 16) * 2 - 1, torch.tensor([0.1, 0.3, 0.3, 1.0, 0.62])
    alone = torch.cat([rescale(image[b : b + 1], ratio[b : b + 1]) for b in range(5)])
    assert torch.allclose(rescale(image, ratio), alone, atol=1e-6)
    slow = enlarge(F.interpolate(image[4:5], (10, 10), mode="area"), (16, 16))
    assert torch.allclose(rescale(image, ratio)[4:5], slow, atol=1e-6) and rescale(image, ratio).abs().max() <= 1


def test_rounding_of_a_half_goes_by_the_exact_ratio():
    # 20 of 112 pixels: the float32 ratio times 112 is not exactly 20, the size still is.
    image = torch.rand(1, 3, 112, 112) * 2 - 1
    for side in (14, 20, 28):
        assert torch.allclose(rescale(image, torch.tensor([side / 112])), enlarge(F.interpolate(image, (side, side), mode="area"), (112, 112)), atol=1e-6)


def test_ratios():
    generator = torch.Generator().manual_seed(0)
    ratio = ScaleConfig(least=0.1, keep=0.2).draw(4000, generator)
    kept = float((ratio == 1).float().mean())
    assert kept == pytest.approx(0.2, abs=0.03) and 0.1 <= ratio.min() < 0.11
    assert float(ratio[ratio < 1].mean()) == pytest.approx(0.55, abs=0.02)
    fixed = ScaleConfig(fixed=(0.25, 0.5), keep=0.0).draw(100, generator)
    assert set(fixed.tolist()) == {0.25, 0.5}
    assert (ScaleConfig(keep=1.0).draw(50, generator) == 1).all()


def test_the_same_state_gives_the_same_faces():
    image = torch.rand(4, 3, 32, 32)
    torch.manual_seed(3)
    first = ScaleConfig()(image)
    torch.manual_seed(3)
    assert torch.equal(first, ScaleConfig()(image))


def test_unknown_keys_are_errors():
    with pytest.raises(UserError, match="did you mean 'least'"):
        ScaleConfig.parse({"leest": 0.1})
