"""CosFace: an additive margin on the target's cosine (Wang et al., CVPR 2018, eq. 4)."""

from __future__ import annotations

from torch import Tensor

from .heads import HEADS, MarginHead, at_least_float32, target_cosines, with_target


@HEADS.register("cosface")
class CosFace(MarginHead):
    """logits = s · cos, with s · (cos - m) at the target.

    Args:
        scale: s.
        margin: m, in units of the cosine (the paper's 0.35; insightface trains with 0.4).
    """

    def __init__(self, *, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__(scale=scale)
        self.margin = margin

    def forward(self, cos_BI: Tensor, label_B: Tensor) -> Tensor:
        cos_BI = at_least_float32(cos_BI)
        target_B, _ = target_cosines(cos_BI, label_B)
        return self.scale * with_target(cos_BI, label_B, target_B - self.margin)
