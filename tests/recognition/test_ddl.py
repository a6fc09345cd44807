"""DDL: worked examples E3.1-E3.3, the invariants, and the faults of the public code (defect 11)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from facefoundry.core.errors import UserError
from facefoundry.recognition.ddl import DdlLossConfig, Similarities, branch_similarities, ddl, ddl_of_embeddings, hardest_other, histogram_kl, soft_histogram

EASY = Similarities(mated_P=torch.tensor([0.6, 0.7, 0.8], dtype=torch.float64), other_P=torch.tensor([0.0, 0.1, 0.05], dtype=torch.float64))
HARD = Similarities(mated_P=torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64), other_P=torch.tensor([0.1, 0.2, 0.15], dtype=torch.float64))
CONFIG = DdlLossConfig()


def kl(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(histogram_kl(soft_histogram(left.double()), soft_histogram(right.double())))


def test_e31_e32_teacher_first():
    assert kl(EASY.mated_P, HARD.mated_P) == pytest.approx(2.9466040621, abs=1e-8)
    assert kl(HARD.mated_P, EASY.mated_P) == pytest.approx(2.9900567647, abs=1e-8)
    assert kl(EASY.mated_P, EASY.mated_P) == 0
    assert kl(torch.tensor([0.0, 0.1, 0.05], dtype=torch.float64), torch.tensor([0.1, 0.2, 0.15], dtype=torch.float64)) == pytest.approx(0.2402149205, abs=1e-7)


def test_e33_all_four_combinations():
    found = ddl([EASY, HARD], CONFIG)
    assert float(found["order"]) == pytest.approx(-1.8, abs=1e-9)
    assert float(found["loss"]) == pytest.approx(-0.6005352954, abs=1e-8)


def test_histogram_by_hand_and_its_edges():
    slow = [sum(math.exp(-50 * (s - r / 1000) ** 2) for s in (0.2, 0.9)) for r in range(1000)]
    found = soft_histogram(torch.tensor([0.2, 0.9], dtype=torch.float64))
    assert torch.allclose(found, torch.tensor(slow).double() / sum(slow), atol=1e-12) and float(found.sum()) == pytest.approx(1)
    node, wide = torch.arange(1000) / 1000, torch.arange(-1300, 1301) / 1000
    for single, released in ((0.95, 0.8988), (-0.3, 0.0278)):
        one = torch.tensor([single])
        assert float((soft_histogram(one) * node).sum()) == pytest.approx(released, abs=1e-4)
        assert float((soft_histogram(one, "wide") * wide).sum()) == pytest.approx(single, abs=1e-3)


def test_order_and_repetition_of_similarities_do_not_matter():
    s = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64)
    assert torch.allclose(soft_histogram(s), soft_histogram(s[[2, 0, 1]])) and torch.allclose(soft_histogram(s), soft_histogram(s.repeat(3)))


def test_the_order_term_pushes_evenly():
    mated, other = EASY.mated_P.clone().requires_grad_(), EASY.other_P.clone().requires_grad_()
    ddl([Similarities(mated_P=mated, other_P=other), HARD], DdlLossConfig(positive=0, negative=0))["loss"].backward()
    assert torch.allclose(mated.grad, torch.full((3,), -2 * 0.5 / 3).double()) and torch.allclose(other.grad, torch.full((3,), 2 * 0.5 / 3).double())


def test_the_teacher_is_not_detached():
    mated = EASY.mated_P.clone().requires_grad_()
    ddl([Similarities(mated_P=mated, other_P=EASY.other_P), HARD], DdlLossConfig(order=0))["loss"].backward()
    assert float(mated.grad.abs().min()) > 1e-3


def test_true_gradient_of_the_whole_loss():
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(4, 1, 5, generator=generator, dtype=torch.float64)
    branches = [(base + 0.4 * torch.randn(4, 2, 5, generator=generator, dtype=torch.float64)).flatten(0, 1).requires_grad_() for _ in range(3)]
    assert gradcheck(lambda *found: ddl_of_embeddings(found, CONFIG)["loss"], branches, eps=1e-6, atol=1e-6)


def test_hardest_other_against_the_double_loop():
    unit = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double())
    slow = [max(float(unit[i] @ unit[j]) for j in range(6) if j != i) for i in range(6)]
    assert hardest_other(unit).tolist() == pytest.approx(slow)
    later = [max([0.0, *(float(unit[i] @ unit[j]) for j in range(i + 1, 6))]) for i in range(6)]
    assert hardest_other(unit, compat=True).tolist() == pytest.approx(later) and later[-1] == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert hardest_other(opposite).tolist() == [-1, -1] and hardest_other(opposite[:1]).numel() == 0


def test_a_branch_without_positive_similarities_gives_no_nan():
    """Released code: NaN. Here its mated part drops out; what is left is the negatives' and the other branch's."""
    pair = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(1))
    pair[:, 1] = -pair[:, 0]
    lost = pair.flatten(0, 1).requires_grad_()
    good = torch.randn(8, 8, generator=torch.Generator().manual_seed(5)).repeat_interleave(2, 0)[:8].requires_grad_()
    assert not branch_similarities(lost.unflatten(0, (-1, 2))).mated_P.numel()
    for branches in ([lost, good], [good, lost], [lost, lost]):
        found = ddl_of_embeddings(branches, CONFIG)
        assert all(torch.isfinite(value) for value in found.values()) and float(found["kl_mated"]) == 0
        found["loss"].backward()
    assert torch.isfinite(lost.grad).all() and torch.isfinite(good.grad).all()
    low, high = (branch_similarities(x.detach().unflatten(0, (-1, 2))) for x in (lost, good))
    wanted = low.other_P.mean() + high.other_P.mean() - 2 * high.mated_P.mean()
    assert float(ddl_of_embeddings([good, lost], CONFIG)["order"]) == pytest.approx(float(wanted), abs=1e-6)


def test_one_branch_is_refused():
    with pytest.raises(UserError, match="1 branch"):
        ddl_of_embeddings([torch.randn(4, 3)], CONFIG)
