"""DataCV 2025: the recipe is frozen, only the dataset counts (challenge_ecosystem.md §1.9).

Test images come as `validation.xz`, an LZMA-packed NumPy array (2P, 3, 112, 112) uint8 RGB whose rows 2i and 2i + 1 are pair i. The answer is
one squared Euclidean distance a line, LOWER = same person: the opposite of FRCSyn. Axes: N images, P pairs, D embedding.
"""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.errors import UserError, near_names
from ..core.files import write_bytes
from ..core.images import to_float
from ..core.progress import bar
from ..core.types import Embedder
from .frcsyn_submission import zip_bytes

_SPLITS = ("validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One of the three boards: how many identities and images a set may have."""

    name: str
    identities: int
    images: int


BOARDS = {board.name: board for board in (Board(name="10K", identities=10_000, images=500_000), Board(name="20K", identities=20_000, images=1_000_000), Board(name="100K", identities=100_000, images=5_000_000))}


def board(name: str) -> Board:
    """Return a board by its name ("10K", "20K", "100K")."""
    if name not in BOARDS:
        raise UserError(f"unknown DataCV board '{name}'; {near_names(name, BOARDS)}")
    return BOARDS[name]


def check_dataset(row: Board, *, identities: int, images: int, real: bool = False) -> list[str]:
    """Return what breaks a board's rules; empty = allowed."""
    problems = [f"{identities} identities, board {row.name} allows {row.identities}"] if identities > row.identities else []
    problems += [f"{images} images, board {row.name} allows {row.images}"] if images > row.images else []
    return problems + (["real identities; DataCV allows none"] if real else [])


def read_images(path: Path | str) -> np.ndarray:
    """Read `validation.xz` or `test.xz`: uint8 (2P, 3, 112, 112). No pickled objects are accepted.

    Raises:
        UserError: no LZMA file, no NumPy array in it, or another shape or type.
    """
    try:
        with lzma.open(path) as file:
            array = np.load(io.BytesIO(file.read()), allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; expected DataCV's validation.xz") from error
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise UserError(f"{path} cannot be read as an LZMA-packed NumPy array ({error}); copy it again") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (3, 112, 112) or len(array) % 2:
        raise UserError(f"{path} holds {array.dtype} {array.shape}, expected uint8 (2P, 3, 112, 112)")
    return array


def squared_distances(embedder: Embedder, image_NCHW: np.ndarray, *, batch: int = 64) -> np.ndarray:
    """Return the squared Euclidean distance of each pair, float64 (P,): image + mirror image summed, unit length, 0 = the same.

    Raises:
        UserError: a feature that is not finite or zero (names the image).
    """
    feature = getattr(embedder, "raw", None) or embedder
    rows = []
    with bar(f"embedding for {embedder.name}", len(image_NCHW)) as step, torch.no_grad():
        for start in range(0, len(image_NCHW), batch):
            image_BCHW = to_float(np.ascontiguousarray(image_NCHW[start : start + batch].transpose(0, 2, 3, 1)))
            rows.append((feature(image_BCHW).double() + feature(image_BCHW.flip(3)).double()).cpu().numpy())
            step(len(image_BCHW))
    embed_ND = np.concatenate(rows)
    length_N = np.linalg.norm(embed_ND, axis=1)
    bad_N = ~((length_N > 1e-12) & (length_N < np.inf))
    if bad_N.any():
        raise UserError(f"the feature of image {int(np.argmax(bad_N))} is NaN, infinite or zero; the recogniser is broken")
    embed_ND /= length_N[:, None]
    return np.square(embed_ND[::2] - embed_ND[1::2]).sum(axis=1)


def write_distances(out: Path | str, distance_P: np.ndarray, *, row: Board, split: str = "validation") -> Path:
    """Write `<split>_<board>_result.txt` in a zip (a name ending in .zip) or a folder; return the path written.

    Raises:
        UserError: an unknown split, or distances that are not in [0, 4] (a similarity given by mistake is caught where it is negative).
    """
    if split not in _SPLITS:
        raise UserError(f"unknown split '{split}'; {near_names(split, _SPLITS)}")
    distance_P = np.asarray(distance_P, np.float64)
    outside_P = ~((distance_P >= 0) & (distance_P <= 4 + 1e-6))
    if outside_P.any():
        line = int(np.argmax(outside_P))
        raise UserError(f"line {line + 1}: {distance_P[line]}; expected a squared distance of unit embeddings, 0 to 4, lower = same person")
    name = f"{split}_{row.name}_result.txt"
    buffer = io.BytesIO()
    np.savetxt(buffer, distance_P)
    out = Path(out)
    path = out if out.suffix == ".zip" else out / name
    write_bytes(path, zip_bytes({name: buffer.getvalue()}) if out.suffix == ".zip" else buffer.getvalue())
    return path


def read_distances(path: Path | str) -> np.ndarray:
    """Read a result file back, float64 (P,); UserError names the line that is no distance."""
    values = []
    for number, line in enumerate(Path(path).read_text(encoding="ascii", errors="replace").splitlines(), 1):
        try:
            values.append(float(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: '{line[:60]}'; expected one squared distance") from error
        if not 0 <= values[-1] <= 4 + 1e-6:
            raise UserError(f"{path}, line {number}: {line.strip()}; expected a squared distance from 0 to 4, lower = same person (a similarity is 1 - d / 2)")
    return np.array(values)
