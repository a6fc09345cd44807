"""Attacks: the ball, the range, the worked example, and torchattacks as the reference of the house's PGD."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facefoundry.core.errors import UserError
from facefoundry.recognition.attacks import LEVEL, AttackConfig, library_attack, pgd

LABEL = torch.tensor([0, 1, 2, 3])


class Linear(nn.Module):
    """Logits of tiny images, with a normalisation whose statistics must not move."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.layer = nn.Linear(3 * 8 * 8, 5)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layer(self.norm(image_BCHW).flatten(1))


@pytest.fixture
def model() -> Linear:
    return Linear().eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_e64_both_clamps():
    """ε = 8/255, step 2/255, 10 steps; the gradient's sign is always -, +, + (spec in [0, 1], here twice as wide)."""
    slope = torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    start = torch.tensor([0.02, 0.5, 0.99]).view(1, 3, 1, 1) * 2 - 1

    def logits(image):
        return torch.stack((torch.zeros(1), (image * slope).sum((1, 2, 3))), 1)

    changed = pgd(logits, start, torch.tensor([0]), torch.tensor([8.0]), steps=10, random_start=False)
    assert ((changed - start) / 2).flatten().tolist() == pytest.approx([-0.02, 0.0313725, 0.01], abs=1e-6)


def test_each_sample_keeps_to_its_own_ball_and_all_to_the_range(model, image):
    strength_B = torch.tensor([0.0, 1.0, 4.0, 16.0])
    changed = pgd(model, image, LABEL, strength_B, steps=5)
    reached_B = (changed - image).abs().amax((1, 2, 3)) / LEVEL
    assert (reached_B <= strength_B + 1e-3).all() and torch.equal(changed[0], image[0])
    assert (reached_B[1:] > 0.9 * strength_B[1:]).all()
    assert changed.abs().max() <= 1 and not changed.requires_grad


def test_the_attack_raises_the_loss_and_leaves_the_network_as_it_was(model, image):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed = pgd(model, image, LABEL, torch.full((4,), 8.0), steps=5)
    assert F.cross_entropy(model(changed), LABEL) > F.cross_entropy(model(image), LABEL) + 0.05
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_strengths_vary_only_where_asked():
    torch.manual_seed(0)
    fixed, drawn = AttackConfig(strength=4).strengths(50, torch.device("cpu")), AttackConfig(strength=4, vary=True).strengths(50, torch.device("cpu"))
    assert (fixed == 4).all() and 0 <= drawn.min() < 1 < 3 < drawn.max() <= 4


def test_pgd_is_that_of_torchattacks(model, image):
    torchattacks = pytest.importorskip("torchattacks")

    class Unit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, unit):
            return self.model(2 * unit - 1)

    theirs = torchattacks.PGD(Unit().eval(), eps=8 / 255, alpha=2 / 255, steps=10, random_start=False)((image + 1) / 2, LABEL) * 2 - 1
    ours = pgd(model, image, LABEL, torch.full((4,), 8.0), steps=10, random_start=False)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd-t", "square"])
def test_the_librarys_attacks_keep_ball_range_mode_and_random_state(model, image, name):
    pytest.importorskip("torchattacks")
    state = torch.get_rng_state()
    changed = library_attack(name, model, image, LABEL, strength=4.0, steps=5, classes=5, seed=3)
    assert (changed - image).abs().max() <= 4 * LEVEL + 1e-5 and changed.abs().max() <= 1 + 1e-6
    assert F.cross_entropy(model(changed), LABEL) > F.cross_entropy(model(image), LABEL)
    assert not model.training and torch.equal(state, torch.get_rng_state())
    assert torch.equal(changed, library_attack(name, model, image, LABEL, strength=4.0, steps=5, classes=5, seed=3))


def test_autoattack_takes_the_first_attack_that_works(model, image):
    pytest.importorskip("torchattacks")
    label = model(image).argmax(1)
    changed = library_attack("autoattack", model, image, label, strength=48.0, steps=1, classes=5)  # so strong that its slow members have nothing left to do
    assert not (model(changed).argmax(1) == label).any() and (changed - image).abs().max() <= 48 * LEVEL + 1e-5


def test_what_is_refused_and_strength_0(model, image):
    with pytest.raises(UserError, match="did you mean 'pgd'"):
        library_attack("pdg", model, image, LABEL, strength=4.0, steps=5, classes=5)
    with pytest.raises(UserError, match="got 3 classes"):
        library_attack("apgd-t", model, image, LABEL, strength=4.0, steps=5, classes=3)
    assert library_attack("pgd", model, image, LABEL, strength=0.0, steps=5, classes=5) is image


def test_without_the_library_the_message_says_what_to_install(model, image, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchattacks", None)
    with pytest.raises(UserError, match="pip install --no-deps torchattacks"):
        library_attack("pgd", model, image, LABEL, strength=4.0, steps=5, classes=5)
