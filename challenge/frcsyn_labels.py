"""FRCSyn's four databases: how many pairs each has, and who is in an image by its path (challenge_ecosystem.md §1.3).

The lists carry no labels; the path grammar gives them exactly, so the whole board can be computed offline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import UserError, near_names

_ROF_SUFFIXES = ("_wearing_sunglasses", "_wearing_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One evaluation database.

    Attributes:
        key: folder name in a submission and file stem of the list.
        mated, non_mated, identities, repeated: what the official list holds (0: there is none); `repeated` counts lines equal to an earlier one.
        sha256: of the official list.
        subject: person of a path.
        race: group of a path, or None where paths tell none.
    """

    key: str
    mated: int
    non_mated: int
    identities: int
    repeated: int
    sha256: str
    subject: Callable[[str], str]
    race: Callable[[str], str] | None = None

    @property
    def pairs(self) -> int:
        """Lines of the list, and of each submission file."""
        return self.mated + self.non_mated


def _bupt_subject(path: str) -> str:
    return _parts(path, 3, "<Race>/<subject>/<image>")[1]


def _bupt_race(path: str) -> str:
    return _parts(path, 3, "<Race>/<subject>/<image>")[0]


def _agedb_subject(path: str) -> str:
    # <pid>_<Name>_<imgid>_A_<age>.jpg; a name may hold underscores itself (charlton_heaston).
    pieces = path.split("_")
    if len(pieces) < 5 or pieces[-2] != "A":
        raise UserError(f"'{path}' is no AgeDB path; expected <pid>_<Name>_<imgid>_A_<age>.jpg")
    return "_".join(pieces[1:-3])


def _cfp_subject(path: str) -> str:
    return _parts(path, 3, "<id>/frontal|profile/<image>")[0]


def _rof_subject(path: str) -> str:
    name = _parts(path, 3, "neutral|sunglasses|masked/<name>/<image>")[1]
    for suffix in _ROF_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _mini_subject(path: str) -> str:
    return _parts(path, 3, "<form>/<person>/<image>")[1]


def _parts(path: str, count: int, grammar: str) -> list[str]:
    parts = path.split("/")
    if len(parts) != count:
        raise UserError(f"'{path}' does not fit the database; expected {grammar}")
    return parts


DATABASES: dict[str, Database] = {
    database.key: database
    for database in (
        Database(
            key="bupt", mated=4000, non_mated=4000, identities=9500, repeated=0, subject=_bupt_subject, race=_bupt_race,
            sha256="a1c5df85811ffe5841129bc70ab7346d1e026f8f6a2a6d58fa698e02de2d5997",
        ),
        Database(
            key="agedb", mated=12000, non_mated=12000, identities=440, repeated=1119, subject=_agedb_subject,
            sha256="192782126430b5ed4669a5c09274cbe71bc7a04a656953413def08e2d941b1cc",
        ),
        Database(
            key="cfp-fp", mated=3500, non_mated=3500, identities=500, repeated=0, subject=_cfp_subject,
            sha256="f19532433d03e06dd90345a9051c075b04303f60e459a8b381f9af0ea33c3251",
        ),
        Database(
            key="rof", mated=1800, non_mated=1800, identities=183, repeated=89, subject=_rof_subject,
            sha256="6cfe8df437f40150375794df3e31e63ec119c69f179ac2c7abadd637fdd22253",
        ),
        # The mini benchmark (mini.py): whatever pairs it was built from, so no official counts.
        *(Database(key=key, mated=0, non_mated=0, identities=0, repeated=0, sha256="", subject=_mini_subject) for key in ("lfw", "lfw-occluded", "lfw-lowres", "lfw-pose")),
    )
}


def database(key: str) -> Database:
    """Return a database by its folder name ("bupt", "agedb", "cfp-fp", "rof")."""
    if key not in DATABASES:
        raise UserError(f"unknown FRCSyn database '{key}'; {near_names(key, DATABASES)}")
    return DATABASES[key]
