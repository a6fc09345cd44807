"""Transport plans: marginals, a slow reference, the exact gradient, extreme costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.consumers.aigi.sinkhorn import sinkhorn
from torch.autograd import gradcheck


def costs(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_plan(cost_MN: np.ndarray, epsilon: float, rounds: int = 3000) -> np.ndarray:
    """Sinkhorn as in the text-book: scale rows, scale columns, nothing else."""
    rows, columns = cost_MN.shape
    plan = [[np.exp(-cost_MN[j][i] / epsilon) for i in range(columns)] for j in range(rows)]
    for _ in range(rounds):
        for j in range(rows):
            total = sum(plan[j])
            plan[j] = [value / total / rows for value in plan[j]]
        for i in range(columns):
            total = sum(plan[j][i] for j in range(rows))
            for j in range(rows):
                plan[j][i] = plan[j][i] / total / columns
    return np.array(plan)


def test_plan_is_the_text_books():
    cost = costs(1, 3, 5)
    np.testing.assert_allclose(sinkhorn(cost, epsilon=0.1)[0], slow_plan(cost[0].numpy(), 0.1), atol=1e-10)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_marginals_stand(epsilon):
    plan = sinkhorn(costs(4, 7, 11), epsilon=epsilon, iterations=20000)
    torch.testing.assert_close(plan.sum(2), torch.full((4, 7), 1 / 7, dtype=torch.float64), atol=1e-7, rtol=0)
    torch.testing.assert_close(plan.sum(1), torch.full((4, 11), 1 / 11, dtype=torch.float64), atol=1e-7, rtol=0)
    assert (plan >= 0).all()


def test_no_plan_of_the_same_marginals_is_better():
    cost, epsilon = costs(1, 3, 4), 0.1
    plan = sinkhorn(cost, epsilon=epsilon)

    def objective(p):
        return (p * cost).sum() + epsilon * torch.xlogy(p, p).sum()

    turn = torch.zeros_like(plan)  # moves mass round a square: both marginals stay
    turn[0, 0, 0], turn[0, 1, 1], turn[0, 0, 1], turn[0, 1, 0] = 1, 1, -1, -1
    for step in (1e-3, -1e-3):
        assert objective(plan + step * turn) > objective(plan)


def test_constant_cost_is_mean_pooling():
    torch.testing.assert_close(sinkhorn(torch.full((2, 3, 5), 0.7)), torch.full((2, 3, 5), 1 / 15))


def test_gradient_is_exact():
    cost = costs(2, 3, 4).requires_grad_()
    weight = costs(2, 3, 4, seed=1)
    assert gradcheck(lambda c: (sinkhorn(c, epsilon=0.2, tolerance=1e-14) * weight).sum(), cost, atol=1e-6)
    assert gradcheck(lambda c: sinkhorn(c, epsilon=0.1, tolerance=1e-14), cost, atol=1e-6)


def test_wide_costs_neither_overflow_nor_vanish():
    cost = (100 * costs(1, 5, 5)).requires_grad_()
    plan = sinkhorn(cost, epsilon=0.1, iterations=5000)
    (plan * cost.detach()).sum().backward()
    assert torch.isfinite(plan).all() and torch.isfinite(cost.grad).all()


def test_small_epsilon_finds_the_assignment():
    from scipy.optimize import linear_sum_assignment

    cost = costs(1, 6, 6, seed=4)
    rows, columns = linear_sum_assignment(cost[0].numpy())
    plan = sinkhorn(cost, epsilon=5e-3, iterations=4000)[0]
    assert (plan * cost[0]).sum() == pytest.approx(float(cost[0][rows, columns].mean()), abs=1e-2)


def test_answer_does_not_depend_on_the_batch():
    cost = costs(5, 6, 9).float()
    torch.testing.assert_close(sinkhorn(cost)[2:3], sinkhorn(cost[2:3]), atol=1e-8, rtol=0)
    assert sinkhorn(cost).dtype == torch.float32
