"""Places of a prompt with pictures in Qwen2-VL's rotary embedding of three axes (time, row, column). Axes: L tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def image_positions(before: int, grids: Sequence[tuple[int, int]], after: int) -> Tensor:
    """Return the places of `before` text tokens, of one picture after the other, and of `after` text tokens, int64 (3, L).

    Text runs along all three axes at once. A picture starts where the text stands: its tokens share the time and differ by row and column; what follows
    it starts after its longer side (Qwen2-VL, arXiv 2409.12191, §2.1).

    Args:
        grids: rows and columns of each picture's tokens.
    """
    parts, place = [torch.arange(before).expand(3, -1)], before
    for rows, columns in grids:
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        parts.append(place + torch.stack((torch.zeros_like(row), row, column)).flatten(1))
        place += max(rows, columns)
    return torch.cat((*parts, place + torch.arange(after).expand(3, -1)), 1)
