"""Entropic optimal transport between uniform marginals, with the exact gradient.

The plan is iterated until its marginals stand, in the logarithmic domain (Peyré and Cuturi, "Computational Optimal Transport", §4.4); the gradient comes from the
conditions that hold there (implicit differentiation), so no iteration is kept in memory. Axes: B problems, M rows, N columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_EVERY = 10
"""Iterations between two looks at whether the plan stands."""


def sinkhorn(cost_BMN: Tensor, *, epsilon: float = 0.1, iterations: int = 1000, tolerance: float = 1e-9) -> Tensor:
    """Return the plan Γ ≥ 0 that minimises <Γ, C> - ε H(Γ) with rows summing to 1/M and columns to 1/N, (B, M, N).

    Args:
        cost_BMN: finite costs; their scale counts against `epsilon`.
        iterations: at most so many.
        tolerance: stop when the logarithm of every problem's column scaling changed by less than this on average over an iteration.

    The answer to one problem does not depend on the others of the batch beyond the tolerance.
    """
    return _Plan.apply(cost_BMN, epsilon, iterations, tolerance)


def _solve(cost_BMN: Tensor, epsilon: float, iterations: int, tolerance: float) -> Tensor:
    """Alternate the two scalings; every tenth time they are absorbed into the potentials, where they cannot overflow."""
    rows, columns = cost_BMN.shape[1:]
    f_BM1, g_B1N = cost_BMN.new_zeros(len(cost_BMN), rows, 1), cost_BMN.new_zeros(len(cost_BMN), 1, columns)
    kernel_BMN = -cost_BMN / epsilon
    for _ in range(max(1, iterations // _EVERY)):
        # Two half steps by logarithms: after them no entry is too large, whatever the costs.
        f_BM1 = -math.log(rows) - (kernel_BMN + g_B1N).logsumexp(2, keepdim=True)
        g_B1N = -math.log(columns) - (kernel_BMN + f_BM1).logsumexp(1, keepdim=True)
        plan_BMN = (kernel_BMN + f_BM1 + g_B1N).exp()
        u_BM1, v_BN1, change_B = torch.ones_like(f_BM1), torch.ones_like(g_B1N).mT, torch.zeros(len(cost_BMN))
        for _ in range(_EVERY - 1):
            u_BM1 = 1.0 / (rows * (plan_BMN @ v_BN1)).clamp(min=1e-290)
            before_BN1, v_BN1 = v_BN1, 1.0 / (columns * (plan_BMN.mT @ u_BM1)).clamp(min=1e-290)
            change_B = (v_BN1 / before_BN1).log().abs().mean((1, 2))
        f_BM1, g_B1N = f_BM1 + u_BM1.log(), g_B1N + v_BN1.mT.log()
        if not bool((change_B >= tolerance).any()):
            break
    return (kernel_BMN + f_BM1 + g_B1N).exp()


class _Plan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost_BMN: Tensor, epsilon: float, iterations: int, tolerance: float) -> Tensor:
        # float64: a change of 1e-9 cannot be seen in float32.
        plan_BMN = _solve(cost_BMN.detach().double(), epsilon, iterations, tolerance)
        ctx.save_for_backward(plan_BMN)
        ctx.epsilon = epsilon
        return plan_BMN.to(cost_BMN.dtype)

    @staticmethod
    def backward(ctx: Any, upstream_BMN: Tensor) -> tuple[Tensor, None, None, None]:
        """dΓ = Γ ∘ (df + dg - dC) / ε with both marginals fixed; the adjoint potentials u, v solve a system of M equations.

        With H = G ∘ Γ: u·rows(Γ) + Γ v = rows(H) and Γᵀu + v·columns(Γ) = columns(H); then dL/dC = Γ ∘ (u + v - G) / ε.
        """
        (plan_BMN,) = ctx.saved_tensors
        grad_BMN = upstream_BMN.double()
        pull_BMN = grad_BMN * plan_BMN
        pull_BM1, pull_BN1 = pull_BMN.sum(2, keepdim=True), pull_BMN.sum(1)[:, :, None]
        row_BM, column_B1N = plan_BMN.sum(2), plan_BMN.sum(1, keepdim=True).clamp(min=1e-290)
        scaled_BMN = plan_BMN / column_B1N
        system_BMM = torch.diag_embed(row_BM) - scaled_BMN @ plan_BMN.mT
        # (u + c, v - c) is as good as (u, v): the constant matrix picks one.
        system_BMM = system_BMM + 1.0 / plan_BMN.shape[1] ** 2
        u_BM1 = torch.linalg.solve(system_BMM, pull_BM1 - scaled_BMN @ pull_BN1)
        v_B1N = ((pull_BN1 - plan_BMN.mT @ u_BM1) / column_B1N.mT).mT
        return (plan_BMN * (u_BM1 + v_B1N - grad_BMN) / ctx.epsilon).to(upstream_BMN.dtype), None, None, None
