"""MinusFace: subtraction, shuffling, and the null space it lives in."""

from __future__ import annotations

import pytest
import torch
from facefoundry.consumers.privacy.draws import TorchDraws
from facefoundry.consumers.privacy.front_end import forward_dct, inverse_dct
from facefoundry.consumers.privacy.minusface import MinusFace, MinusFaceClient, MinusFaceRecipe, MinusFaceSettings, Subtraction, SubtractionObjective, shuffle
from facefoundry.consumers.privacy.unet import PlainUNet
from facefoundry.core.errors import UserError
from facefoundry.core.training import decay_groups
from facefoundry.recognition.backbones import BackboneConfig

SMALL = MinusFaceSettings(side=16, widths=(4, 8))


def test_the_generator_has_the_releases_size():
    with torch.device("meta"):
        network = PlainUNet(192, MinusFaceSettings().widths)
    assert sum(parameter.numel() for parameter in network.parameters()) == 34_634_624
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_shuffle_keeps_the_channels_and_mixes_planes():
    residual = torch.randn(2, 192, 4, 4)
    order = TorchDraws(torch.Generator().manual_seed(0)).permutations(2, 192)
    moved = shuffle(residual, order)
    assert torch.equal(moved[1, 3], residual[1, order[1, 3]])
    energy = lambda x: x.abs().mean((2, 3)).sort(1).values  # noqa: E731
    assert torch.equal(energy(moved), energy(residual)) and not torch.equal(order[0], order[1])
    assert (order[0, :64] >= 64).any()


def test_what_is_sent_is_the_inverse_of_the_shuffled_residual():
    client = MinusFaceClient(SMALL).eval()
    face = torch.rand(1, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        sent = client(face, TorchDraws(torch.Generator().manual_seed(5)))["image"]
        coefficients = forward_dct(client.seen(face))
        residual = coefficients - client.generator(coefficients)
        order = TorchDraws(torch.Generator().manual_seed(5)).permutations(1, 192)
    assert torch.allclose(sent, inverse_dct(residual[:, order[0]]), atol=1e-6)


def test_a_perfect_generator_sends_grey():
    client = MinusFaceClient(SMALL)
    client.generator = torch.nn.Identity()
    sent = client(torch.rand(2, 3, 112, 112) * 2 - 1, TorchDraws())["image"]
    assert torch.allclose(sent, torch.tensor(128 / 255), atol=1e-6)


def test_picture_is_rebuilt_plus_residual():
    """In the code's scale, 2d - 1, X = X' + R' up to the offset 2·128/255 - 1 = 0.0039."""
    a, b = torch.randn(2, 1, 192, 16, 16, dtype=torch.float64) * 5
    scaled = lambda x: 2 * inverse_dct(x, clamp=False) - 1  # noqa: E731
    gap = scaled(a + b) - scaled(a) - scaled(b)
    assert torch.allclose(gap, torch.tensor(-(2 * 128 / 255 - 1), dtype=torch.float64)) and gap.abs().max() < 4e-3


def test_copies_have_permutations_of_their_own():
    method = MinusFace(SMALL.model_copy(update={"copies": 2}), BackboneConfig(embed_dim=8, width=0.125)).eval()
    sent = method.protect(torch.rand(1, 3, 112, 112) * 2 - 1).tensors["image"]
    assert sent.shape == (1, 6, 16, 16) and not torch.equal(sent[:, :3], sent[:, 3:])
    assert method.recognise(method.protect(torch.rand(2, 3, 112, 112) * 2 - 1)).shape == (2, 8)


@pytest.mark.parametrize(("released", "factors"), [(False, {1.0, 0.5}), (True, {1.0})])
def test_the_generators_rate(released, factors):
    recipe = MinusFaceRecipe(method=SMALL.model_copy(update={"release_compatible": released}), backbone=BackboneConfig(embed_dim=8, width=0.125))
    groups = [group for group in decay_groups(Subtraction(recipe), recipe) if group["params"]]
    assert {group["rate_factor"] for group in groups} == factors


def test_objective_adds_its_two_terms_and_teaches_the_generator_both():
    recipe = MinusFaceRecipe(method=SMALL, backbone=BackboneConfig(embed_dim=8, width=0.125), alpha=5, beta=2)
    torch.manual_seed(0)
    objective = SubtractionObjective(recipe, 3, Subtraction(recipe)).train()
    face, label = torch.rand(4, 3, 112, 112) * 2 - 1, torch.tensor([0, 1, 2, 0])
    found = objective(face, label)
    assert float(found["loss"]) == pytest.approx(5 * float(found["away"]) + 2 * float(found["head"]), rel=1e-5)
    client = objective.network.client
    rebuilt = client.generator(forward_dct(client.seen(face)))
    assert float(found["away"]) == pytest.approx(float((client.seen(face) - 2 * inverse_dct(rebuilt) + 1).abs().mean()), rel=1e-5)
    for name in ("away", "head"):
        (grad,) = torch.autograd.grad(found[name], client.generator.last.weight, retain_graph=True)
        assert grad.abs().sum() > 0


def test_levels_that_do_not_fit_the_side():
    with pytest.raises(UserError, match="28 is no multiple of 8; give fewer widths"):
        MinusFaceSettings.parse({"side": 28, "widths": [4, 8, 16, 32]})
    assert MinusFaceSettings(side=28, widths=(4, 8, 16)).widths == (4, 8, 16)
