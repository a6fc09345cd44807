"""Weights stored as whole numbers: int8 rows with one scale each, a quarter of float32's size; computed with in floating point.

Symmetric quantisation of each output channel (row) to [-127, 127]: the scale is the row's largest magnitude over 127, so the error of a weight is
at most half a scale. Only large matrices are stored this way; biases, norms and small tables stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = "::scale"
"""Ending of the name under which the row scales of a quantised tensor are stored."""

_SMALLEST = 4096


def quantise_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with every large floating matrix as int8 (its shape) and its row scales, float32 (rows,), beside it."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.numel() < _SMALLEST:
            stored[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        scale_R = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        stored[name] = (rows / scale_R[:, None]).round().clamp(-127, 127).to(torch.int8).view(tensor.shape)
        stored[name + SCALE] = scale_R
    return stored


def widen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return every floating or quantised tensor as float32; the scales themselves are used up.

    Raises:
        ValueError: a scale without its matrix, or one that does not fit its rows.
    """
    for name, scale in tensors.items():
        if name.endswith(SCALE):
            matrix = tensors.get(name.removesuffix(SCALE))
            if matrix is None or matrix.dtype != torch.int8 or scale.shape != matrix.shape[:1]:
                raise ValueError(f"'{name}' of shape {tuple(scale.shape)} has no int8 matrix with as many rows")
    return {name: _wide(tensor, tensors.get(name + SCALE)) for name, tensor in tensors.items() if not name.endswith(SCALE)}


def _wide(tensor: Tensor, scale_R: Tensor | None) -> Tensor:
    if scale_R is not None:
        return tensor.float() * scale_R.float().view(-1, *[1] * (tensor.ndim - 1))
    return tensor.float() if tensor.is_floating_point() else tensor
