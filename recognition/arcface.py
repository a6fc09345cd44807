"""ArcFace: an additive angular margin on the target (Deng et al., CVPR 2019, eq. 3).

The gradient is the true one. insightface's code applies the margin without gradient, so its target logit has slope 1 in the
cosine; here the slope is sin(θ + m) / sin θ (1.154 at cos = 0.5, m = 0.5).
"""

from __future__ import annotations

from torch import Tensor

from .heads import HEADS, MarginHead, at_least_float32, cos_plus_margin, monotone_target, target_cosines, with_target


@HEADS.register("arcface")
class ArcFace(MarginHead):
    """logits = s · cos, with s · cos(θ + m) at the target.

    Args:
        scale: s.
        margin: m in radians.
    """

    def __init__(self, *, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__(scale=scale)
        self.margin = margin

    def forward(self, cos_BI: Tensor, label_B: Tensor) -> Tensor:
        cos_BI = at_least_float32(cos_BI)
        target_B, _ = target_cosines(cos_BI, label_B)
        moved_B = cos_plus_margin(target_B, self.margin)
        return self.scale * with_target(cos_BI, label_B, monotone_target(target_B, moved_B, self.margin))
