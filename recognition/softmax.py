"""Normalised softmax: scaled cosines without a margin (Wang et al., "NormFace", ACM MM 2017)."""

from __future__ import annotations

from torch import Tensor

from .heads import HEADS, MarginHead, at_least_float32


@HEADS.register("softmax")
class Softmax(MarginHead):
    """logits = s · cos.

    Args:
        scale: s.
    """

    def __init__(self, *, scale: float = 64.0) -> None:
        super().__init__(scale=scale)

    def forward(self, cos_BI: Tensor, label_B: Tensor) -> Tensor:
        return self.scale * at_least_float32(cos_BI)
