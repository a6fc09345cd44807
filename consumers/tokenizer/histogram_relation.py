"""GloTok's codebook-wise histogram relation learning: the codebook's own cosines shall be spread like a teacher's (consumers.md §7).

The relations D of a codebook are the cosines of all pairs i <= j of its rows, self-pairs included; a soft histogram of them is compared, not the pairs, so that
teacher and student need neither the same length of a row nor the same number of rows. From the paper: bins, kernel, direction of the divergence. The kernel's
width is a reconstruction [C]: σ = one bin. Axes: K codebook rows, D numbers a row, P pairs, N bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...core.check import check

BINS = 40
"""N of the paper."""

CHUNK = 1 << 18
"""Pairs whose kernels stand in memory at once (× 40 bins × 4 bytes = 42 MB); the backward pass makes each chunk's again."""


def default_alpha(bins: int = BINS) -> float:
    """Return α = 1 / (2 spacing²), a kernel whose standard deviation is one bin: 190.125 for 40 bins [C]."""
    return (bins - 1) ** 2 / 8.0


def bin_centres(bins: int = BINS) -> Tensor:
    """Return B_k = -1 + 2k / (N - 1), float64 (N,)."""
    return torch.linspace(-1.0, 1.0, bins, dtype=torch.float64)


def relations(row_KD: Tensor) -> Tensor:
    """Return the cosines of all pairs i <= j of rows, (K (K + 1) / 2,)."""
    unit_KD = F.normalize(row_KD, dim=1)
    first, second = torch.triu_indices(len(row_KD), len(row_KD), device=row_KD.device)
    return (unit_KD @ unit_KD.T)[first, second]


def log_histogram(row_KD: Tensor, *, bins: int = BINS, alpha: float | None = None, chunk: int = CHUNK) -> Tensor:
    """Return the logarithm of the normalised soft histogram of a codebook's relations, (N,).

    p_n = Σ_i exp(-α (D_i - B_n)²), divided by its sum over n. Taken by log-sum-exp: a bin far from every pair has a finite logarithm, where the plain sum
    is 0 and its logarithm's gradient NaN.

    Args:
        row_KD: codebook; only directions count. Two rows at least.
        alpha: kernel; None = `default_alpha`.
    """
    check("row_KD", row_KD, "K D")
    if len(row_KD) < 2 or bins < 2:
        raise ValueError(f"{len(row_KD)} codebook rows and {bins} bins, expected at least two of each")
    cosine_P, centre_N = relations(row_KD), bin_centres(bins).to(row_KD)
    alpha = default_alpha(bins) if alpha is None else alpha
    total_N = torch.full_like(centre_N, -torch.inf)
    for part_P in cosine_P.split(chunk):
        found_N = checkpoint(_log_kernel_sums, part_P, centre_N, alpha, use_reentrant=False) if len(cosine_P) > chunk else _log_kernel_sums(part_P, centre_N, alpha)
        total_N = found_N if torch.isinf(total_N).all() else torch.logaddexp(total_N, found_N)
    return total_N.log_softmax(0)


def histogram_divergence(student_log_N: Tensor, teacher_log_N: Tensor) -> Tensor:
    """Return KL(P_t ‖ P_s) = Σ P_t (log P_t - log P_s); no gradient reaches the teacher."""
    return F.kl_div(student_log_N, teacher_log_N.detach(), reduction="sum", log_target=True)


def histogram_relation_loss(student_KD: Tensor, teacher_MD: Tensor, *, bins: int = BINS, alpha: float | None = None) -> Tensor:
    """Return L_hist of two codebooks: 0 where their histograms agree (their rows need not), unchanged by rotating or rescaling either."""
    with torch.no_grad():
        teacher_log_N = log_histogram(teacher_MD, bins=bins, alpha=alpha)
    return histogram_divergence(log_histogram(student_KD, bins=bins, alpha=alpha), teacher_log_N.to(student_KD))


def _log_kernel_sums(cosine_P: Tensor, centre_N: Tensor, alpha: float) -> Tensor:
    return (-alpha * (cosine_P[None, :] - centre_N[:, None]).square()).logsumexp(1)
