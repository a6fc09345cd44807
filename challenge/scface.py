"""SCface: surveillance cameras at three distances against mugshots, rank-1 (recognition.md §8.6).

Files: `001_frontal.jpg` (gallery) and `001_cam1_1.jpg` ... `001_cam5_3.jpg` (probes: camera 1-5, distance 1 = 4.2 m, 2 = 2.6 m, 3 = 1.0 m).
The usual protocol fine-tunes on 50 random subjects and tests the other 80; the splits were never published, so several are averaged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..core.errors import UserError
from ..core.seeds import numpy_rng
from ..core.types import Embedder
from ..identity.trees import open_tree
from .embedding import Aligner, OnFailure, embed_images
from .identification import search

_PROBE = re.compile(r"(\d{3})_cam([1-5])_([123])\.\w+$")
_GALLERY = re.compile(r"(\d{3})_frontal\.\w+$")
DISTANCES = {1: "d1_4.2m", 2: "d2_2.6m", 3: "d3_1.0m"}


def score_scface(
    embedder: Embedder, root: Path | str, *, test_subjects: int = 80, splits: int = 10, seed: int = 0, flip: bool = True, on_failure: OnFailure = "stop", aligner: Aligner | None = None
) -> dict[str, float | int]:
    """Return rank-1 at each distance and their mean, averaged over random test sets, and the spread over the sets.

    Args:
        test_subjects: 80 is the fine-tuned protocol's test half; 130 = everybody (one split), not comparable with it.

    Raises:
        UserError: no mugshots or no probes found by name, or fewer subjects than asked for.
    """
    with open_tree(root) as tree:
        probes = [(name, match) for name in tree.names() if (match := _PROBE.search(PurePosixPath(name).name))]
        mugshots = [(name, match) for name in tree.names() if (match := _GALLERY.search(PurePosixPath(name).name))]
        if not probes or not mugshots:
            raise UserError(f"{root} holds {len(mugshots)} mugshots (001_frontal.jpg) and {len(probes)} probes (001_cam1_1.jpg); expected SCface's file names")
        found = embed_images(embedder, [name for name, _ in (*probes, *mugshots)], tree.read, flip=flip, on_failure=on_failure, aligner=aligner)
    person_Q, distance_Q = np.array([(int(match[1]), int(match[3])) for _, match in probes]).T
    person_G = np.array([int(match[1]) for _, match in mugshots])
    subjects = np.unique(person_G)
    if len(subjects) < test_subjects:
        raise UserError(f"{root} has {len(subjects)} subjects with a mugshot, fewer than the {test_subjects} of the test; pass a smaller number")
    probe_QD, gallery_GD = found.rows([name for name, _ in probes]), found.rows([name for name, _ in mugshots])
    draws = splits if test_subjects < len(subjects) else 1
    rows = []
    for split in range(draws):
        chosen = numpy_rng(seed, "scface", split).permutation(subjects)[:test_subjects]
        in_Q, in_G = np.isin(person_Q, chosen), np.isin(person_G, chosen)
        result = search(probe_QD[in_Q], person_Q[in_Q], gallery_GD[in_G], person_G[in_G])
        rows.append([_rank_1(result.rank_Q[distance_Q[in_Q] == distance]) for distance in DISTANCES])
    return _figures(np.array(rows), test_subjects, draws)


def _rank_1(rank_Q: np.ndarray) -> float:
    return float(np.mean(rank_Q == 1)) if rank_Q.size else float("nan")


def _figures(rate_S3: np.ndarray, subjects: int, splits: int) -> dict[str, float | int]:
    figures: dict[str, float | int] = {"test_subjects": subjects, "splits": splits}
    figures |= {name: float(rate_S3[:, column].mean()) for column, name in enumerate(DISTANCES.values())}
    spread: Sequence[float] = rate_S3.mean(axis=1)
    return figures | {"mean": float(np.mean(spread)), "std_over_splits": float(np.std(spread))}
