"""Distribution Distillation Loss: the similarities of hard faces are drawn to the distribution of easy ones (Huang et al., ECCV 2020).

One network embeds branches of image pairs: the first branch is easy (the teacher), the others hard (the students). Each branch has a soft histogram of
its mated and one of its hardest non-mated similarities; L = Σ students [λ1 KL(P⁺‖Q⁺) + λ2 KL(P⁻‖Q⁻)] + λ3 Σ_i Σ_j (E[S⁻_i] - E[S⁺_j]). The
teacher is not detached: the order term keeps KL from drawing it down to the student. Numbers are the authors' code's [C].

The weights hold for one process and stay what they are under data parallel: see `gather`. In the released code they grow with the number of processes.
Axes: B pairs of a branch (each of another identity), D embedding, P similarities, R nodes of the histogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..core.config import Config
from ..core.errors import UserError
from .gather import gather_rows

_WIDTH = 0.1
_TINY = 1e-9


class DdlLossConfig(Config):
    """Weights and variants of the loss.

    Attributes:
        positive: λ1, of the mated distributions.
        negative: λ2, of the non-mated distributions.
        order: λ3, of the differences of their means.
        grid: nodes of the histogram: "released" (0 to 0.999) or "wide" (-1.3 to 1.3, which does not pile up what lies beyond an edge).
        compat: the released negatives (each row looks at later rows only, never below 0; the last one is 0) and the weight times the number of processes.
    """

    positive: float = Field(0.1, ge=0)
    negative: float = Field(0.02, ge=0)
    order: float = Field(0.5, ge=0)
    grid: Literal["released", "wide"] = "released"
    compat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarities:
    """What a branch is judged by: mated similarities and the hardest non-mated ones, (P,) each, either may be empty."""

    mated_P: Tensor
    other_P: Tensor


def soft_histogram(cos_P: Tensor, grid: Literal["released", "wide"] = "released") -> Tensor:
    """Return the share of similarities at each node, Gaussian of width 0.1, (R,), sum 1; differentiable.

    On the released grid what lies below 0 looks like 0 and what lies near 1 is drawn down (a single 0.95 has mean 0.899).
    """
    if grid == "released":
        node_R = torch.arange(1000, device=cos_P.device, dtype=cos_P.dtype) * 0.001
    else:
        node_R = torch.arange(-1300, 1301, device=cos_P.device, dtype=cos_P.dtype) * 0.001
    height_R = torch.exp((cos_P[:, None] - node_R).square() / (-2.0 * _WIDTH**2)).sum(0)
    return height_R / height_R.sum()


def histogram_kl(teacher_R: Tensor, student_R: Tensor) -> Tensor:
    """KL(teacher ‖ student) of two histograms, with 1e-9 added to both."""
    teacher_R, student_R = teacher_R + _TINY, student_R + _TINY
    return (teacher_R * (teacher_R / student_R).log()).sum()


def hardest_other(embed_BD: Tensor, *, compat: bool = False) -> Tensor:
    """Return the largest cosine of each row to a row of another identity, (B,); all rows are of different identities, unit length.

    One row has no other: the result is empty.
    """
    cos_BB = embed_BD @ embed_BD.T
    if compat:
        return cos_BB.triu(1).max(1).values
    if len(embed_BD) < 2:
        return cos_BB.new_empty(0)
    return cos_BB.masked_fill(torch.eye(len(cos_BB), dtype=torch.bool, device=cos_BB.device), -torch.inf).max(1).values


def branch_similarities(pair_B2D: Tensor, *, compat: bool = False) -> Similarities:
    """Return the similarities of a branch.

    Args:
        pair_B2D: raw embeddings of two images of each identity; the first ones are the non-mated set.
    """
    unit_B2D = F.normalize(pair_B2D, dim=-1)
    mated_B = (unit_B2D[:, 0] * unit_B2D[:, 1]).sum(-1)
    return Similarities(mated_P=mated_B[mated_B > 0], other_P=hardest_other(unit_B2D[:, 0], compat=compat))


def ddl(branches: Sequence[Similarities], config: DdlLossConfig) -> dict[str, Tensor]:
    """Return the loss and its three parts ("kl_mated", "kl_other", "order"), unweighted.

    A branch without a positive mated similarity takes no part in the mated KL, nor its mated mean in the order term; likewise non-mated.
    """
    teacher, *students = branches
    zero = teacher.other_P.sum() * 0.0 + teacher.mated_P.sum() * 0.0
    mated = sum((_kl(teacher.mated_P, student.mated_P, config) for student in students), zero)
    other = sum((_kl(teacher.other_P, student.other_P, config) for student in students), zero)
    low = [branch.other_P.mean() for branch in branches if len(branch.other_P)]
    high = [branch.mated_P.mean() for branch in branches if len(branch.mated_P)]
    order = sum((below - above for below in low for above in high), zero)
    loss = config.positive * mated + config.negative * other + config.order * order
    return {"loss": loss, "kl_mated": mated, "kl_other": other, "order": order}


def ddl_of_embeddings(branches: Sequence[Tensor], config: DdlLossConfig) -> dict[str, Tensor]:
    """Return `ddl` over the branches of all processes.

    Args:
        branches: this process's raw embeddings of each branch, (2 B, D), the two images of an identity side by side. No identity
            occurs twice in a branch, on any process.

    Raises:
        UserError: fewer than two branches.
    """
    if len(branches) < 2:
        raise UserError(f"DDL got {len(branches)} branch, expected an easy one and at least one hard one")
    found = []
    for raw_ND in branches:
        pair_B2D = gather_rows(raw_ND.unflatten(0, (-1, 2)), compat=config.compat)
        found.append(branch_similarities(pair_B2D if pair_B2D.dtype == torch.float64 else pair_B2D.float(), compat=config.compat))
    return ddl(found, config)


def _kl(teacher_P: Tensor, student_P: Tensor, config: DdlLossConfig) -> Tensor:
    if not len(teacher_P) or not len(student_P):
        return teacher_P.sum() * 0.0
    return histogram_kl(soft_histogram(teacher_P, config.grid), soft_histogram(student_P, config.grid))
