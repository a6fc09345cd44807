"""AFA's network: a contract on tiny(), the invariants of recognition.md §6.3, and that gradients pass through the predictor."""

from __future__ import annotations

import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.core.types import Embedder
from facefoundry.recognition.afa import DualConfig, DualNetwork, channel_statistics, detail_of
from facefoundry.recognition.attacks import pgd
from facefoundry.recognition.backbones import BackboneConfig
from facefoundry.recognition.checkpoint import load_network, save_network
from facefoundry.recognition.embedder import TorchEmbedder, load_embedder


@pytest.fixture
def network() -> DualNetwork:
    """tiny() with branches that differ and a predictor away from 0.5."""
    torch.manual_seed(0)
    found = DualNetwork.tiny().eval()
    for norm in found.norms():
        norm.attacked.running_mean.normal_(std=0.3)
        norm.attacked.running_var.uniform_(0.5, 2.0)
    found.predictor.layers[-1].bias.data = torch.tensor([0.7, 0.0])
    return found


@pytest.fixture
def image() -> torch.Tensor:
    coarse = torch.rand(3, 3, 7, 7, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bilinear")


def test_contract_of_an_embedder(network, image):
    embedder = TorchEmbedder(network, name="afa", device=torch.device("cpu"))
    assert isinstance(embedder, Embedder) and embedder.dim == 16
    embed_BD = embedder(image)
    assert torch.allclose(embed_BD.norm(dim=1), torch.ones(3), atol=1e-5)
    alone_BD = torch.cat([embedder(image[row : row + 1]) for row in range(3)])
    assert torch.allclose(embed_BD, alone_BD, atol=1e-5)


def test_either_end_is_a_branch_to_the_bit(network, image):
    for share in (0.0, 1.0):
        assert torch.equal(network(image, torch.full((3,), share)), network(image, share))
    assert (network(image, 0.0) - network(image, 1.0)).abs().max() > 1e-2


def test_without_a_share_the_predictor_gives_it(network, image):
    share_B = network.share(image)
    assert ((0 < share_B) & (share_B < 1)).all()
    assert torch.equal(network(image), network(image, share_B))


@pytest.mark.parametrize("sees", ["mean", "mean-std", "detail"])
def test_the_attack_is_white_box_through_the_predictor(sees, image):
    """With the share held constant the slope is another: what a grey-box attacker would have."""
    torch.manual_seed(1)
    network = BackboneConfig(embed_dim=16, width=0.125, shrink=2, dual=DualConfig(hidden=8, sees=sees)).build().eval()
    for norm in network.norms():
        norm.attacked.running_mean.normal_(std=0.5)
    x = image.clone().requires_grad_()
    (through,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    (around,) = torch.autograd.grad(network(x, network.share(x).detach())[:, 0].sum(), x)
    (share_slope,) = torch.autograd.grad(network.share(x).sum(), x)
    assert torch.isfinite(through).all() and share_slope.abs().max() > 0 and (through - around).abs().max() > 0


def test_statistics_do_not_move_while_attacks_are_made(network, image):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pgd(network, image, torch.tensor([0, 1, 2]), torch.full((3,), 8.0), steps=2)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_training_mode_refuses_to_fuse(network, image):
    with pytest.raises(UserError, match="train afa"):
        network.train()(image)


def test_detail_against_the_plain_loop_and_a_plain_area():
    image = torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = image[0, 0] * 127.5
    expected = [[abs(4 * grey[r, c] - grey[r - 1, c] - grey[r + 1, c] - grey[r, c - 1] - grey[r, c + 1]) for c in range(1, 4)] for r in range(1, 3)]
    assert torch.allclose(detail_of(image)[0, 0], torch.tensor(expected).log1p(), atol=1e-4)
    assert float(detail_of(torch.full((1, 1, 4, 4), 0.3)).abs().max()) < 1e-3


def test_channel_statistics_by_hand():
    early = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
    assert channel_statistics(early, spread=False).tolist() == [[2.0, 2.0]]
    assert channel_statistics(early, spread=True)[0].tolist() == pytest.approx([2, 2, 1, 1e-3], abs=1e-4)


def test_what_the_predictor_sees_grows_with_the_strength(image):
    ripple = torch.sign(torch.randn(image.shape, generator=torch.Generator().manual_seed(2)))
    seen = [float(channel_statistics(detail_of(image + ripple * level / 127.5), spread=False).mean()) for level in (0, 1, 2, 4, 8)]
    assert seen == sorted(seen) and seen[-1] > seen[0] + 0.5


def test_file_and_embedder_round_trip(network, image, tmp_path):
    config = BackboneConfig(embed_dim=16, width=0.125, shrink=2, dual=DualConfig(hidden=8))
    save_network(tmp_path / "afa.safetensors", network, config, facts={})
    again, _ = load_network(tmp_path / "afa.safetensors")
    assert torch.equal(again(image), network(image))
    assert load_embedder(tmp_path / "afa.safetensors").dim == 16


def test_calibration_centres_what_is_seen(network, image):
    network.calibrate(image)
    seen_BF = (network._seen(image) - network.predictor.centre_F) / network.predictor.scale_F
    assert seen_BF.mean(0).abs().max() < 1e-4 and torch.allclose(seen_BF.std(0), torch.ones(6), atol=1e-3)
