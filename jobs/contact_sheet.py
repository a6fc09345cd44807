"""The contact sheet: a row an identity, a column an image, as one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.files import write_bytes
from ..core.images import encode_png
from ..core.seeds import numpy_rng
from ..identity.dataset import FaceDataset

SHEET = "contact_sheet.png"
SIDE_PX, GAP_PX, PAPER = 112, 4, 246


def choose(identity_N: np.ndarray, *, identities: int, per_identity: int, seed: int) -> list[list[int]]:
    """Return the row numbers of some identities (drawn by `seed`, shown in order), at most `per_identity` each."""
    known = np.unique(identity_N)
    drawn = np.sort(numpy_rng(seed, "contact_sheet").permutation(known)[:identities])
    return [np.flatnonzero(identity_N == identity)[:per_identity].tolist() for identity in drawn]


def sheet(image_NHWC: np.ndarray, grid: list[list[int]]) -> np.ndarray:
    """Lay images out on light paper; returns uint8 (H, W, 3).

    Args:
        image_NHWC: uint8 (N, 112, 112, 3).
        grid: for each row of the sheet, which images stand in it.
    """
    columns, step = max(map(len, grid)), SIDE_PX + GAP_PX
    paper = np.full((len(grid) * step + GAP_PX, columns * step + GAP_PX, 3), PAPER, dtype=np.uint8)
    for row, members in enumerate(grid):
        for column, member in enumerate(members):
            top, left = row * step + GAP_PX, column * step + GAP_PX
            paper[top : top + SIDE_PX, left : left + SIDE_PX] = image_NHWC[member]
    return paper


def write_sheet(folder: Path, *, seed: int, identities: int = 24, per_identity: int = 8) -> Path:
    """Write `contact_sheet.png` of a dataset folder and return its path."""
    dataset = FaceDataset.open(folder)
    grid = choose(dataset.identity_N, identities=identities, per_identity=per_identity, seed=seed)
    wanted = [row for members in grid for row in members]
    place = {row: number for number, row in enumerate(wanted)}
    numbered = [[place[row] for row in members] for members in grid]
    write_bytes(folder / SHEET, encode_png(sheet(dataset.images(wanted), numbered)))
    return folder / SHEET
