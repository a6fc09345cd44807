"""Cells of the honest curves: what a recogniser is trained on, written as a line of text, and the order in which they are worth their time.

"id3 1000x3": 1,000 people of the ID³ generator, three images each. "id3+rendered 1000x3": 500 people of each, other people in each. "id3 300x8 filtered":
rows that passed the filters, refilled from further images of the same people. "real 1000x3": 3,000 real faces of 1,000 people (`honest_sides.real_like`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from honest_sides import DATA, JOBS, first, joined, kept_rows, mint_pool, real_like, refilled, source_key, standing_pool

from facefoundry.identity.sources import Faces, load_faces

REAL = "real"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training set.

    Attributes:
        sources: generators, or "real"; the people are split evenly over them, the first ones take what does not divide.
        identities, per_identity: of the whole set; real people have `per_identity` images on average.
    """

    sources: tuple[str, ...]
    identities: int
    per_identity: int
    filtered: bool = False

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read a line like "id3+rendered 1000x3"."""
        found = re.fullmatch(r"([\w+]+) (\d+)x(\d+)( filtered)?", text.strip())
        known = found and set(found[1].split("+")) <= {REAL, *JOBS}
        if not known:
            raise SystemExit(f"'{text}' is no cell; expected '<source>[+<source>] <identities>x<images each>[ filtered]' of {REAL}, {', '.join(JOBS)}")
        return cls(sources=tuple(found[1].split("+")), identities=int(found[2]), per_identity=int(found[3]), filtered=bool(found[4]))

    def __str__(self) -> str:
        return f"{'+'.join(self.sources)} {self.identities}x{self.per_identity}{' filtered' * self.filtered}"

    @property
    def images(self) -> int:
        return self.identities * self.per_identity

    @property
    def real_side(self) -> Cell:
        """The real set of as many people and images."""
        return Cell(sources=(REAL,), identities=self.identities, per_identity=self.per_identity)

    def shares(self) -> list[tuple[str, int, int]]:
        """Return (source, first person, people) of each: generators draw the same people, so the second begins where the first ends."""
        sizes = [len(part) for part in np.array_split(np.arange(self.identities), len(self.sources))]
        return [(source, sum(sizes[:k]), size) for k, (source, size) in enumerate(zip(self.sources, sizes))]


MAIN = ("id3 1000x3", "uiface 1000x3")
OTHERS = ("rendered 1000x3", "lcm 1000x3", "morphface 1000x3")
MIXTURES = ("id3+rendered 1000x3", "real+id3 1000x3", "uiface+id3 1000x3")
PEOPLE = ("id3 500x3", "id3 4000x3", "id3 2000x3")
FILTERED = ("id3 300x8", "id3 300x8 filtered")
FILTERED_UIFACE = ("uiface 300x8", "uiface 300x8 filtered")
EACH = ("id3 300x2", "id3 300x16", "id3 300x4")
UIFACE = ("uiface 500x3", "uiface 4000x3", "uiface 2000x3")
REST = ("lcm 500x3", "rendered 500x3", "lcm 4000x3", "rendered 4000x3", "lcm 2000x3", "rendered 2000x3")
ORDER: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (MAIN, (0, 1, 2)), (OTHERS, (0, 1)), (MIXTURES, (0, 1)), (PEOPLE, (0,)), (FILTERED, (0, 1)), (PEOPLE, (1,)), (EACH, (0, 1)), (UIFACE, (0,)),
    (OTHERS, (2,)), (MIXTURES, (2,)), (FILTERED, (2,)), (UIFACE, (1,)), (PEOPLE, (2,)), (EACH, (2,)), (REST, (0, 1)), (FILTERED_UIFACE, (0, 1)), (UIFACE, (2,)), (REST, (2,)),
)  # fmt: skip
"""Groups of minted cells and the seeds they are run with, in the order of worth: wherever the run is cut, what stands is a table. Seed by seed within a
group; each goes after its real side, so that no real set is trained on that nothing is compared with."""


def units(order: Sequence[tuple[Sequence[str], Sequence[int]]] = ORDER, only: str = "") -> Iterator[tuple[Cell, int]]:
    """Yield (minted cell, seed) in the order of worth; `only` is a regular expression searched in the cell's text."""
    for cells, seeds in order:
        for seed in seeds:
            yield from ((Cell.parse(text), seed) for text in cells if re.search(only, text))


class Sides:
    """Builds the training sets out of pools that were minted before.

    Args:
        work: folder of the pools.
        real: train112.zip, or what else `load_faces` reads.
        to_come: all cells there will be: `mint` makes a pool as large as the largest of them needs.
    """

    def __init__(self, work: Path, real: Path = DATA / "train112.zip", to_come: Sequence[Cell] = ()) -> None:
        self.work, self.real, self.to_come = work, real, tuple(to_come)

    def faces(self, cell: Cell) -> tuple[Faces, dict]:
        """Return the set and what is to be said of it."""
        if cell.filtered:
            folder = standing_pool(cell.sources[0], (cell.identities, 2 * cell.per_identity), self.work)
            kept_N = kept_rows(folder)
            assert len(kept_N) == len(_load(folder)), "rows of the pool and of its judgement"
            faces, short = refilled(_load(folder), kept_N, cell.identities, cell.per_identity)
            return faces, {"pool": folder.name, "kept_of_pool": float(kept_N.mean()), "completed_with_rejected": short}
        parts = [
            real_like(_load(self.real), people, people * cell.per_identity) if source == REAL else first(_load(standing_pool(source, (start + people, cell.per_identity), self.work)), people, cell.per_identity, start)
            for source, start, people in cell.shares()
        ]
        return joined(parts), {}

    def check(self, cell: Cell) -> None:
        """Raise what `standing_pool` raises where a pool of the cell is wanting."""
        for source, start, people in cell.shares():
            if source != REAL:
                standing_pool(source, (start + people, cell.per_identity * (1 + cell.filtered)), self.work)

    def key(self, cell: Cell) -> str:
        """Return what identifies the images of a cell: its text and its generators' weights and settings."""
        return "-".join([str(cell).replace(" ", "_"), *(source_key(source) for source in cell.sources if source != REAL)])

    def pools(self) -> dict[tuple[str, bool], tuple[int, int]]:
        """Return (people, images each) of the pools that all cells to come need: a wide one a generator, and a deep one where more than three images are asked."""
        found: dict[tuple[str, bool], tuple[int, int]] = {}
        for cell in self.to_come:
            each = cell.per_identity * (1 + cell.filtered)
            for source, start, count in cell.shares():
                if source != REAL:
                    wide = found.get((source, each > 3), (0, 0))
                    found[source, each > 3] = (max(wide[0], start + count), max(wide[1], each))
        return found

    def mint(self, generators: Sequence[str]) -> None:
        """Mint every pool of these generators that the cells to come need, the wide ones first."""
        for (source, deep), least in sorted(self.pools().items(), key=lambda item: item[0][1]):
            if source in generators:
                # The filters look at what the demo's judge says; where no filter comes, a judge that costs a tenth.
                mint_pool(source, least, self.work, "dlib" if deep else "mobilefacenet-small")


@functools.lru_cache(maxsize=12)
def _load(path: Path) -> Faces:
    return load_faces(path)
