"""Attack A3: try every secret draw that the public parameters allow (a rank, a seed) and keep the one that explains what was seen.

A secret out of a few dozen ranks is no secret: the right one leaves nothing unexplained in the linear equations (consumers.md §9, A1 "rank search by residual").
Axes: B faces, K guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ....core.errors import UserError
from .linear_recovery import recover_from_dct

_PROBE_STEPS = 40
T = TypeVar("T")


def guess(candidates: Sequence[T], residual: Callable[[T], Tensor]) -> tuple[Tensor, Tensor]:
    """Return for each face the number of the best guess, int64 (B,), and all residuals, (B, K).

    Args:
        candidates: what the secret may be; residual: a guess → how badly it explains each face, (B,).
    """
    if not candidates:
        raise UserError("there is nothing to guess: the method lists no secret draws")
    residual_BK = torch.stack([residual(candidate) for candidate in candidates], dim=1)
    return residual_BK.argmin(dim=1), residual_BK


def recover_by_guessing(coefficient_BCHW: Tensor, codes: Sequence[tuple[int, ...]], mean_CHW: Tensor, *, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Recover faces whose channels were chosen and ordered by a secret rank out of `codes`.

    Returns:
        RGB in [0, 1], (B, 3, side, side), and the number of the code taken for each face, (B,).
    """
    taken_B, _ = guess(codes, lambda code: recover_from_dct(coefficient_BCHW, code, mean_CHW, steps=_PROBE_STEPS)[1])
    found = torch.empty(len(coefficient_BCHW), 3, *coefficient_BCHW.shape[2:])
    for number in taken_B.unique().tolist():
        mine = taken_B == number
        found[mine] = recover_from_dct(coefficient_BCHW[mine], codes[number], mean_CHW, steps=steps)[0]
    return found, taken_B
