"""Score an embedder on LFW-type pairs: accuracy, TAR@FAR, AUC, FNMR@FMR = 1 %.

Pair lists: ours (`pathA pathB same fold` a line) and the official pairs.txt (`name i j` | `nameA i nameB j`, ten folds).
Axes: P pairs, B images, F folds, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.images import decode, to_float
from ..core.progress import bar
from ..core.types import Embedder
from ..identity.trees import Tree, open_tree
from .verification import KFoldResult, OperatingPoint, auc, eer, fnmr_at_fmr, kfold_accuracy, operating_point

SIDE = 112
FARS = (1e-2, 1e-3)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """What one embedder reaches on one list of pairs; rates are shares, not per cent.

    Attributes:
        embedder: its name.
        accuracy: k-fold accuracy by the field's 400 thresholds (comparable with published figures).
        accuracy_exact: k-fold accuracy by the exact optimum of the other folds.
        points: operating points by the conservative rule, in the order of FARS; `resolved` is False below 1 / non-mated pairs.
        auc, eer, fnmr_at_fmr_1pct: over all pairs.
        score_P: cosine of each pair.
    """

    embedder: str
    accuracy: KFoldResult
    accuracy_exact: KFoldResult
    points: tuple[OperatingPoint, ...]
    auc: float
    eer: float
    fnmr_at_fmr_1pct: float
    score_P: np.ndarray

    def summary(self) -> dict[str, float | list[float] | str | int]:
        """Return the figures by name, ready for JSON."""
        return {
            "embedder": self.embedder,
            "pairs": int(self.score_P.size),
            "accuracy": self.accuracy.mean,
            "accuracy_std": self.accuracy.std,
            "accuracy_folds": self.accuracy.accuracy_F.tolist(),
            "accuracy_exact": self.accuracy_exact.mean,
            **{f"tar_at_far_{far:g}": point.tar for far, point in zip(FARS, self.points)},
            "auc": self.auc,
            "eer": self.eer,
            "fnmr_at_fmr_1pct": self.fnmr_at_fmr_1pct,
        }


def read_pairs(path: Path | str) -> Pairs:
    """Read a pair list in our format or the official LFW one (told apart by the first line).

    Raises:
        UserError: unreadable, empty, or a line that fits neither format (names the line).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the pair list {path}: {getattr(error, 'strerror', None) or error}") from error
    header = lines[0].split() if lines else []
    official = len(header) in (1, 2) and all(part.isdigit() for part in header)
    rows = list(_official_rows(path, lines, header) if official else _plain_rows(path, lines))
    if not rows:
        raise UserError(f"{path} holds no pairs; expected lines 'pathA pathB same fold', or the official LFW pairs.txt")
    first, second, same, fold = zip(*rows)
    return Pairs(paths=tuple(zip(first, second)), same_P=np.array(same, bool), fold_P=np.array(fold, np.int64))


def score_pairs(embedder: Embedder, root: Path | str, pairs: Pairs | Path | str, *, flip: bool = True, batch: int = 64) -> VerificationResult:
    """Embed the images of the pairs, score each pair by cosine, and measure.

    Args:
        root: folder or zip with the images, aligned 112x112.
        flip: add the embedding of the mirrored image before normalising. The field adds raw features; an `Embedder` returns unit rows,
            so the two weigh the same here.

    Raises:
        UserError: missing, damaged or unaligned images, or NaN embeddings (names the image).
    """
    pairs = pairs if isinstance(pairs, Pairs) else read_pairs(pairs)
    files = sorted({file for pair in pairs.paths for file in pair})
    with open_tree(root) as tree:
        missing = sorted(set(files) - set(tree.names()))
        if missing:
            raise UserError(f"{root} lacks {len(missing)} of {len(files)} images of the pair list, e.g. {missing[0]}; expected <person>/<image> below the given root")
        embed_BD = _embed_files(embedder, tree, files, flip, batch)
    row = {file: index for index, file in enumerate(files)}
    left, right = (embed_BD[[row[pair[side]] for pair in pairs.paths]] for side in (0, 1))
    return measure_pairs(np.einsum("pd,pd->p", left, right), pairs, embedder.name)


def measure_pairs(score_P: np.ndarray, pairs: Pairs, embedder: str) -> VerificationResult:
    """Return every figure of the result from the cosines of the pairs."""
    score_P, same_P = np.clip(score_P.astype(np.float64), -1.0, 1.0), pairs.same_P
    names = [f"{first}, {second}" for first, second in pairs.paths]
    return VerificationResult(
        embedder=embedder,
        accuracy=kfold_accuracy(score_P, same_P, pairs.fold_P, names=names),
        accuracy_exact=kfold_accuracy(score_P, same_P, pairs.fold_P, form="exact"),
        points=tuple(operating_point(score_P, same_P, far) for far in FARS),
        auc=auc(score_P, same_P),
        eer=eer(score_P, same_P),
        fnmr_at_fmr_1pct=fnmr_at_fmr(score_P, same_P, 0.01),
        score_P=score_P,
    )


def _plain_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str, bool, int]]:
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 4 or fields[2] not in ("0", "1") or not fields[3].isdigit():
            raise UserError(f"{path}, line {number}: '{line.strip()[:80]}'; expected 'pathA pathB same fold' with same 0 or 1 and a fold number")
        yield fields[0].replace("\\", "/"), fields[1].replace("\\", "/"), fields[2] == "1", int(fields[3])


def _official_rows(path: Path, lines: Sequence[str], header: Sequence[str]) -> Iterator[tuple[str, str, bool, int]]:
    folds, each = (int(header[0]), int(header[1])) if len(header) == 2 else (1, int(header[0]))
    body = [(number, line.split()) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if len(body) != folds * each * 2:
        raise UserError(f"{path} announces {folds} folds of 2 x {each} pairs but holds {len(body)} lines; expected {folds * each * 2}: the file is cut, or not an LFW list")
    for index, (number, fields) in enumerate(body):
        same = index % (2 * each) < each
        if len(fields) != (3 if same else 4) or not all(part.isdigit() for part in (fields[1:] if same else fields[1::2])):
            raise UserError(f"{path}, line {number}: '{' '.join(fields)[:80]}'; expected {'name i j' if same else 'nameA i nameB j'}")
        first, second = (fields[0], fields[1]), ((fields[0], fields[2]) if same else (fields[2], fields[3]))
        yield _lfw_path(*first), _lfw_path(*second), same, index // (2 * each)


def _lfw_path(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


def _embed_files(embedder: Embedder, tree: Tree, files: Sequence[str], flip: bool, batch: int) -> np.ndarray:
    parts = []
    with bar(f"embedding for {embedder.name}", len(files)) as step, torch.no_grad():
        for start in range(0, len(files), batch):
            names = files[start : start + batch]
            image_BCHW = to_float(np.stack([_aligned(tree, name) for name in names]))
            embed_BD = embedder(image_BCHW)
            if flip:
                embed_BD = embed_BD + embedder(image_BCHW.flip(3))
            parts.append(_unit_rows(embed_BD, names))
            step(len(names))
    return np.concatenate(parts)


def _unit_rows(embed_BD: Tensor, names: Sequence[str]) -> np.ndarray:
    embed_BD = embed_BD.double().cpu()
    length_B = embed_BD.norm(dim=1)
    bad = [name for name, length in zip(names, length_B.tolist()) if not 1e-12 < length < float("inf")]
    if bad:
        raise UserError(f"the embedding of {bad[0]} is NaN, infinite or zero; the recogniser is broken or the file holds no face")
    return (embed_BD / length_B[:, None]).numpy()


def _aligned(tree: Tree, name: str) -> np.ndarray:
    try:
        image_HWC = decode(tree.read(name))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    if image_HWC.shape != (SIDE, SIDE, 3):
        raise UserError(f"{name} is {image_HWC.shape[1]}x{image_HWC.shape[0]}, expected an aligned {SIDE}x{SIDE} face; align the folder with: facefoundry ingest")
    return image_HWC
