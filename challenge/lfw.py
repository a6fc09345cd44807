"""Score an embedder on LFW-type pairs: accuracy, VAL@FAR, TAR@FAR, AUC, FNMR@FMR = 1 % (recognition.md §8.1).

Pair lists: `pair_lists`; the field's .bin sets: `bin_file`. Axes: P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.types import Embedder
from ..identity.trees import open_tree
from .bin_file import VerificationSet
from .embedding import Aligner, Embedded, Mark, OnFailure, embed_images
from .pair_lists import Pairs, read_pairs
from .val_at_far import ValAtFar, val_at_far
from .verification import KFoldResult, OperatingPoint, auc, eer, fnmr_at_fmr, kfold_accuracy, operating_point

__all__ = ["Pairs", "VerificationResult", "measure_pairs", "read_pairs", "score_bin", "score_pairs"]

FARS = (1e-2, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationResult:
    """What one embedder reaches on one list of pairs; rates are shares, not per cent.

    Attributes:
        embedder: its name.
        accuracy: k-fold accuracy by the field's 400 thresholds (comparable with published figures).
        accuracy_exact: k-fold accuracy by the exact optimum of the other folds.
        val: VAL@FAR=1e-3 by the field's rule; None where a fold lacks a kind of pair.
        points: operating points by the conservative rule, in the order of FARS; `resolved` is False below 1 / non-mated pairs.
        auc, eer, fnmr_at_fmr_1pct: over all pairs.
        score_P: cosine of each pair.
        pairs: what was scored.
        mean_norm: mean length of the raw features of the original images ("XNorm"); None where the embedder gives none.
        marks: images that failed, by name.
    """

    embedder: str
    accuracy: KFoldResult
    accuracy_exact: KFoldResult
    val: ValAtFar | None
    points: tuple[OperatingPoint, ...]
    auc: float
    eer: float
    fnmr_at_fmr_1pct: float
    score_P: np.ndarray
    pairs: Pairs
    mean_norm: float | None = None
    marks: Mapping[str, Mark] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON."""
        return {
            "embedder": self.embedder,
            "pairs": int(self.score_P.size),
            "accuracy": self.accuracy.mean,
            "accuracy_std": self.accuracy.std,
            "accuracy_folds": self.accuracy.accuracy_F.tolist(),
            "accuracy_exact": self.accuracy_exact.mean,
            **({f"val_at_far_{self.val.far:g}": self.val.mean, f"val_at_far_{self.val.far:g}_std": self.val.std, f"val_at_far_{self.val.far:g}_reached": self.val.mean_far} if self.val else {}),
            **{f"tar_at_far_{far:g}": point.tar for far, point in zip(FARS, self.points)},
            "auc": self.auc,
            "eer": self.eer,
            "fnmr_at_fmr_1pct": self.fnmr_at_fmr_1pct,
            **({"mean_norm": self.mean_norm} if self.mean_norm is not None else {}),
            **({"marked_images": len(self.marks)} if self.marks else {}),
        }


def score_pairs(
    embedder: Embedder, root: Path | str, pairs: Pairs | Path | str, *, flip: bool = True, batch: int = 64, on_failure: OnFailure = "stop", aligner: Aligner | None = None
) -> VerificationResult:
    """Embed the images of the pairs, score each pair by cosine, and measure.

    Args:
        root: folder or zip with the images, aligned 112x112, or any photos where an aligner is given.
        flip, batch, on_failure, aligner: as in `embed_images`.

    Raises:
        UserError: with "stop": missing, damaged or unaligned images, or NaN embeddings (names the image).
    """
    pairs = pairs if isinstance(pairs, Pairs) else read_pairs(pairs)
    found = embed_pair_images(embedder, root, pairs, flip=flip, batch=batch, on_failure=on_failure, aligner=aligner)
    return measure_pairs(found.pair_scores(pairs.paths), pairs, embedder.name, found)


def embed_pair_images(embedder: Embedder, root: Path | str, pairs: Pairs, *, flip: bool, batch: int = 64, on_failure: OnFailure = "stop", aligner: Aligner | None = None) -> Embedded:
    """Embed every image a list of pairs names; arguments as in `score_pairs`."""
    files = pairs.images()
    with open_tree(root) as tree:
        missing = sorted(set(files) - set(tree.names())) if on_failure == "stop" else []
        if missing:
            raise UserError(f"{root} lacks {len(missing)} of {len(files)} images of the pair list, e.g. {missing[0]}; expected <person>/<image> below the given root")
        return embed_images(embedder, files, tree.read, flip=flip, batch=batch, on_failure=on_failure, aligner=aligner)


def score_bin(embedder: Embedder, faces: VerificationSet, *, flip: bool = True, batch: int = 64, folds: int = 10) -> VerificationResult:
    """Score a .bin set: images 2p and 2p + 1 form pair p, ten contiguous folds."""
    found = embed_images(embedder, faces.names, faces.read, flip=flip, batch=batch)
    return measure_pairs(found.pair_scores(faces.pairs(folds).paths), faces.pairs(folds), embedder.name, found)


def measure_pairs(score_P: np.ndarray, pairs: Pairs, embedder: str, found: Embedded | None = None) -> VerificationResult:
    """Return every figure of the result from the cosines of the pairs."""
    score_P, same_P = np.clip(np.asarray(score_P, np.float64), -1.0, 1.0), pairs.same_P
    names = [f"{first}, {second}" for first, second in pairs.paths]
    norm_N = found.norm_N if found else None
    return VerificationResult(
        embedder=embedder,
        accuracy=kfold_accuracy(score_P, same_P, pairs.fold_P, names=names),
        accuracy_exact=kfold_accuracy(score_P, same_P, pairs.fold_P, form="exact"),
        val=_val(score_P, pairs),
        points=tuple(operating_point(score_P, same_P, far) for far in FARS),
        auc=auc(score_P, same_P),
        eer=eer(score_P, same_P),
        fnmr_at_fmr_1pct=fnmr_at_fmr(score_P, same_P, 0.01),
        score_P=score_P,
        pairs=pairs,
        mean_norm=float(np.nanmean(norm_N)) if norm_N is not None else None,
        marks=found.marks if found else {},
    )


def _val(score_P: np.ndarray, pairs: Pairs) -> ValAtFar | None:
    kinds = {(fold, same) for fold, same in zip(pairs.fold_P.tolist(), pairs.same_P.tolist())}
    return val_at_far(score_P, pairs.same_P, pairs.fold_P) if len(kinds) == 2 * len({fold for fold, _ in kinds}) else None
