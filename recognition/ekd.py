"""Evaluation-oriented distillation: the student learns at which false positive rates the teacher would accept a pair (Huang et al., "Evaluation-oriented
Knowledge Distillation for Deep Face Recognition", CVPR 2022).

Each network has running thresholds at the false positive rates 1e-1 ... 1e-6 of the batch's non-mated pairs. A pair's soft rank, Σ_k σ((s - thr_k) / τ),
counts the thresholds it exceeds; student and teacher ranks of all mated pairs and of the non-mated pairs hardest for the student are brought
together. Numbers are the authors' code's [C]; fixed: thresholds are right from the first step (bias-corrected running mean), a batch without mated or
non-mated pairs costs nothing and gives no NaN, weights do not grow with the number of processes (see `gather`).

The lowest rates need many pairs: below 512 images 1e-5 and 1e-6 are the batch's hardest non-mated pair.
Axes: N images of all processes, D embedding, P pairs, K thresholds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.config import Config
from ..core.progress import log
from .gather import gather_rows

ENOUGH_IMAGES = 512


class EkdConfig(Config):
    """Weights and settings of the loss.

    Attributes:
        positive: weight of the mated pairs.
        negative: weight of the non-mated pairs.
        hardest: how many non-mated pairs count: those with the largest student similarity.
        tau: temperature of the soft rank.
        decades: thresholds at the rates 10^-1 ... 10^-decades.
        keep: weight of the old value in the running thresholds.
        compat: released behaviour: thresholds start at 0 without correction, weights grow with the number of processes.
    """

    positive: float = Field(0.02, ge=0)
    negative: float = Field(0.01, ge=0)
    hardest: int = Field(2000, ge=1)
    tau: float = Field(0.01, gt=0)
    decades: int = Field(6, ge=1, le=9)
    keep: float = Field(0.99, ge=0, lt=1)
    compat: bool = False


def soft_rank(cos_P: Tensor, threshold_K: Tensor, tau: float) -> Tensor:
    """Return how many thresholds each similarity exceeds, softly: (P,) in 0...K."""
    return torch.sigmoid((cos_P[:, None] - threshold_K.to(cos_P.dtype)) / tau).sum(1)


def rank_loss(student_P: Tensor, teacher_P: Tensor, student_K: Tensor, teacher_K: Tensor, tau: float = 0.01) -> Tensor:
    """Mean squared difference of the soft ranks, each network by its own thresholds; 0 without pairs."""
    if not len(student_P):
        return student_P.sum() * 0.0
    return (soft_rank(student_P, student_K, tau) - soft_rank(teacher_P, teacher_K, tau)).square().mean()


def batch_thresholds(other_P: Tensor, decades: int = 6) -> Tensor:
    """Return the similarity at index P // 10^k of the descending non-mated ones, k = 1...decades, (K,)."""
    place_K = [len(other_P) // 10**k for k in range(1, decades + 1)]
    return other_P.topk(place_K[0] + 1).values[place_K]  # the upper tenth is all that is read; sorting all of 131k values takes 66 ms, this 2


class Ekd(nn.Module):
    """The loss and its state; forward(student_BD, teacher_BD, label_B) → "loss", "positive", "negative" (the last two unweighted).

    Raw or unit rows of this process; pairs are formed among the rows of all processes. Thresholds change in training mode only.
    """

    student_K: Tensor
    teacher_K: Tensor
    seen: Tensor

    def __init__(self, config: EkdConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("student_K", torch.zeros(config.decades))
        self.register_buffer("teacher_K", torch.zeros(config.decades))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, student_BD: Tensor, teacher_BD: Tensor, label_B: Tensor) -> dict[str, Tensor]:
        student_F = _flat_cosines(gather_rows(student_BD, compat=self.config.compat))
        teacher_F = _flat_cosines(gather_rows(teacher_BD.detach()))
        mated_P, other_P = _pair_places(gather_rows(label_B))
        # No gradient through all pairs: only the chosen few thousand are read with it.
        seen_P = student_F.detach()[other_P]
        if self.training:
            self._update(seen_P, teacher_F[other_P])
        positive = self._loss(student_F[mated_P], teacher_F[mated_P])
        hard_P = other_P[seen_P.topk(min(self.config.hardest, len(other_P))).indices]
        negative = self._loss(student_F[hard_P], teacher_F[hard_P])
        return {"loss": self.config.positive * positive + self.config.negative * negative, "positive": positive, "negative": negative}

    def thresholds(self) -> tuple[Tensor, Tensor]:
        """Return the student's and the teacher's thresholds, (K,) each, the bias of the running mean's start taken out."""
        if self.config.compat:
            return self.student_K, self.teacher_K
        held = 1.0 - self.config.keep ** self.seen.clamp(min=1).to(self.student_K.dtype)
        return self.student_K / held, self.teacher_K / held

    def _loss(self, student_P: Tensor, teacher_P: Tensor) -> Tensor:
        if not self.config.compat and not int(self.seen):  # no non-mated pair yet: there is no threshold to rank by
            return student_P.sum() * 0.0
        return rank_loss(student_P, teacher_P, *self.thresholds(), tau=self.config.tau)

    @torch.no_grad()
    def _update(self, student_P: Tensor, teacher_P: Tensor) -> None:
        """Move both sets of thresholds; a batch without non-mated pairs, or with NaN, leaves them alone."""
        if not len(student_P) or not bool(torch.isfinite(student_P.sum() + teacher_P.sum())):
            return
        for held_K, other_P in ((self.student_K, student_P), (self.teacher_K, teacher_P)):
            held_K.lerp_(batch_thresholds(other_P, self.config.decades).to(held_K.dtype), 1.0 - self.config.keep)
        self.seen += 1


def warn_small(images: int) -> None:
    """Say in the log what a step of fewer than 512 images means for the thresholds."""
    if images < ENOUGH_IMAGES:
        log.warning("EKD: %d images a step; below %d the thresholds of the lowest false positive rates are the hardest non-mated pair of the step", images, ENOUGH_IMAGES)


def _flat_cosines(raw_ND: Tensor) -> Tensor:
    """Cosines of all pairs of rows, (N · N,)."""
    unit_ND = F.normalize(raw_ND if raw_ND.dtype == torch.float64 else raw_ND.float())
    return (unit_ND @ unit_ND.T).flatten()


def _pair_places(label_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the mated pairs i < j are in the flat matrix, and where the non-mated ones are, (P,) each."""
    count = len(label_N)
    row_P, column_P = torch.triu_indices(count, count, 1, device=label_N.device)
    mated_P, place_P = label_N[row_P] == label_N[column_P], row_P * count + column_P
    return place_P[mated_P], place_P[~mated_P]
