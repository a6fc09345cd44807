"""The feature cache: a shallow pass on an unchanged input is the full pass; what it costs is what it computes."""

import pytest
import torch

from facefoundry.generators.cache import FeatureCache, forward_macs
from facefoundry.generators.uiface import UIFaceConfig
from facefoundry.generators.unet import sinusoid


def network_and_input():
    network = UIFaceConfig.tiny().network
    torch.manual_seed(2)
    return network, torch.randn(2, 4, 8, 8), torch.full((2,), 500), network.embed_context(torch.nn.functional.normalize(torch.randn(2, 8)))


@pytest.mark.parametrize("live", [1, 2, 3])
@torch.no_grad()
def test_a_shallow_pass_repeats_the_full_one_and_uses_old_deep_features(live):
    network, z, t, context = network_and_input()
    cache = FeatureCache(2, live)
    assert not cache.advance()
    full = network(z, t, context, cache=cache)
    assert torch.equal(full, network(z, t, context))
    assert cache.advance()
    deep = cache.deep.clone()
    assert torch.equal(network(z, t, context, cache=cache), full)
    moved = network(z + 0.3, t - 20, context, cache=cache)
    assert torch.equal(cache.deep, deep) and not torch.equal(moved, full)
    assert torch.allclose(moved, by_hand(network, z + 0.3, t - 20, context, deep, live), atol=1e-5)


def by_hand(network, z, t, context, deep, live):
    """The live stages of the tiny network (16 wide; up: stage, stage, transposed convolution, stage, stage) on a given deep feature."""
    time = network.time(sinusoid(t, 16))
    skips, x = [network.stem(z)], deep
    for layer in [network.down[0], network.down[1]][: live - 1]:
        skips.append(layer(skips[-1], time, context, None) if layer is network.down[0] else layer(skips[-1]))
    for place in {1: [4], 2: [3, 4], 3: [1, 2, 3, 4]}[live]:
        x = network.up[place](x) if place == 2 else network.up[place](torch.cat([x, skips.pop()], 1), time, context, None)
    return network.conv_out(torch.nn.functional.silu(network.norm_out(x)))


def test_every_interval_th_pass_is_full():
    cache = FeatureCache(3, 1)
    seen = []
    for _ in range(7):
        seen.append(cache.advance())
        cache.deep = torch.zeros(1)
    assert seen == [False, True, True, False, True, True, False]


@torch.no_grad()
def test_a_shallow_pass_runs_only_the_live_stages():
    network, z, t, context = network_and_input()
    ran = []
    for name, layer in [*((f"down{i}", x) for i, x in enumerate(network.down)), ("middle", network.middle), *((f"up{i}", x) for i, x in enumerate(network.up))]:
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    cache = FeatureCache(2, 2)
    for _ in range(2):
        cache.advance()
        ran.clear()
        network(z, t, context, cache=cache)
    # Two live stages read the stem's skip and the first layer's; up = stage, stage, transposed convolution, stage, stage.
    assert ran == ["down0", "up3", "up4"]


def test_multiply_adds_are_those_of_the_layers():
    config = UIFaceConfig.tiny().network.config
    full, one, two = forward_macs(config, (8, 8)), forward_macs(config, (8, 8), 1), forward_macs(config, (8, 8), 2)
    assert 0 < one < two < full
    # One live stage: stem 4→16, residual 32→16 with its 1×1 shortcut, output 16→4, 64 positions; and the linear layers of time (per row).
    convolutions = 64 * 9 * (4 * 16 + 32 * 16 + 16 * 16 + 16 * 4) + 64 * 32 * 16
    linear = 16 * 64 + 64 * 64 + 64 * 16 + 2 * 16 * 16
    assert one == convolutions + linear


def test_too_many_live_stages_are_refused():
    network, z, t, context = network_and_input()
    with pytest.raises(ValueError, match="4 live decoder stages of 4, expected at least 1 and fewer than all"):
        network(z, t, context, cache=FeatureCache(2, 4))
