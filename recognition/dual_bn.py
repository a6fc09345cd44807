"""Two batch normalisations in the place of one: for clean and for attacked features, fused by a weight for each sample.

Source: AFA (Wang et al., arXiv 2105.15157); what is built is a reconstruction of its abstract, not verified against the authors' implementation.
y = (1 - w) · BN_c(u) + w · BN_a(u), both with their running statistics: linear in w and equal to a branch at either end. Averaged parameters, or the moments of
the mixture, are something else (recognition.md §6.3).
Axes: B samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch.nn.functional as F
from torch import Tensor, nn

Share = float | Tensor
"""0.0 = the clean branch, 1.0 = the attacked one, each as an ordinary batch normalisation; (B,) in [0, 1] = fused, with running statistics in every mode."""


class DualNorm(nn.Module):
    """A batch normalisation and a second one that starts as its copy; which of them runs is set by `routed`."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.clean, self.attacked = norm, deepcopy(norm)
        self.share: Share = 0.0

    def forward(self, u: Tensor) -> Tensor:
        if not isinstance(self.share, Tensor):
            return self.attacked(u) if self.share else self.clean(u)
        share = self.share.to(u.dtype).reshape(-1, *(1,) * (u.ndim - 1))
        return (1 - share) * _fixed(self.clean, u) + share * _fixed(self.attacked, u)


def _fixed(norm: nn.modules.batchnorm._BatchNorm, u: Tensor) -> Tensor:
    return F.batch_norm(u, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def to_dual(module: nn.Module) -> nn.Module:
    """Put a `DualNorm` in the place of every batch normalisation below the module, in place, and return it."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, DualNorm(child))
        elif not isinstance(child, DualNorm):
            to_dual(child)
    return module


@contextmanager
def routed(module: nn.Module, share: Share) -> Iterator[None]:
    """Send every `DualNorm` below the module to a branch or a mixture, and back to what was set before.

    Raises:
        ValueError: a number other than 0 and 1: a mixture has a weight for each sample.
    """
    if not isinstance(share, Tensor) and share not in (0.0, 1.0):
        raise ValueError(f"share is {share}, expected 0.0, 1.0 or a tensor with a weight for each sample")
    norms = [norm for norm in module.modules() if isinstance(norm, DualNorm)]
    before = [norm.share for norm in norms]
    for norm in norms:
        norm.share = share
    try:
        yield
    finally:
        for norm, old in zip(norms, before):
            norm.share = old
