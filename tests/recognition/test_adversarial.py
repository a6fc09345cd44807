"""Adversarial losses: worked examples E5.2 and E5.3, and that each side of a game learns from its own part alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from facefoundry.recognition.adversarial import critic_loss, frozen, player_loss, uniform_loss


def test_e52_uniform_loss():
    even = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    uniform_loss(even).backward()
    assert float(uniform_loss(even)) == pytest.approx(math.log(4), abs=1e-9) and even.grad.abs().max() < 1e-12
    logits = torch.tensor([[2.0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    loss = uniform_loss(logits)
    loss.backward()
    assert float(loss) == pytest.approx(1.840753, abs=1e-6) and float(loss) - math.log(4) == pytest.approx(0.454459, abs=1e-6)
    assert logits.grad[0].tolist() == pytest.approx([0.461235, -0.153745, -0.153745, -0.153745], abs=1e-6)


@pytest.mark.parametrize(
    ("real", "fake", "critic", "player", "slope"),
    [(0.0, 0.0, 1.386294, 0.693147, -0.5), (2.0, -2.0, 0.253856, 2.126928, -0.880797), (-1.0, 1.0, 2.626523, 0.313262, -0.268941)],
)
def test_e53_critic_and_player(real, fake, critic, player, slope):
    real_1, fake_1 = torch.tensor([real], dtype=torch.float64), torch.tensor([fake], dtype=torch.float64, requires_grad=True)
    assert float(critic_loss(real_1, fake_1)) == pytest.approx(critic, abs=1e-6)
    loss = player_loss(fake_1)
    loss.backward()
    assert float(loss) == pytest.approx(player, abs=1e-6) and float(fake_1.grad) == pytest.approx(slope, abs=1e-6)


def test_frozen_passes_the_gradient_to_the_input_alone():
    critic, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(2, 3, requires_grad=True)
    assert torch.equal(frozen(critic, x), critic(x))
    frozen(critic, x).sum().backward()
    assert x.grad.abs().sum() > 0 and all(weight.grad is None for weight in critic.parameters())
    assert all(weight.requires_grad for weight in critic.parameters())


def test_one_loss_gives_each_side_the_gradient_of_its_own_game():
    """The sum's gradients equal those of two separate games, critic and player in turn."""
    torch.manual_seed(0)
    player, critic, real, noise = nn.Linear(3, 3), nn.Linear(3, 1), torch.randn(5, 3), torch.randn(5, 3)
    fake = player(noise)
    (player_loss(frozen(critic, fake)) + critic_loss(critic(real), critic(fake.detach()))).backward()
    of_player = torch.autograd.grad(player_loss(critic(player(noise))), list(player.parameters()))
    of_critic = torch.autograd.grad(critic_loss(critic(real), critic(player(noise))), list(critic.parameters()))
    for weight, expected in zip([*player.parameters(), *critic.parameters()], [*of_player, *of_critic]):
        assert torch.allclose(weight.grad, expected, atol=1e-7)
