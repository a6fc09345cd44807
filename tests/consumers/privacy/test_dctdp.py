"""DCTDP: budgets, ranges, fresh noise, the bound it proves and the one it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from facefoundry.consumers.privacy.dctdp import Dctdp, DctdpClient, DctdpSettings, budgets_of
from facefoundry.consumers.privacy.draws import TorchDraws
from facefoundry.consumers.privacy.front_end import forward_dct


def seeded(n=0):
    return TorchDraws(torch.Generator().manual_seed(n))


@pytest.fixture
def client():
    one = DctdpClient(DctdpSettings(side=16))
    rng = np.random.default_rng(0)
    one.measure(rng.integers(0, 256, (20, 112, 112, 3), np.uint8))
    return one


def test_worked_budgets():
    theta = torch.tensor([0.0, math.log(2), math.log(5)])
    epsilon = budgets_of(theta, 0.5)
    assert torch.allclose(epsilon, torch.tensor([0.1875, 0.375, 0.9375]))
    assert torch.allclose(torch.tensor([8.0, 4, 1]) / epsilon, torch.tensor([42.6667, 10.6667, 1.0667]), atol=1e-3)
    assert torch.allclose(budgets_of(theta + 3, 0.5), epsilon)
    assert float(budgets_of(torch.randn(7, 5), 2.0).mean()) == pytest.approx(2, abs=1e-5)


def test_guarantee_states_the_composition():
    facts = DctdpClient(DctdpSettings(side=112)).guarantee()
    assert facts["positions"] == 2_370_816 and facts["epsilon_mean"] == pytest.approx(0.5, rel=1e-4)
    assert facts["epsilon_whole_face"] == pytest.approx(1_185_408, rel=1e-4)


def test_ranges_are_those_of_the_data(client):
    image = np.random.default_rng(0).integers(0, 256, (20, 112, 112, 3), np.uint8)
    clean = client.clean(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert torch.allclose(client.low, clean.amin(0)) and torch.allclose(client.high, clean.amax(0))
    released = DctdpClient(DctdpSettings(side=16, release_compatible=True))
    released.measure(image)
    assert torch.allclose(released.scale(), torch.tensor(0.25))  # Δ = 1, ε = 4


def test_no_channel_is_a_mean_and_a_constant_face_is_noise(client):
    grey = torch.full((1, 3, 112, 112), 0.3)
    clean = client.clean(grey)
    assert clean.shape == (1, 189, 16, 16) and clean.abs().max() < 1e-3
    everything = forward_dct(client.seen(grey)).unflatten(1, (3, 64))
    assert torch.equal(clean.unflatten(1, (3, 63)), everything[:, :, 1:])


def test_noise_is_fresh_for_every_face_and_query(client):
    face = (torch.rand(1, 3, 112, 112) * 2 - 1).expand(2, -1, -1, -1)
    with torch.no_grad():
        sent = client(face, seeded())["coefficients"]
        gap = (sent[0] - sent[1]) / client.scale()
    assert float(gap.std()) == pytest.approx(2.0, rel=0.02)  # two Laplace values, each of variance 2
    released = DctdpClient(DctdpSettings(side=16, release_compatible=True))
    one = released(face, seeded())["coefficients"]
    assert torch.equal(one[0], one[1])  # the public code's mistake, kept under the flag


def test_scale_of_the_noise(client):
    face = torch.zeros(64, 3, 112, 112)
    with torch.no_grad():
        noise = (client(face, seeded())["coefficients"] - client.clean(face).clamp(client.low, client.high)) / client.scale()
    assert float(noise.abs().mean()) == pytest.approx(1.0, rel=0.01)


def test_the_bound_holds_and_is_reached_at_the_ends_of_the_range(client):
    """log p(y|x) - log p(y|x') ≤ ε for clipped x, x'; equality where they are a whole range apart and y lies outside."""
    low, high, b, epsilon = (t.detach().flatten()[:500].double() for t in (client.low, client.high, client.scale(), client.epsilon()))
    assert (high - low > 1e-3).sum() > 200  # where a block lies between two pixels its even frequencies are 0 in every picture: rounding is all they have
    varies = high - low > 1e-3
    low, high, b, epsilon = (t[varies] for t in (low, high, b, epsilon))
    rng = torch.Generator().manual_seed(1)
    y = torch.cat([torch.stack([low - 1, high + 1]), low + (high - low) * torch.rand(50, len(low), generator=rng, dtype=torch.float64)])
    ratio = ((y - high).abs() - (y - low).abs()).abs() / b
    assert (ratio <= epsilon * (1 + 1e-5)).all() and torch.allclose(ratio[0], epsilon, rtol=1e-5)
    # A face outside the training range is brought back to it first.
    wild = client(torch.sign(torch.randn(4, 3, 112, 112, generator=rng)), ZeroNoise())["coefficients"]
    assert (wild >= client.low - 1e-4).all() and (wild <= client.high + 1e-4).all()


class ZeroNoise(TorchDraws):
    def laplace(self, shape):
        return torch.zeros(shape)


def test_the_recognition_loss_moves_the_budgets():
    method = Dctdp.tiny().train()
    method(torch.rand(4, 3, 112, 112) * 2 - 1).square().sum().backward()
    grad = method.client.budgets.theta.grad
    assert grad.abs().sum() > 0 and abs(float(grad.sum())) < 1e-3 * float(grad.abs().sum())  # softmax: no direction along the constant
    assert method.client.budgets.shift.grad.abs().sum() > 0


def test_budgets_have_a_rate_of_their_own():
    from facefoundry.core.training import LoopConfig, decay_groups

    method = Dctdp.tiny()
    method.client.budgets.rate_factor = 30.0
    groups = decay_groups(method, LoopConfig())
    own = [group for group in groups if group["rate_factor"] == 30.0]
    assert len(own) == 1 and own[0]["weight_decay"] == 0 and {id(p) for p in own[0]["params"]} == {id(p) for p in method.client.budgets.parameters()}
