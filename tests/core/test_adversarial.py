"""Adversarial losses: worked examples E5.2 and E5.3, and that each side of a game learns from its own part alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from facefoundry.core.adversarial import PatchCritic, adaptive_weight, critic_loss, frozen, game, player_loss, uniform_loss


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
    sum(game(critic, real, fake)).backward()
    of_player = torch.autograd.grad(player_loss(critic(player(noise))), list(player.parameters()))
    of_critic = torch.autograd.grad(critic_loss(critic(real), critic(player(noise))), list(critic.parameters()))
    for weight, expected in zip([*player.parameters(), *critic.parameters()], [*of_player, *of_critic]):
        assert torch.allclose(weight.grad, expected, atol=1e-7)


def test_adaptive_weight_is_the_ratio_of_gradients():
    last, x = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0])
    rec, gan = (last * x).sum(), 0.5 * last[0]
    assert adaptive_weight(rec, gan, last).item() == pytest.approx(5 / 0.5, rel=1e-4)
    assert adaptive_weight(rec, 0.0 * last.sum(), last).item() == 1e4
    assert not adaptive_weight(rec, gan, last).requires_grad
    with torch.no_grad():
        assert adaptive_weight((last * x).sum(), 0.5 * last[0], last) == 1


def test_a_patch_of_the_critic_is_38_pixels_wide():
    torch.manual_seed(0)
    critic, x = PatchCritic(4), torch.randn(1, 3, 112, 112, requires_grad=True)
    score = critic(x)
    assert score.shape == (1, 1, 14, 14) and [layer.out_channels for layer in critic if isinstance(layer, nn.Conv2d)] == [4, 8, 16, 1]
    score[0, 0, 7, 7].backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [38, 38]
