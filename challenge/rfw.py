"""RFW: four lists of 6,000 pairs, one a race; accuracies, their mean and sample standard deviation (recognition.md §8.5).

The folder holds `data/<Race>/<subject>/<subject>_0001.jpg` and `txts/<Race>/<Race>_pairs.txt`, or one `<Race>_test.bin` a race. Note that
the widely copied RFW script cuts the thresholds at 2 of 4 and leaves the network in training mode; this is the LFW protocol instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.types import Embedder
from .bin_file import read_bin
from .embedding import OnFailure
from .lfw import VerificationResult, score_bin, score_pairs
from .pair_lists import read_pairs

RACES = ("African", "Asian", "Caucasian", "Indian")


@dataclass(frozen=True, slots=True, kw_only=True)
class RfwResult:
    """The verification result of each race."""

    by_race: Mapping[str, VerificationResult]

    @property
    def mean(self) -> float:
        """Mean of the four accuracies."""
        return float(np.mean([one.accuracy.mean for one in self.by_race.values()]))

    @property
    def std(self) -> float:
        """Sample standard deviation (ddof 1) of the four accuracies, as the published tables have it."""
        return float(np.std([one.accuracy.mean for one in self.by_race.values()], ddof=1))

    def summary(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON."""
        return {**{race: one.accuracy.mean for race, one in self.by_race.items()}, "mean": self.mean, "std_ddof_1": self.std, "by_race": {race: one.summary() for race, one in self.by_race.items()}}


def score_rfw(embedder: Embedder, root: Path | str, *, flip: bool = True, on_failure: OnFailure = "stop") -> RfwResult:
    """Score the four races of an RFW folder.

    Raises:
        UserError: a race is missing, or its list is not RFW's.
    """
    root = Path(root)
    return RfwResult(by_race={race: _score_race(embedder, root, race, flip, on_failure) for race in RACES})


def _score_race(embedder: Embedder, root: Path, race: str, flip: bool, on_failure: OnFailure) -> VerificationResult:
    packed = [path for name in (f"{race}_test.bin", f"{race}.bin") if (path := root / name).is_file()]
    if packed:
        return score_bin(embedder, read_bin(packed[0]), flip=flip)
    lists = sorted(root.glob(f"**/{race}/{race}_pairs.txt"))
    folders = [path for name in ("data", "images", "test") if (path := root / name / race).is_dir()]
    if not lists or not folders:
        raise UserError(f"{root} holds no {race}_test.bin and no pair {race}_pairs.txt with data/{race}; expected RFW's folder with data/<Race> and txts/<Race>")
    return score_pairs(embedder, folders[0], read_pairs(lists[0], folds=10), flip=flip, on_failure=on_failure)
