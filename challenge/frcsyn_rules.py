"""FRCSyn's sub-tasks, both editions, as a table: databases, and what may train the recogniser (challenge_ecosystem.md §1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import UserError

TASK_2 = ("agedb", "bupt", "cfp-fp", "rof")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubTask:
    """One row of the challenge's table.

    Attributes:
        edition: 1 (WACV 2024), 2 (CVPR 2024 and onGoing), or 0: the mini benchmark of mini.py, scored the same way.
        name: "1.1" ... "2.3"; task 1 is ranked by AVG - SD over groups, task 2 by AVG over databases.
        databases: in the order of the folders.
        max_synthetic: most synthetic training images, None = no limit.
        real: real data sets that may train the recogniser.
        generators: fixed generators, empty = any.
    """

    edition: int
    name: str
    databases: tuple[str, ...]
    max_synthetic: int | None
    real: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()

    @property
    def task(self) -> int:
        """1 = demographic bias, 2 = overall performance."""
        return int(self.name[0])


def _row(edition: int, name: str, limit: int | None, real: tuple[str, ...] = (), generators: tuple[str, ...] = ()) -> SubTask:
    databases = ("bupt",) if name[0] == "1" else TASK_2
    return SubTask(edition=edition, name=name, databases=databases, max_synthetic=limit, real=real, generators=generators)


_FIXED = ("DCFace", "GANDiffFace")
SUBTASKS: tuple[SubTask, ...] = (
    _row(1, "1.1", None, (), _FIXED),
    _row(1, "1.2", None, ("CASIA-WebFace", "FFHQ"), _FIXED),
    _row(1, "2.1", None, (), _FIXED),
    _row(1, "2.2", None, ("CASIA-WebFace", "FFHQ"), _FIXED),
    _row(2, "1.1", 500_000),
    _row(2, "1.2", None),
    _row(2, "1.3", 500_000, ("CASIA-WebFace",)),
    _row(2, "2.1", 500_000),
    _row(2, "2.2", None),
    _row(2, "2.3", 500_000, ("CASIA-WebFace",)),
    SubTask(edition=0, name="2.1", databases=("lfw", "lfw-lowres", "lfw-occluded", "lfw-pose"), max_synthetic=None),
)


def subtasks(edition: int) -> dict[str, SubTask]:
    """Return the sub-tasks of an edition by name."""
    found = {row.name: row for row in SUBTASKS if row.edition == edition}
    if not found:
        raise UserError(f"unknown FRCSyn edition {edition}; expected 1 (WACV 2024), 2 (CVPR 2024, onGoing) or 0 (the mini benchmark)")
    return found


def check_training_data(row: SubTask, *, synthetic_images: int, real: Sequence[str] = (), generator: str | None = None) -> list[str]:
    """Return what breaks a sub-task's rules on training data; empty = allowed."""
    problems = []
    if row.max_synthetic is not None and synthetic_images > row.max_synthetic:
        problems.append(f"{synthetic_images} synthetic images, sub-task {row.name} allows {row.max_synthetic}")
    problems += [f"real data '{name}', sub-task {row.name} allows {', '.join(row.real) or 'none'}" for name in real if name not in row.real]
    if generator is not None and row.generators and generator not in row.generators:
        problems.append(f"generator '{generator}', edition {row.edition} fixes {' or '.join(row.generators)}")
    return problems
