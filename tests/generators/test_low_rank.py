"""Adapters: start as nothing, compute what their merged network computes, and refuse a network they do not fit."""

import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.generators.low_rank import attach, factors, merge
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.generators.unet import FamilyUNet


def base() -> FamilyUNet:
    return UIFaceConfig.tiny().network.float()


def asked(network) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    latent, context = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 8, generator=draw)
    return network(latent, torch.tensor([5, 700]), context)


def disturbed(network) -> FamilyUNet:
    """Every trainable tensor somewhere else, as after a training."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return network


def test_an_adapter_starts_as_its_base():
    network = base()
    before = asked(network)
    attach(network, 2)
    assert torch.equal(asked(network), before)


def test_merged_network_computes_what_the_adapted_one_does():
    adapted, plain = base(), base()
    attach(adapted, 2)
    disturbed(adapted)
    merge(plain, factors(adapted))
    assert not hasattr(plain.stem, "parametrizations")
    assert torch.allclose(asked(plain), asked(adapted), atol=1e-4) and not torch.allclose(asked(plain), asked(base()), atol=1e-2)


def test_merging_by_hand_on_one_layer_of_each_kind():
    network = base()
    held = {
        "stem.low_rank.up": torch.ones(16, 1), "stem.low_rank.down": torch.arange(36.0)[None],
        "context.low_rank.up": torch.eye(8)[:, :1], "context.low_rank.down": torch.ones(1, 8), "norm_out.bias": torch.full((16,), 3.0),
    }
    stem, context = network.stem.weight.detach().clone(), network.context.weight.detach().clone()
    merge(network, held)
    assert torch.allclose(network.stem.weight - stem, torch.arange(36.0).view(4, 3, 3).expand(16, 4, 3, 3), atol=1e-5)
    assert torch.allclose(network.context.weight[0] - context[0], torch.ones(8), atol=1e-5) and torch.equal(network.context.weight[1:], context[1:])
    assert bool((network.norm_out.bias == 3).all())


def test_only_what_is_small_is_trained():
    network = base()
    whole = sum(parameter.numel() for parameter in network.parameters())
    attach(network, 1)
    held = factors(network)
    assert sum(tensor.numel() for tensor in held.values()) < 0.35 * whole
    trained = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert id(network.stem.parametrizations.weight.original) not in trained and "stem.bias" in held and "empty_context" in held


@pytest.mark.parametrize("change", [lambda held: {"other.low_rank.up": held["stem.low_rank.up"], "other.low_rank.down": held["stem.low_rank.down"]},
                                    lambda held: {"stem.low_rank.up": held["stem.low_rank.up"][:3], "stem.low_rank.down": held["stem.low_rank.down"]},
                                    lambda held: {"stem.low_rank.up": held["stem.low_rank.up"]}])  # fmt: skip
def test_factors_of_another_network_are_refused(change):
    adapted = base()
    attach(adapted, 2)
    with pytest.raises(UserError, match="no fitting place"):
        merge(base(), change(factors(adapted)))
