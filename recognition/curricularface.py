"""CurricularFace: hard negatives count little at first and more as training goes on (Huang et al., CVPR 2020).

Follows the authors' first repository: running mean with weight 0.01 for the new batch, updated before it is used; hard means
above cos(θ + m), not above its monotone replacement. Fixed: the gradient at cos = ±1 is finite; t rests in evaluation mode.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .gather import sum_over_processes
from .heads import HEADS, MarginHead, at_least_float32, cos_plus_margin, monotone_target, target_cosines, with_target


@HEADS.register("curricularface")
class CurricularFace(MarginHead):
    """logits = s · N, N = cos for easy, cos · (t + cos) for hard negatives, cos(θ + m) at the target.

    Args:
        scale: s.
        margin: m in radians.
        t_alpha: weight of the batch's mean target cosine in the running mean t.
    """

    reads_sharded: ClassVar[frozenset[str]] = frozenset({"target_B"})
    t: Tensor

    def __init__(self, *, scale: float = 64.0, margin: float = 0.5, t_alpha: float = 0.01) -> None:
        super().__init__(scale=scale)
        self.margin, self.t_alpha = margin, t_alpha
        self.register_buffer("t", torch.zeros(()))

    def forward(self, cos_BI: Tensor, label_B: Tensor, target_B: Tensor | None = None) -> Tensor:
        """See `MarginHead`.

        Args:
            target_B: each row's target cosine where the classes are sharded and the target may lie on another shard
                (then its label here is -1); None = take it from `cos_BI`, rows with label -1 pass as scaled cosines.
        """
        cos_BI = at_least_float32(cos_BI)
        own_B, labelled_B = target_cosines(cos_BI, label_B)
        if target_B is not None:
            own_B, labelled_B = torch.where(labelled_B, own_B, target_B.to(cos_BI.dtype)), torch.ones_like(labelled_B)
        if self.training:
            self._update(own_B.detach(), labelled_B)
        moved_B = cos_plus_margin(own_B, self.margin)
        hard_BI = (cos_BI > moved_B[:, None]) & labelled_B[:, None]
        # A copy: the next forward changes the buffer in place, perhaps before this graph runs backward.
        t = self.t.clone().to(cos_BI.dtype)
        negative_BI = torch.where(hard_BI, cos_BI * (t + cos_BI), cos_BI)
        return self.scale * with_target(negative_BI, label_B, monotone_target(own_B, moved_B, self.margin))

    @torch.no_grad()
    def _update(self, own_B: Tensor, labelled_B: Tensor) -> None:
        """t ← a · (mean target cosine over the batches of all processes) + (1 - a) · t; a NaN batch leaves it alone."""
        pair = sum_over_processes(torch.stack([(own_B * labelled_B).sum(), labelled_B.sum().to(own_B.dtype)]))
        mean = (pair[0] / pair[1]).to(self.t.dtype)
        self.t.copy_(torch.where(torch.isfinite(mean), self.t_alpha * mean + (1.0 - self.t_alpha) * self.t, self.t))
