"""Dual normalisation: the worked examples of the spec (recognition.md §6.3), and that the branches stay apart."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facefoundry.recognition.dual_bn import DualNorm, routed, to_dual


def pair(mean: float, var: float, weight: float, bias: float) -> DualNorm:
    """A clean branch that is the identity, and an attacked one with these values (e = 0), float64."""
    norm = DualNorm(nn.BatchNorm1d(1, eps=0.0, dtype=torch.float64)).eval()
    for tensor, value in ((norm.attacked.running_mean, mean), (norm.attacked.running_var, var), (norm.attacked.weight.data, weight), (norm.attacked.bias.data, bias)):
        tensor.fill_(value)
    return norm


U = torch.tensor([[1.0], [3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("values", "share", "expected", "wrong"),
    [
        ((2, 16, 2, 1), 0.0, (1, 3), None),
        ((2, 16, 2, 1), 1.0, (0.5, 1.5), None),
        ((2, 16, 2, 1), 0.25, (0.875, 2.625), (0.53677, 1.68385)),
        ((2, 4, 2, 1), 0.25, (0.75, 2.75), (0.722456, 2.612278)),
        ((2, 4, 2, 1), 0.25, (0.75, 2.75), (0.645285, 2.226424)),
    ],
)
def test_e61_and_e62_outputs_are_fused_not_parameters(values, share, expected, wrong):
    norm = pair(*values)
    with routed(norm, torch.full((2,), share, dtype=torch.float64)):
        found = norm(U)[:, 0]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert wrong is None or (found - torch.tensor(wrong)).abs().max() > 1e-2


def test_fused_equals_one_affine_by_sample_and_channel():
    """A = (1-w) γc/√(vc+e) + w γa/√(va+e), Bias likewise, by a double loop."""
    torch.manual_seed(0)
    norm = DualNorm(nn.BatchNorm2d(3)).eval()
    for branch in (norm.clean, norm.attacked):
        for tensor in (branch.running_mean, branch.weight.data, branch.bias.data):
            tensor.normal_()
        branch.running_var.uniform_(0.5, 2.0)
    u, share = torch.randn(4, 3, 5, 5), torch.tensor([0.0, 0.3, 0.8, 1.0])
    norm.requires_grad_(False)
    expected = torch.empty_like(u)
    for b in range(4):
        for c in range(3):
            scale = [float(branch.weight[c] / (branch.running_var[c] + branch.eps).sqrt()) for branch in (norm.clean, norm.attacked)]
            offset = [float(branch.bias[c] - s * branch.running_mean[c]) for branch, s in zip((norm.clean, norm.attacked), scale)]
            w = float(share[b])
            expected[b, c] = ((1 - w) * scale[0] + w * scale[1]) * u[b, c] + (1 - w) * offset[0] + w * offset[1]
    with routed(norm, share):
        assert torch.allclose(norm(u), expected, atol=1e-5)


def test_e63_statistics_stay_apart():
    norm = DualNorm(nn.BatchNorm1d(1)).train()
    with routed(norm, 0.0):
        norm(torch.tensor([[0.0], [2.0]]))
    with routed(norm, 1.0):
        norm(torch.tensor([[4.0], [6.0]]))
    found = [float(x) for branch in (norm.clean, norm.attacked) for x in (branch.running_mean, branch.running_var)]
    assert found == pytest.approx([0.1, 1.1, 0.5, 1.1], abs=1e-6)
    leaky = nn.BatchNorm1d(1).train()
    leaky(torch.tensor([[0.0], [2.0], [4.0], [6.0]]))
    assert float(leaky.running_mean) == pytest.approx(0.3) and float(leaky.running_var) == pytest.approx(1.566667, abs=1e-5)


def test_a_mixture_moves_no_statistic_even_in_training_mode():
    norm = DualNorm(nn.BatchNorm1d(2)).train()
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    with routed(norm, torch.tensor([0.2, 0.7])):
        norm(torch.randn(2, 2))
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


def test_to_dual_finds_every_normalisation_and_begins_with_copies():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.BatchNorm1d(2))).eval()
    network[1].running_mean.fill_(0.5)
    x = torch.randn(3, 3, 2, 2)
    expected = network(x)
    dual = to_dual(network)
    assert sum(isinstance(module, DualNorm) for module in dual.modules()) == 2
    assert len(list(to_dual(dual).modules())) == len(list(dual.modules()))  # a second time changes nothing
    for share in (0.0, 1.0, torch.zeros(3), torch.ones(3)):
        with routed(dual, share):
            assert torch.equal(dual(x), expected)


def test_the_route_is_given_back_also_after_an_error():
    norm = DualNorm(nn.BatchNorm1d(1))
    with pytest.raises(RuntimeError), routed(norm, 1.0):
        with routed(norm, 0.0):
            assert norm.share == 0.0
        assert norm.share == 1.0
        raise RuntimeError
    assert norm.share == 0.0
    with pytest.raises(ValueError, match=r"expected 0\.0, 1\.0"), routed(norm, 0.5):
        pass
