"""Lists of pairs: ours, LFW's official pairs.txt, and RFW's headless variant of it.

    pathA pathB same fold                       ours, a line a pair
    10 300 | name i j | nameA i nameB j         LFW view 2: a fold's mated pairs, then its non-mated ones
Axes: P pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.progress import log
from .lists import read_lines, slashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of images in protocol order.

    Attributes:
        paths: the two files of each pair, relative, with forward slashes.
        same_P: True for two images of one person.
        fold_P: the fold of each pair, as the list numbers it.
    """

    paths: tuple[tuple[str, str], ...]
    same_P: np.ndarray
    fold_P: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def images(self) -> list[str]:
        """Return every image once, sorted."""
        return sorted({image for pair in self.paths for image in pair})


def read_pairs(path: Path | str, *, folds: int | None = None) -> Pairs:
    """Read a pair list; the format is told by the first line. CRLF, back-slashes and a byte-order mark are understood.

    Args:
        folds: number of folds of an official list without a header line (RFW's have 10).

    Raises:
        UserError: unreadable, empty, a line that fits no format, or a pair of an image with itself (names the line).
    """
    lines = read_lines(path, "pair list")
    header = lines[0].split() if lines else []
    if folds is not None:
        body = [line for line in lines if line.strip()]
        if not body or len(body) % (2 * folds):
            raise UserError(f"{path} holds {len(body)} pairs, which {folds} folds of equally many mated and non-mated pairs cannot share; the file is cut, or is no such list")
        rows = list(_official_rows(path, ["", *lines], (folds, len(body) // (2 * folds)), first=0))
    elif len(header) in (1, 2) and all(part.isdigit() for part in header):
        rows = list(_official_rows(path, lines, (int(header[0]), int(header[1])) if len(header) == 2 else (1, int(header[0]))))
    else:
        rows = list(_plain_rows(path, lines))
    if not rows:
        raise UserError(f"{path} holds no pairs; expected lines 'pathA pathB same fold', or the official LFW pairs.txt")
    first, second, same, fold = zip(*rows)
    repeated = [pair for pair, count in Counter(zip(first, second)).items() if count > 1]
    if repeated:
        log.warning("%s: %d pairs stand in the list more than once, e.g. %s, %s; all are counted", path, len(repeated), *repeated[0])
    return Pairs(paths=tuple(zip(first, second)), same_P=np.array(same, bool), fold_P=np.array(fold, np.int64))


def _plain_rows(path: Path | str, lines: Sequence[str]) -> Iterator[tuple[str, str, bool, int]]:
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 4 or fields[2] not in ("0", "1") or not fields[3].isdigit():
            raise UserError(f"{path}, line {number}: '{line.strip()[:80]}'; expected 'pathA pathB same fold' with same 0 or 1 and a fold number")
        first, second = slashes(fields[0]), slashes(fields[1])
        if first == second:
            raise UserError(f"{path}, line {number}: '{first}' is paired with itself")
        yield first, second, fields[2] == "1", int(fields[3])


def _official_rows(path: Path | str, lines: Sequence[str], shape: tuple[int, int], first: int = 1) -> Iterator[tuple[str, str, bool, int]]:
    """Yield the pairs below the header; `shape` is (folds, mated pairs in each), `first` the number of lines[0] in the file."""
    folds, each = shape
    body = [(number, line.split()) for number, line in enumerate(lines[1:], first + 1) if line.strip()]
    if len(body) != folds * each * 2:
        raise UserError(f"{path} announces {folds} folds of 2 x {each} pairs but holds {len(body)} lines; expected {folds * each * 2}: the file is cut, or not an LFW list")
    for index, (number, fields) in enumerate(body):
        same = index % (2 * each) < each
        if len(fields) != (3 if same else 4) or not all(part.isdigit() for part in (fields[1:] if same else fields[1::2])):
            raise UserError(f"{path}, line {number}: '{' '.join(fields)[:80]}'; expected {'name i j' if same else 'nameA i nameB j'}")
        left, right = (fields[0], fields[1]), ((fields[0], fields[2]) if same else (fields[2], fields[3]))
        yield _lfw_path(*left), _lfw_path(*right), same, index // (2 * each)


def _lfw_path(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"
