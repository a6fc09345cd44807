"""The family U-Net against its published size and its own rules."""

import torch

from facefoundry.generators.attention import blend_statistics
from facefoundry.generators.unet import FamilyUNet, UNetConfig, sinusoid


def small() -> FamilyUNet:
    torch.manual_seed(0)
    return FamilyUNet(UNetConfig(channels=4, width=16, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=8, groups=4, identity_dim=8, context_dim=8, tokens=4))


def test_published_configuration_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = FamilyUNet(UNetConfig())
    empty_context = 256
    assert sum(p.numel() for p in network.parameters()) - empty_context == 216_341_187


def test_sixteen_attention_blocks_at_the_published_configuration():
    with torch.device("meta"):
        network = FamilyUNet(UNetConfig())
    assert sum(type(m).__name__ == "ContextAttention" for m in network.modules()) == 16


def test_untrained_network_predicts_zero_because_the_last_layer_starts_at_zero():
    network = small()
    out = network(torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), network.empty_rows(2))
    assert out.shape == (2, 4, 8, 8) and out.abs().max() == 0


def test_dropped_rows_get_the_empty_context_untouched_by_dropout():
    network = small().train()
    context = network.embed_context(torch.randn(5, 8), torch.tensor([True, False, False, True, False]))
    assert torch.equal(context[0], network.empty_context) and torch.equal(context[3], network.empty_context)
    assert not torch.equal(context[1], network.empty_context)


def test_contextual_partial_dropout_zeroes_components_in_training_only():
    network = small()
    identity = torch.randn(400, 8)
    zero_share = (network.train().embed_context(identity) == 0).float().mean()
    assert 0.2 < zero_share < 0.3
    assert (network.eval().embed_context(identity) == 0).sum() == 0


def test_time_embedding_of_zero_is_ones_then_zeros():
    embedded = sinusoid(torch.tensor([0, 1]), 8)
    assert torch.equal(embedded[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    assert torch.allclose(embedded[1, 0], torch.tensor(1.0).cos()) and torch.allclose(embedded[1, 4], torch.tensor(1.0).sin())


def test_blended_statistics_are_the_means_of_both():
    own, source = torch.randn(2, 3, 5, 16) * 3 + 1, torch.randn(2, 3, 5, 16)
    blended = blend_statistics(own, source)
    assert torch.allclose(blended.mean(-1), 0.5 * own.mean(-1) + 0.5 * source.mean(-1), atol=1e-5)
    assert torch.allclose(blended.std(-1), 0.5 * own.std(-1) + 0.5 * source.std(-1), atol=1e-5)


def test_equal_logits_do_not_become_nan():
    assert torch.isfinite(blend_statistics(torch.ones(1, 1, 2, 4), torch.randn(1, 1, 2, 4))).all()
