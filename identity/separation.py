"""Who comes too close to whom: exact answers about the cosines of up to a million unit rows, in tiles, without an N×N matrix.

A pair reaches a limit when its dot product, summed in float64, is at or above it. Tiles of a matrix product in lower precision decide
all pairs whose distance to the limit exceeds a proven bound of their rounding; only the few others are computed in float64. The answer
is therefore that of the plain double loop, whatever the tile, the number of threads and the precision of the screen.

Axes: N rows, B rows of a block, C columns of a tile, D embedding, P pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..core.check import check_unit_rows
from ..core.progress import bar

TILE_ROWS, TILE_COLUMNS = 1024, 2048
"""A tile of 2 M cosines: 4 MB in bfloat16, 8 MB in float32."""

_PAIRS_AT_ONCE = 16_384


class Rows:
    """Unit rows that can be compared, and room for more.

    Memory: capacity · D · 6 bytes (float32 rows, bfloat16 screen) or · 4 where float32 screens; 10⁶ rows of 512 numbers: 3.1 or 2.1 GB.
    """

    def __init__(self, row_ND: np.ndarray, capacity: int = 0) -> None:
        count, dim = row_ND.shape
        self.row_ND = np.empty((max(count, capacity), dim), np.float32)
        plain = _screen_precision(dim) == torch.float32
        self._screen_ND = torch.from_numpy(self.row_ND) if plain else torch.empty(self.row_ND.shape, dtype=torch.bfloat16)
        self.size = 0
        self.add(row_ND)

    def __len__(self) -> int:
        return self.size

    @property
    def error(self) -> float:
        """Largest possible distance between a cosine of `screen` and the float64 one."""
        # Cauchy-Schwarz: the absolute products of two unit rows sum to 1 at most. bfloat16 keeps 8 bits, so each factor and the stored sum
        # are off by at most 2^-8 of their value; a float32 sum of D products by at most D 2^-24 (doubled for reordered sums and lengths near 1).
        sums = self.row_ND.shape[1] * 2.0**-23 + 2.0**-20
        return sums if self._screen_ND.dtype == torch.float32 else sums + 3.05 * 2.0**-8

    def add(self, row_ND: np.ndarray) -> None:
        """Append rows; the capacity must hold them."""
        end = self.size + len(row_ND)
        self.row_ND[self.size : end] = row_ND
        if self._screen_ND.dtype != torch.float32:
            self._screen_ND[self.size : end] = torch.from_numpy(self.row_ND[self.size : end])
        self.size = end

    def screen(self, mine: np.ndarray | slice, other: Rows, columns: slice) -> Tensor:
        """Return approximate cosines of some rows to a run of another's rows, (B, C)."""
        return _product(self._screen_ND[mine], other._screen_ND[columns])

    def exact(self, mine_P: np.ndarray, other: Rows, column_P: np.ndarray) -> np.ndarray:
        """Return the cosines of pairs, float64 (P,)."""
        parts = [np.empty(0)]
        for start in range(0, len(mine_P), _PAIRS_AT_ONCE):
            span = slice(start, start + _PAIRS_AT_ONCE)
            # Not einsum: the order in which it adds depends on the number of rows.
            parts.append((self.row_ND[mine_P[span]].astype(np.float64) * other.row_ND[column_P[span]]).sum(axis=1))
        return np.concatenate(parts)


def reaching(block: Rows, held: Rows, limit: float) -> np.ndarray:
    """Return which rows of a block reach the limit to any held row, bool (B,); a row that does is not compared further."""
    hit_B = np.zeros(len(block), bool)
    for start in range(0, len(held), TILE_COLUMNS):
        left = np.flatnonzero(~hit_B)
        if not left.size:
            break
        cos_RC = block.screen(left, held, slice(start, min(start + TILE_COLUMNS, len(held))))
        best_R = cos_RC.amax(dim=1).float().numpy()
        hit_B[left[best_R >= limit + block.error]] = True
        doubt = np.flatnonzero((best_R >= limit - block.error) & (best_R < limit + block.error))
        if doubt.size:
            row_P, column_P = _above(cos_RC[doubt], limit - block.error)
            near = block.exact(left[doubt[row_P]], held, column_P + start) >= limit
            hit_B[left[doubt[row_P[near]]]] = True
    return hit_B


def greedy(block: Rows, limit: float, wanted: int) -> tuple[np.ndarray, int]:
    """Take rows in order, each if it stays below the limit to every row taken before.

    Returns:
        The rows taken, at most `wanted`, and how many were refused before the last was taken.
    """
    close_BB = _close_matrix(block, limit)
    keep_B = ~close_BB.any(axis=1)  # close to no earlier row: taken whatever the others do
    for row in np.flatnonzero(~keep_B):
        keep_B[row] = not (close_BB[row] & keep_B).any()
    taken = np.flatnonzero(keep_B)[:wanted]
    examined = int(taken[-1]) + 1 if len(taken) and len(taken) == wanted else len(block)
    return taken, examined - len(taken)


def greedy_rows(row_ND: np.ndarray, limit: float) -> np.ndarray:
    """Return which rows of a whole set a greedy pass keeps: each in order, if it stays below the limit to every row kept before."""
    held, kept = Rows(row_ND[:0], capacity=len(row_ND)), [np.empty(0, np.int64)]
    for start in range(0, len(row_ND), TILE_ROWS):
        block_BD = row_ND[start : start + TILE_ROWS]
        apart = np.flatnonzero(~reaching(Rows(block_BD), held, limit))
        taken, _ = greedy(Rows(block_BD[apart]), limit, len(apart))
        held.add(block_BD[apart[taken]])
        kept.append(start + apart[taken])
    return np.concatenate(kept)


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far apart a set of rows lies.

    Attributes:
        close: pairs whose cosine is at or above the limit.
        highest: the highest cosine of two rows; -1 for fewer than two rows.
        pair: the two rows that have it, the first where several do; (-1, -1) for fewer than two rows.
    """

    close: int
    highest: float
    pair: tuple[int, int]


def measure_separation(row_ND: np.ndarray, limit: float) -> Separation:
    """Compare all N(N-1)/2 pairs of unit rows (any floating type), exactly.

    The arithmetic is N²/2 · D multiply-adds: 2.6e12 for 100,000 rows of 512 numbers, 2.6e14 for a million (benchmarks/anchors.py measures
    what this machine needs). Memory: see `Rows`, and one tile.
    """
    check_unit_rows("row_ND", row_ND)
    rows, close, best, pair = Rows(row_ND), 0, -1.0, (-1, -1)
    with bar("separation", len(rows) * (len(rows) - 1) // 2) as step:
        for row, column, cos_RC in _upper_tiles(rows):
            top = float(cos_RC.amax())
            if top >= limit - rows.error:
                close += _count_close(rows, row, column, cos_RC, limit)
            if top + rows.error > best:
                best, pair = max((best, pair), _tile_best(rows, row, column, cos_RC, max(top - 2 * rows.error, best - rows.error)), key=_order)
            step(cos_RC.numel() if column > row else _above_diagonal(*cos_RC.shape))
    return Separation(close=close, highest=best, pair=pair)


def _count_close(rows: Rows, row: int, column: int, cos_RC: Tensor, limit: float) -> int:
    row_P, column_P = _above(cos_RC, limit - rows.error)
    doubt_P = (cos_RC[row_P, column_P] < limit + rows.error).numpy()
    near = rows.exact(row_P[doubt_P] + row, rows, column_P[doubt_P] + column) >= limit
    return len(row_P) - int((~near).sum())


def _above_diagonal(height: int, width: int) -> int:
    """Entries above the diagonal of a tile that begins on it and is at least as wide as high."""
    return height * width - height * (height + 1) // 2


def _tile_best(rows: Rows, row: int, column: int, cos_RC: Tensor, low: float) -> tuple[float, tuple[int, int]]:
    """Return the highest exact cosine among the pairs of a tile that the screen puts at `low` or above, and its first pair."""
    row_P, column_P = _above(cos_RC, low)
    cos_P = rows.exact(row_P + row, rows, column_P + column)
    if not cos_P.size:  # a tile of the diagonal with one row
        return -1.0, (-1, -1)
    first = int(cos_P.argmax())
    return float(cos_P[first]), (int(row_P[first]) + row, int(column_P[first]) + column)


def _order(found: tuple[float, tuple[int, int]]) -> tuple[float, int, int]:
    """Higher cosines first, of equal ones the earlier pair: the answer must not depend on the tiles."""
    cos, (row, column) = found
    return cos, -row, -column


def _upper_tiles(rows: Rows) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (first row, first column, cosines) of the tiles above the diagonal; what lies on or below it is -inf."""
    for row in range(0, len(rows), TILE_ROWS):
        mine = slice(row, min(row + TILE_ROWS, len(rows)))
        for column in range(row, len(rows), TILE_COLUMNS):
            cos_RC = rows.screen(mine, rows, slice(column, min(column + TILE_COLUMNS, len(rows))))
            if column == row:
                cos_RC.masked_fill_(torch.ones(cos_RC.shape, dtype=torch.bool).tril_(), -torch.inf)
            yield row, column, cos_RC


def _close_matrix(block: Rows, limit: float) -> np.ndarray:
    """Return which earlier rows each row of a block reaches the limit to, bool (B, B), false on and above the diagonal."""
    cos_BB = block.screen(slice(0, len(block)), block, slice(0, len(block)))
    cos_BB = cos_BB.float().masked_fill_(torch.ones(cos_BB.shape, dtype=torch.bool).triu_(), -torch.inf)
    close_BB = (cos_BB >= limit + block.error).numpy()
    row_P, column_P = np.nonzero((cos_BB >= limit - block.error).numpy() & ~close_BB)
    close_BB[row_P, column_P] = block.exact(row_P, block, column_P) >= limit
    return close_BB


def _above(cos_RC: Tensor, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the entries at or above `low`."""
    row_P, column_P = (cos_RC >= low).nonzero(as_tuple=True)
    return row_P.numpy(), column_P.numpy()


def _product(left_BD: Tensor, right_CD: Tensor) -> Tensor:
    if left_BD.dtype == torch.float32:  # numpy's BLAS is a fifth faster than torch's on AMD
        return torch.from_numpy(left_BD.numpy() @ right_CD.numpy().T)
    return left_BD @ right_CD.T


@cache
def _screen_precision(dim: int) -> torch.dtype:
    """Return the type in which a small product is faster here: bfloat16 where the processor multiplies it, else float32. Results do not depend on it."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        tile_BD = torch.full((256, dim), 0.01, dtype=dtype)
        _product(tile_BD, tile_BD)
        begin = time.perf_counter()
        for _ in range(4):
            _product(tile_BD, tile_BD)
        seconds[dtype] = time.perf_counter() - begin
    return min(seconds, key=lambda dtype: seconds[dtype])
