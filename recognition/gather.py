"""Rows of all processes in one tensor, with the gradient that makes several processes equal to one.

A pair loss needs all pairs of the global batch. Every process gathers all rows and computes the same loss; data parallel training then averages the
gradients over the W processes. The gradient handed back to a process's own rows is therefore multiplied by W: the average is exactly the gradient of
one process that holds the whole batch. The public code of DDL and EKD sums over processes *and* multiplies by W, so its weights are W times the stated
ones; `compat=True` does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


_ALONE: ContextVar[bool] = ContextVar("each_alone", default=False)


@contextmanager
def each_alone() -> Iterator[None]:
    """Within, every process counts as the only one: for code that sums over processes, where each process already has all rows."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def process_rank() -> int:
    """Return this process's number among those that train together, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes that train together, 1 without a process group."""
    if _ALONE.get():
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; no gradient passes."""
    x = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def gather_rows(row_BX: Tensor, *, compat: bool = False) -> Tensor:
    """Return the rows of all processes in the order of their ranks, (W·B, ...); in one process the rows themselves.

    Every process must bring the same number of rows and compute the same loss from what it gets.

    Args:
        compat: the released W-fold weight of such losses.
    """
    if world_size() == 1:
        return row_BX
    return _Gather.apply(row_BX, world_size() * (world_size() if compat else 1))


def sum_gradients(x: Tensor) -> Tensor:
    """Return the tensor itself; its gradient will be the sum over all processes, for what each of them uses for another part of one loss."""
    return _SumGradients.apply(x) if world_size() > 1 else x


class _SumGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, row_BX: Tensor, factor: int) -> Tensor:
        ctx.factor, ctx.rows = factor, len(row_BX)
        part_W = [torch.empty_like(row_BX) for _ in range(world_size())]
        dist.all_gather(part_W, row_BX.contiguous())
        return torch.cat(part_W)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        # The loss is the same on every process, so is this gradient: own rows are all there is to take, no exchange is needed.
        start = dist.get_rank() * ctx.rows
        return gradient[0][start : start + ctx.rows] * ctx.factor, None
