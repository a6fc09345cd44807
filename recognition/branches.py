"""Easy and hard rows for DDL: which faces a branch draws, and what is done to them.

A hard branch is either a list of hard faces (profile views, surveillance crops, a group of people) or any face made hard by `changes`. The
published lists were never released; the authors' advice is: hard = the target variation, easy = clean images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from ..core.config import Config
from ..core.errors import UserError
from ..core.seeds import derive_seed
from ..identity.sources import Faces
from .augment import AugmentConfig
from .batches import Batches
from .ddl import DdlLossConfig


class HardBranch(Config):
    """One student branch.

    Attributes:
        faces: text file with the path of a hard face on each line, as in the data source (with a second source: first/... or second/...);
            None = any face.
        changes: what is done to them; the default shrinks to an eighth of the side at worst.
    """

    faces: Path | None = None
    changes: AugmentConfig = AugmentConfig(flip=0.5, lowres=1.0, lowres_least=0.125)


class DdlConfig(DdlLossConfig):
    """DDL in a recipe: the loss and its rows.

    Attributes:
        pairs: mated pairs of each branch and step over all processes, each of another identity; their first images are the non-mated set.
        easy: what is done to the faces of the easy branch (any face that no hard list names).
        hard: the student branches.
    """

    pairs: int = Field(32, ge=2)
    easy: AugmentConfig = AugmentConfig(flip=0.5)
    hard: tuple[HardBranch, ...] = Field((HardBranch(),), min_length=1)

    @property
    def rows(self) -> int:
        """Rows of a step that the branches take."""
        return 2 * self.pairs * (1 + len(self.hard))

    def members(self, paths: tuple[str, ...]) -> list[np.ndarray]:
        """Return which faces each branch may draw, the easy one first, bool (N,) each.

        Raises:
            UserError: a list that cannot be read or names unknown faces.
        """
        every_N = np.ones(len(paths), bool)
        listed = [every_N if branch.faces is None else listed_rows(branch.faces, paths) for branch in self.hard]
        named_N = np.any([inside_N for branch, inside_N in zip(self.hard, listed) if branch.faces is not None] or [~every_N], axis=0)
        return [~named_N, *listed]

    def parts(self, faces: Faces, label_N: np.ndarray, seed: int) -> list[Batches]:
        """Return the rows of the easy branch and of each hard one.

        Raises:
            UserError: see `members`; too few identities with two images in a branch.
        """
        kinds = zip([self.easy, *(branch.changes for branch in self.hard)], self.members(faces.paths))
        target_N = torch.from_numpy(label_N)
        return [
            Batches(
                faces.image_NHWC,
                target_N,
                batch=2 * self.pairs,
                seed=derive_seed(seed, "ddl", number),
                changes=changes,
                groups_N=label_N,
                times_N=inside_N.astype(np.int64),
                each=2,
            )
            for number, (changes, inside_N) in enumerate(kinds)
        ]


def listed_rows(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Return which faces a text file names, bool (N,).

    Args:
        path: one face path a line, empty lines allowed.
        names: the faces' paths.

    Raises:
        UserError: the file cannot be read, or names a face that is not there.
    """
    try:
        wanted = {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of hard faces {path}: {getattr(error, 'strerror', None) or error}") from error
    unknown = sorted(wanted - set(names))
    if unknown:
        raise UserError(f"{path} names {len(unknown)} faces that the data does not have, e.g. {unknown[0]}; expected paths such as {names[0]}")
    return np.array([name in wanted for name in names])
