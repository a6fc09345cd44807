"""FRCSyn challenge: comparison lists with derived labels, and the decision threshold.

Formats: challenge_ecosystem.md §1.3-§1.4. Sub-tasks and their rules: frcsyn_rules; writing and checking submissions: frcsyn_submission;
figures: frcsyn_scores.
Axes: P pairs, N images, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..core.errors import UserError, near_names
from ..core.seeds import numpy_rng
from ..identity.trees import open_tree
from .frcsyn_labels import DATABASES, Database
from .lists import slashes
from .verification import best_threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The pairs of one database in the order of the list.

    Attributes:
        database: its facts and rules.
        paths: the two files of each pair, forward slashes.
        same_P: derived labels.
        subject_P: person of the first image of each pair.
        race_P: race of the first image (BUPT's pairs stay within one race), or None.
    """

    database: Database
    paths: tuple[tuple[str, str], ...]
    same_P: np.ndarray
    subject_P: np.ndarray
    race_P: np.ndarray | None

    def __len__(self) -> int:
        return len(self.paths)

    def facts(self) -> dict[str, int]:
        """Count pairs, mated and non-mated pairs, identities, unique images and repeated lines."""
        images = {image for pair in self.paths for image in pair}
        return {
            "pairs": len(self),
            "mated": int(self.same_P.sum()),
            "non_mated": int((~self.same_P).sum()),
            "identities": len({self.database.subject(image) for image in images}),
            "images": len(images),
            "repeated": len(self) - len(set(self.paths)),
        }


def parse_comparison(text: str, database: Database, source: str = "comparison list") -> Comparison:
    """Parse `pathA;pathB` lines (CRLF or LF, back-slashes become slashes) and derive labels and races.

    Raises:
        UserError: a line without exactly one semicolon, or a path outside the database's grammar (names the line).
    """
    paths = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = slashes(line).split(";")
        if len(fields) != 2 or not all(fields):
            raise UserError(f"{source}, line {number}: '{line[:80]}'; expected pathA;pathB")
        paths.append((fields[0], fields[1]))
    if not paths:
        raise UserError(f"{source} is empty; expected one pathA;pathB a line")
    try:
        people = [(database.subject(first), database.subject(second)) for first, second in paths]
        race = [database.race(first) for first, _ in paths] if database.race else None
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return Comparison(
        database=database,
        paths=tuple(paths),
        same_P=np.array([first == second for first, second in people]),
        subject_P=np.array([first for first, _ in people]),
        race_P=np.array(race) if race is not None else None,
    )


def load_comparisons(path: Path | str, *, official: bool = True) -> dict[str, Comparison]:
    """Read `*/<db>_comparison.txt` from the organisers' zip or its unpacked folder; returns them by database.

    Args:
        official: check mated and non-mated counts against the first edition's table. False accepts other lists of the same grammar.

    Raises:
        UserError: unsafe zip, no list, unknown database, two different lists for one database, or wrong counts.
    """
    texts: dict[str, tuple[str, str]] = {}
    with open_tree(path) as tree:
        for name in tree.names():
            stem = PurePosixPath(name).name
            if not stem.endswith("_comparison.txt") or stem.startswith("."):
                continue
            key = stem.removesuffix("_comparison.txt")
            if key not in DATABASES:
                raise UserError(f"{path}: '{name}' is no list of a known database; {near_names(key, DATABASES)}")
            text = _ascii(tree.read(name), f"{path}: {name}")
            if texts.setdefault(key, (text, name))[0] != text:
                raise UserError(f"{path}: '{texts[key][1]}' and '{name}' differ; expected one list for each database")
    if not texts:
        raise UserError(f"{path} holds no comparison list; expected files such as sub-tasks_1.1_1.2/bupt_comparison.txt")
    found = {key: parse_comparison(text, DATABASES[key], f"{path}: {name}") for key, (text, name) in sorted(texts.items())}
    for key, comparison in found.items():
        facts, wanted = comparison.facts(), comparison.database
        if official and wanted.pairs and (facts["mated"], facts["non_mated"]) != (wanted.mated, wanted.non_mated):
            raise UserError(f"{path}: {key} has {facts['mated']} mated and {facts['non_mated']} non-mated pairs, expected {wanted.mated} and {wanted.non_mated}; pass official=False for other lists")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedThreshold:
    """A decision threshold and how it does on the pairs it was fitted to.

    Attributes:
        threshold: decide 1 when score >= threshold.
        accuracy: (TPR + TNR) / 2 on the drawn training pairs.
        pairs: number of drawn pairs, half of them mated.
    """

    threshold: float
    accuracy: float
    pairs: int


def fit_threshold(embed_ND: np.ndarray, identity_N: np.ndarray, *, pairs: int = 6000, seed: int = 0, race_N: np.ndarray | None = None) -> FittedThreshold:
    """Fit the decision threshold on *training* identities that were held out of the training.

    It never sees a test pair: the rules allow the threshold to come only from the data of the sub-task. Equal numbers of mated and
    non-mated pairs are drawn (identities evenly, same-race non-mated pairs where races are given); t maximises (TPR + TNR) / 2, ties
    go to the midpoint of the best plateau.

    Args:
        embed_ND: unit embeddings of the held-out training images.
        identity_N: their identities; race_N: race of each image, if known.

    Raises:
        UserError: NaN embeddings, no identity with two images, or no two identities (of one race).
    """
    embed_ND, identity_N = np.asarray(embed_ND), np.asarray(identity_N)
    if not np.isfinite(embed_ND).all():
        row = int(np.argmin(np.isfinite(embed_ND).all(axis=1)))
        raise UserError(f"the embedding of training image {row} is not finite; embed a fallback crop where no face is found")
    half = pairs // 2
    left, right = np.concatenate((_mated_rows(identity_N, half, seed), _non_mated_rows(identity_N, race_N, half, seed))).T
    score_P = np.einsum("pd,pd->p", embed_ND[left].astype(np.float64), embed_ND[right].astype(np.float64))
    same_P = np.arange(2 * half) < half
    threshold = best_threshold(score_P, same_P, balanced=True)
    return FittedThreshold(threshold=threshold, accuracy=float(np.mean((score_P >= threshold) == same_P)), pairs=2 * half)


def _mated_rows(identity_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = numpy_rng(seed, "frcsyn threshold", "mated")
    groups = [rows for rows in _groups(identity_N) if rows.size >= 2]
    if not groups:
        raise UserError("no training identity has two images, so no mated pair can be drawn; expected embeddings of several images a person")
    picks = rng.integers(len(groups), size=count)
    return np.array([rng.choice(groups[pick], 2, replace=False) for pick in picks])


def _non_mated_rows(identity_N: np.ndarray, race_N: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    rng = numpy_rng(seed, "frcsyn threshold", "non-mated")
    groups = _groups(identity_N)
    race_of = [race_N[rows[0]] if race_N is not None else 0 for rows in groups]
    circles = [np.flatnonzero([mine == race for mine in race_of]) for race in sorted(set(race_of))]
    circles = [circle for circle in circles if circle.size >= 2]
    if not circles:
        raise UserError("non-mated pairs need two training identities (of one race, where races are given); expected more identities")
    rows = np.empty((count, 2), np.int64)
    for index in range(count):
        circle = circles[index % len(circles)]
        people = rng.choice(circle, 2, replace=False)
        rows[index] = [rng.choice(groups[person]) for person in people]
    return rows


def _groups(identity_N: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(identity_N, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(identity_N[order])) + 1)


def _ascii(data: bytes, source: str) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not plain ASCII text ({error.reason} at byte {error.start})") from error
