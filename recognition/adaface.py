"""AdaFace: the margin follows the image's quality, read from the length of its raw embedding (Kim et al., CVPR 2022, read from the released code).

A short embedding (poor image, z = -1) gets ArcFace's margin 0.4 rad, a mean one CosFace's 0.4, a long one (z = 1) a margin that is
easy near the centre. The running mean and deviation of the lengths are the head's state. Differences from the released code: only the target's
cosine is kept off ±1 (by 1e-7; there all cosines, by 1e-3), and the statistics are over the batches of all processes.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from .gather import sum_over_processes
from .heads import HEADS, MarginHead, at_least_float32, sine_of, target_cosines, with_target

_EPS = 1e-3
_SHORTEST, _LONGEST = 1e-3, 100.0


@HEADS.register("adaface")
class AdaFace(MarginHead):
    """logits = s · cos, at the target s · (cos(θ - m·z) - m - m·z) with z = clip(h (‖x‖ - μ) / (σ + 0.001), -1, 1).

    θ - m·z is clamped to [0.001, π - 0.001]: where a good image (z > 0) lies within m·z of its centre the target has no gradient.

    Args:
        scale: s.
        margin: m.
        h: concentration.
        t_alpha: weight of the batch in the running mean μ (starts at 20) and deviation σ (starts at 100).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"norm_B"})
    mean: Tensor
    deviation: Tensor

    def __init__(self, *, scale: float = 64.0, margin: float = 0.4, h: float = 0.333, t_alpha: float = 0.01) -> None:
        super().__init__(scale=scale)
        self.margin, self.h, self.t_alpha = margin, h, t_alpha
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def forward(self, cos_BI: Tensor, label_B: Tensor, *, norm_B: Tensor) -> Tensor:
        """See `MarginHead`.

        Args:
            norm_B: length of each raw embedding, (B,); no gradient passes to it.
        """
        cos_BI = at_least_float32(cos_BI)
        norm_B = norm_B.detach().to(cos_BI.dtype).clamp(_SHORTEST, _LONGEST)
        if self.training:
            self._update(norm_B)
        quality_B = (self.h * (norm_B - self.mean) / (self.deviation + _EPS)).clamp(-1.0, 1.0)
        target_B, _ = target_cosines(cos_BI, label_B)
        turned_B = _turned(target_B, -self.margin * quality_B)
        return self.scale * with_target(cos_BI, label_B, turned_B - self.margin * (1.0 + quality_B))

    @torch.no_grad()
    def _update(self, norm_B: Tensor) -> None:
        """Move μ and σ (ddof 1) toward those of the rows of all processes; one row has no σ, and a NaN batch leaves both alone."""
        norm_B = norm_B.double()
        count, total = sum_over_processes(torch.stack([torch.ones_like(norm_B).sum(), norm_B.sum()]))
        mean = total / count
        spread = sum_over_processes((norm_B - mean).square().sum())
        for state, new in ((self.mean, mean), (self.deviation, (spread / (count - 1.0)).sqrt())):
            moved = self.t_alpha * new.to(state.dtype) + (1.0 - self.t_alpha) * state
            state.copy_(torch.where(torch.isfinite(moved), moved, state))


def _turned(cos_B: Tensor, angle_B: Tensor) -> Tensor:
    """cos(clamp(θ + angle, ε, π - ε)) with its true gradient, which is 0 where the clamp holds."""
    theta_B = cos_B.detach().clamp(-1.0, 1.0).arccos() + angle_B
    free_B = cos_B * angle_B.cos() - sine_of(cos_B) * angle_B.sin()
    edge = math.cos(_EPS)
    free_B = torch.where(theta_B < _EPS, torch.full_like(free_B, edge), free_B)
    return torch.where(theta_B > math.pi - _EPS, torch.full_like(free_B, -edge), free_B)
