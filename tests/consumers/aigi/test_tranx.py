"""The adapter: worked examples of the specification, each defect of the release beside what is right, bottleneck, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from facefoundry.consumers.aigi.sinkhorn import sinkhorn
from facefoundry.consumers.aigi.tranx import TranX, TranXConfig, entropy_share, js_cost, transport_cost, transported
from torch.autograd import gradcheck

A, S = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64), torch.tensor([[0.8, 0.2]], dtype=torch.float64)
SMALL = TranXConfig(inner=16, heads=2, layers=2)


def logits(p: torch.Tensor) -> torch.Tensor:
    return torch.logit(p)


def tokens(size: int = 2, artifacts: int = 9, semantics: int = 4, dim: int = 8, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=draw) for shape in ((size, artifacts, dim), (size, semantics, dim), (size, artifacts), (size, semantics)))


def test_divergence_worked_examples():
    one = js_cost(torch.tensor([[0.9]]), torch.tensor([[0.1, 0.5, 0.9]]))[0, 0]
    torch.testing.assert_close(one, torch.tensor([0.368064, 0.101749, 0.0]), atol=1e-6, rtol=0)
    assert js_cost(torch.tensor([[1.0]]), torch.tensor([[0.0]])).item() == pytest.approx(math.log(2), abs=1e-5)
    torch.testing.assert_close(js_cost(S, A), js_cost(A, S).mT)


def test_divergence_is_two_kullback_leiblers():
    p, q = torch.rand(1, 5), torch.rand(1, 6)
    for j in range(5):
        for i in range(6):
            x, y = torch.stack((p[0, j], 1 - p[0, j])), torch.stack((q[0, i], 1 - q[0, i]))
            m = (x + y) / 2
            slow = 0.5 * (x * (x / m).log()).sum() + 0.5 * (y * (y / m).log()).sum()
            assert js_cost(p, q)[0, j, i].item() == pytest.approx(slow.item(), abs=1e-6)


def test_transport_worked_example():
    raw = js_cost(S, A)[0]
    torch.testing.assert_close(raw, torch.tensor([[0.00997, 0.05067, 0.27540], [0.27540, 0.05067, 0.00997]], dtype=torch.float64), atol=1e-5, rtol=0)
    cost = transport_cost(logits(S), logits(A))
    torch.testing.assert_close(cost[0], torch.tensor([[0.03619, 0.184, 1.0], [1.0, 0.184, 0.03619]], dtype=torch.float64), atol=1e-5, rtol=0)
    plan = sinkhorn(cost, epsilon=0.1)
    torch.testing.assert_close(plan[0], torch.tensor([[0.33331, 0.16667, 0.00002], [0.00002, 0.16667, 0.33331]], dtype=torch.float64), atol=1e-5, rtol=0)
    assert (plan * cost).sum().item() == pytest.approx(0.08550, abs=1e-5)


def test_defect_row_mass():
    plan = sinkhorn(transport_cost(logits(S), logits(A)), epsilon=0.1)
    value = torch.tensor([[[1, 0], [0, 1], [1, 1]]], dtype=torch.float64)
    released, right = transported(plan, value, release_compatible=True)[0], transported(plan, value)[0]
    torch.testing.assert_close(released, torch.tensor([[0.33333, 0.16669], [0.33333, 0.49998]], dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(right, torch.tensor([[0.66667, 0.33338], [0.66667, 0.99996]], dtype=torch.float64), atol=1e-5, rtol=0)
    # What the released way does to more tokens: constant features come out as 1 / M.
    many = sinkhorn(torch.rand(1, 20, 9, dtype=torch.float64))
    torch.testing.assert_close(transported(many, torch.ones(1, 9, 1, dtype=torch.float64)), torch.ones(1, 20, 1, dtype=torch.float64))
    torch.testing.assert_close(transported(many, torch.ones(1, 9, 1, dtype=torch.float64), release_compatible=True), torch.full((1, 20, 1), 0.05, dtype=torch.float64))


def test_defect_second_softmax():
    nine, one = torch.tensor([[0.9]], dtype=torch.float64), torch.tensor([[0.1]], dtype=torch.float64)
    twice = torch.tensor([0.9, 0.1]).softmax(0)[0].item()
    assert twice == pytest.approx(0.690, abs=1e-3)
    assert js_cost(torch.tensor([[twice]]), torch.tensor([[1 - twice]])).item() == pytest.approx(0.074026, abs=1e-5)
    # Hidden by the division by the maximum where there are two tokens; the shape of the cost shows it.
    wide = torch.cat((nine, torch.full_like(nine, 0.5), one), 1)
    right, released = (transport_cost(logits(nine), logits(wide), release_compatible=value)[0, 0] for value in (False, True))
    assert right[2].item() == released[2].item() == 1.0
    assert right[1].item() == pytest.approx(0.101749 / 0.368064, abs=1e-5)
    half = js_cost(torch.tensor([[twice]]), torch.tensor([[0.5]])).item() / 0.074026
    assert released[1].item() == pytest.approx(half, abs=1e-4) and abs(half - right[1].item()) > 0.015
    certain = js_cost((2 * torch.tensor([[1.0]]) - 1).sigmoid(), (2 * torch.tensor([[0.0]]) - 1).sigmoid()).item()
    assert certain == pytest.approx(0.1109, abs=1e-4)  # of ln 2 = 0.6931


def test_defect_maximum_of_the_batch():
    artifact_BND, semantic_BMD, artifact_logit, semantic_logit = tokens()
    artifact_logit[1] *= 6  # a batch-mate with surer predictions
    for compatible, moves in ((False, False), (True, True)):
        torch.manual_seed(0)
        model = TranX(8, SMALL.model_copy(update={"release_compatible": compatible})).eval()
        both = model(artifact_BND, semantic_BMD, artifact_logit, semantic_logit).semantic_BMD[0]
        alone = model(artifact_BND[:1], semantic_BMD[:1], artifact_logit[:1], semantic_logit[:1]).semantic_BMD[0]
        assert ((both - alone).abs().max().item() > 1e-4) == moves


def test_both_directions_see_the_other_kind():
    torch.manual_seed(0)
    model = TranX(8, SMALL)
    artifact_BND, semantic_BMD, artifact_logit, semantic_logit = tokens()
    base = model(artifact_BND, semantic_BMD, artifact_logit, semantic_logit)
    assert base.artifact_BND.shape == artifact_BND.shape and base.semantic_BMD.shape == semantic_BMD.shape
    artifact_moved = model(artifact_BND + 1, semantic_BMD, artifact_logit, semantic_logit)
    semantic_moved = model(artifact_BND, semantic_BMD + torch.randn(8), artifact_logit, semantic_logit)
    assert not torch.allclose(artifact_moved.semantic_BMD, base.semantic_BMD)
    assert not torch.allclose(semantic_moved.artifact_BND, base.artifact_BND)
    # Tokens' order is that of their places: turning the artifact tokens round turns the answer round and leaves the semantic ones.
    turned = model(artifact_BND.flip(1), semantic_BMD, artifact_logit.flip(1), semantic_logit)
    torch.testing.assert_close(turned.artifact_BND, base.artifact_BND.flip(1))
    torch.testing.assert_close(turned.semantic_BMD, base.semantic_BMD, atol=1e-5, rtol=1e-4)


def test_everything_passes_the_bottleneck():
    torch.manual_seed(0)
    model = TranX(8, TranXConfig(inner=2, heads=1, layers=1))
    fused = model(*tokens(size=1, artifacts=40, semantics=30))
    for out in (fused.artifact_BND, fused.semantic_BMD):
        assert torch.linalg.matrix_rank(out[0] - out[0].mean(0), rtol=1e-4) <= 2


def test_gradients_reach_both_heads_and_are_right():
    torch.manual_seed(0)
    model = TranX(4, TranXConfig(inner=4, heads=2, layers=1, tolerance=1e-13)).double()
    inputs = [x.double().requires_grad_() for x in tokens(size=1, artifacts=4, semantics=3, dim=4)]
    assert gradcheck(lambda *x: torch.cat([part.flatten() for part in (lambda f: (f.artifact_BND, f.semantic_BMD, f.cost_B))(model(*x))]), inputs, atol=1e-5)


def test_close_predictions_are_told_apart():
    """Divergences of 1e-12 are rounding in float32; the cost must still grow with the distance."""
    artifact = 2.0 + 1e-5 * torch.arange(6.0)[None]
    cost = transport_cost(torch.tensor([[2.0]]), artifact)[0, 0]
    torch.testing.assert_close(cost, (torch.arange(6.0, dtype=torch.float64) / 5) ** 2, atol=0.03, rtol=0)


def test_equal_predictions_are_mean_pooling_not_nan():
    torch.manual_seed(0)
    artifact_BND, semantic_BMD, artifact_logit, semantic_logit = tokens()
    fused = TranX(8, SMALL)(artifact_BND, semantic_BMD, torch.zeros_like(artifact_logit).requires_grad_(), torch.zeros_like(semantic_logit).requires_grad_())
    torch.testing.assert_close(fused.plan_BMN, torch.full_like(fused.plan_BMN, 1 / 36))
    (fused.semantic_BMD.sum() + fused.artifact_BND.sum()).backward()


def test_shapes_are_checked():
    artifact_BND, semantic_BMD, artifact_logit, semantic_logit = tokens()
    with pytest.raises(ValueError, match="artifact_logit_BN"):
        TranX(8, SMALL)(artifact_BND, semantic_BMD, artifact_logit[:, :3], semantic_logit)


def test_dilution_gauge_worked_examples():
    draw = torch.Generator().manual_seed(0)
    for std, expected, within in ((0.0, 1.0, 1e-6), (0.1, 0.999, 1e-3), (1.0, 0.926, 0.02), (3.0, 0.523, 0.08)):
        rows = (std * torch.randn(200, 196, generator=draw)).softmax(-1)
        assert entropy_share(rows).mean().item() == pytest.approx(expected, abs=within)
