"""ArcFace as most public code trains it: the value of the margin with the gradient of no margin.

insightface's arcface_torch moves the angle inside a no-gradient region, in place, so the target's logit has slope s in its cosine wherever it is
(true: s · sin(θ + m) / sin θ). Both forms train; results of that code are compared with under this name, never under "arcface".
"""

from __future__ import annotations

from torch import Tensor

from .arcface import ArcFace
from .heads import HEADS, at_least_float32, target_cosines, with_target


@HEADS.register("arcface-straight-through")
class ArcFaceStraightThrough(ArcFace):
    """Logits of `ArcFace`; d logit / d cos = s everywhere, the target included."""

    true_gradient = False

    def forward(self, cos_BI: Tensor, label_B: Tensor) -> Tensor:
        cos_BI = at_least_float32(cos_BI)
        target_B, _ = target_cosines(cos_BI, label_B)
        value_B, _ = target_cosines(super().forward(cos_BI.detach(), label_B) / self.scale, label_B)
        return self.scale * with_target(cos_BI, label_B, target_B + (value_B - target_B).detach())
