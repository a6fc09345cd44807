"""Guidance by hand: the weight over time, the rescaled estimate, the other identity an image is led away from."""

import numpy as np
import pytest
import torch

from facefoundry.generators.guidance import guidance_weight, guided, negative_anchors, reference_context
from facefoundry.generators.sampling import SamplerConfig
from facefoundry.generators.solvers import Point


def test_weights_over_time():
    assert [guidance_weight(t, SamplerConfig(guidance=2.0)) for t in (0, 250, 999)] == [2.0, 2.0, 2.0]
    assert [guidance_weight(t, SamplerConfig(guidance=2.0, guidance_over_time="rising")) for t in (0, 250)] == [2.0, 1.5]
    assert [guidance_weight(t, SamplerConfig(guidance=2.0, guidance_over_time="falling")) for t in (0, 250)] == [0.0, 0.5]


def test_guidance_uses_the_weight_of_its_time():
    z, identity, empty = (torch.randn(2, 4, 8, 8) for _ in range(3))
    noise = guided(z, identity, empty, Point(750, 0.1, 0.2), SamplerConfig(guidance=4.0, guidance_over_time="rising"))
    assert torch.allclose(noise, 2 * identity - empty, atol=1e-5)


def test_rescaled_guidance_keeps_the_spread_of_the_identity_pass():
    torch.manual_seed(0)
    z, identity, empty = (torch.randn(2, 4, 8, 8) for _ in range(3))
    point = Point(350, 0.3, 0.4)
    clean = lambda eps: (z - (1 - point.alpha) ** 0.5 * eps) / point.alpha**0.5
    plain = guided(z, identity, empty, point, SamplerConfig(guidance=3.0))
    assert torch.allclose(plain, 4 * identity - 3 * empty, atol=1e-5)
    full = guided(z, identity, empty, point, SamplerConfig(guidance=3.0, rescale=1.0))
    assert torch.allclose(clean(full).std((1, 2, 3)), clean(identity).std((1, 2, 3)), rtol=1e-4)
    direction = torch.nn.functional.cosine_similarity(clean(full).flatten(1), clean(plain).flatten(1))
    assert torch.allclose(direction, torch.ones(2), atol=1e-5)


def test_the_negative_identity_is_the_opposite_one():
    anchor = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    assert np.allclose(negative_anchors(anchor), [[-0.6, -0.8], [-1.0, 0.0]])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.25, 1.5), (1.0, 3.0)])
def test_the_reference_context_moves_from_empty_to_the_other_identity(share, expected):
    mixed = reference_context(torch.full((2, 3), 1.0), torch.full((2, 3), 3.0), share)
    assert torch.allclose(mixed, torch.full((2, 3), expected))


def test_without_a_negative_identity_the_reference_is_the_empty_context_itself():
    empty = torch.randn(2, 3)
    assert reference_context(empty, None, 0.5) is empty
