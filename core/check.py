"""Shape, dtype and range guards for the doors of the house; not for hot loops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def check(name: str, x: Tensor | np.ndarray, shape: str, *, lo: float | None = None, hi: float | None = None) -> dict[str, int]:
    """Check a tensor against a shape pattern and a value range; return the sizes of the named axes.

    Args:
        name: what the tensor is called in the message.
        x: tensor or array.
        shape: axes by spaces, a number or a letter each ("B 3 112 112"); a letter used twice must have one size.
        lo, hi: inclusive bounds; NaN fails them.

    Raises:
        ValueError: with what came and what was expected.
    """
    axes = shape.split()
    sizes: dict[str, int] = {}
    fits = len(axes) == x.ndim
    for axis, size in zip(axes, x.shape):
        fits &= size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
    if not fits:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected ({shape})")
    if lo is not None or hi is not None:
        values = torch.as_tensor(x)
        least, most = (float(values.min()), float(values.max())) if values.numel() else (lo or 0.0, lo or 0.0)
        if not ((lo is None or least >= lo) and (hi is None or most <= hi)):
            raise ValueError(f"{name} has values in [{least:.4g}, {most:.4g}], expected [{lo}, {hi}]")
    return sizes


def check_unit_rows(name: str, embed_ND: np.ndarray, *, tolerance: float = 1e-3) -> None:
    """Raise ValueError unless every row is finite and has length 1; names the first bad row."""
    check(name, embed_ND, "N D")
    length_N = np.linalg.norm(embed_ND, axis=1)
    bad = ~(np.abs(length_N - 1.0) <= tolerance)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"{name}: {int(bad.sum())} of {len(bad)} rows are not unit length (row {row}: {length_N[row]:.4g}); normalise them or drop NaN rows first")
