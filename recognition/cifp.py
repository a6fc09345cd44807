"""CIFP: images with many false positives among the classes get a larger margin (Xu et al., "Consistent Instance False Positive Improves Fairness in
Face Recognition", CVPR 2021).

The base is CosFace. Adding a penalty to all non-target logits of a row is the same as taking it from the target's, which is what is done here.
"released" is the authors' published code, which made the published figures: the penalty is the mean squared cosine of the row's selected false
positives times (1 + target cosine), and classes that beat the target are left out. "paper" is the text's form, α · γ_i / γ_u with
γ_i the row's share of classes above the common threshold; its α is not known, the default 1 is a choice [C].
Fixed: where every class beats the target the penalty is 0 (the released code stops with an IndexError).
Axes: B images, I identities, P selected pairs.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import UserError
from .gather import sum_over_processes, world_size
from .heads import HEADS, FixedCosines, MarginHead, at_least_float32, target_cosines, with_target

_PAPER_FAR = 1e-4


@HEADS.register("cifp")
class CIFP(MarginHead):
    """logits = s · cos, with s · (cos - m - penalty) at the target.

    The threshold T_u is common to the batches of all processes; the last one is kept in the buffer `threshold` (0 before the first).

    Args:
        scale: s.
        margin: m, in units of the cosine.
        mode: see above.
        far: total false positive rate γ_u; None = 1 / (classes - 1) in mode "released", 1e-4 in mode "paper".
        alpha: α of mode "paper"; None = 1.
        weighted: in mode "paper", γ_i is the sum of the false positives' squared cosines over (classes - 1), not their share.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"fixed"})
    threshold: Tensor

    def __init__(
        self, *, scale: float = 64.0, margin: float = 0.35, mode: Literal["released", "paper"] = "released", far: float | None = None, alpha: float | None = None, weighted: bool = False
    ) -> None:
        super().__init__(scale=scale)
        if mode == "released" and (alpha is not None or weighted):
            raise UserError("the head 'cifp' in mode 'released' has no 'alpha' and no 'weighted'; leave them out, or set mode: paper")
        self.margin, self.mode, self.far, self.weighted = margin, mode, far, weighted
        self.alpha = 1.0 if alpha is None else alpha
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, cos_BI: Tensor, label_B: Tensor, *, fixed: FixedCosines | None = None) -> Tensor:
        """See `MarginHead`.

        Args:
            fixed: cosines whose gradient does not reach the class centres ("released" penalises the embedding, not the centres, with the
                hard false positives); without it all gradients go through `cos_BI`, the values are the same.
        """
        cos_BI = at_least_float32(cos_BI)
        target_B, _ = target_cosines(cos_BI, label_B)
        if fixed is None:
            fixed = lambda row_P, column_P: cos_BI[row_P, column_P]  # noqa: E731
        penalty_B = (self._released if self.mode == "released" else self._paper)(cos_BI, label_B, target_B, fixed)
        return self.scale * with_target(cos_BI, label_B, target_B - self.margin - penalty_B)

    def _released(self, cos_BI: Tensor, label_B: Tensor, target_B: Tensor, fixed: FixedCosines) -> Tensor:
        candidate_BI = _non_targets(cos_BI, label_B) & (cos_BI <= target_B[:, None])
        far = self.far if self.far is not None else 1.0 / max(1, cos_BI.shape[1] - 1)
        row_P, column_P = self._above_threshold(cos_BI, candidate_BI, far)
        hard_P = cos_BI[row_P, column_P] >= (target_B - self.margin)[row_P]
        value_P = torch.where(hard_P, fixed(row_P, column_P).to(cos_BI.dtype), cos_BI[row_P, column_P]).square()
        total_B = torch.zeros_like(target_B).index_add(0, row_P, value_P)
        count_B = torch.zeros_like(target_B).index_add(0, row_P, (value_P > 0).to(value_P.dtype))
        own_B = fixed(torch.arange(len(label_B), device=label_B.device), label_B.clamp(min=0)).to(cos_BI.dtype)
        return (1.0 + own_B) * total_B / count_B.clamp(min=1.0)

    def _paper(self, cos_BI: Tensor, label_B: Tensor, target_B: Tensor, fixed: FixedCosines) -> Tensor:
        far = self.far if self.far is not None else _PAPER_FAR
        row_P, column_P = self._above_threshold(cos_BI, _non_targets(cos_BI, label_B), far)
        chosen_P = cos_BI[row_P, column_P]
        value_P = chosen_P.square() if self.weighted else torch.ones_like(chosen_P)
        total_B = torch.zeros_like(target_B).index_add(0, row_P, value_P)
        return self.alpha * total_B / (max(1, cos_BI.shape[1] - 1) * far)

    def _above_threshold(self, cos_BI: Tensor, candidate_BI: Tensor, far: float) -> tuple[Tensor, Tensor]:
        """Return rows and columns of the candidates strictly above the k-th largest one of all processes, k = ceil(far · candidates)."""
        with torch.no_grad():
            count = int(sum_over_processes(candidate_BI.sum()))
            # 1 / 3 · 12 is a little more than 4 in floating point: the nudge keeps ceil() at the count that was meant.
            wanted = math.ceil(far * count * (1.0 - 1e-12) - 1e-9)
            if wanted == 0:
                empty = torch.empty(0, dtype=torch.long, device=cos_BI.device)
                return empty, empty
            masked_BI = cos_BI.masked_fill(~candidate_BI, -math.inf)
            threshold = _kth_largest(masked_BI.flatten(), wanted)
            if self.training and bool(torch.isfinite(threshold)):
                self.threshold.copy_(threshold)
            row_P, column_P = torch.nonzero(masked_BI > threshold, as_tuple=True)
            return row_P, column_P


def _non_targets(cos_BI: Tensor, label_B: Tensor) -> Tensor:
    column_I = torch.arange(cos_BI.shape[1], device=cos_BI.device)
    return (column_I != label_B[:, None]) & (label_B >= 0)[:, None]


def _kth_largest(value_N: Tensor, rank: int) -> Tensor:
    """Return the rank-th largest value over all processes (every process brings its own `rank` largest)."""
    largest_K = torch.full((rank,), -math.inf, dtype=value_N.dtype, device=value_N.device)
    own = value_N.topk(min(rank, len(value_N))).values
    largest_K[: len(own)] = own
    if world_size() == 1:
        return largest_K[-1]
    every = [torch.empty_like(largest_K) for _ in range(world_size())]
    dist.all_gather(every, largest_K)
    return torch.cat(every).topk(rank).values[-1]
