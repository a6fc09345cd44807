"""Faces of a .rec set as entries: names of people from `labels.tsv`, names of images from the list of im2rec, where they lie beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .labels import people_of, person
from .rec_faces import iter_faces
from .recordio import RecordFile


def rec_file(path: Path) -> Path | None:
    """Return the .rec file that `path` is, or the only one of a folder; None where there is none."""
    files = [path] if path.suffix == ".rec" else sorted(path.glob("*.rec")) if path.is_dir() else []
    return files[0] if len(files) == 1 and files[0].is_file() else None


def rec_count(file: Path) -> int:
    """Return the number of records, header and identity records among them: an upper bound of the images."""
    with RecordFile(file) as records:
        return len(records)


def iter_rec(file: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield (name of the image, name of the person, encoded image) in the order of the keys.

    Raises:
        UserError: see `iter_faces`.
    """
    names, listed = people_of(file), _listed(file.with_suffix(".lst"))
    for key, record in iter_faces(file):
        yield listed.get(key, f"{file.name}#{key:08d}"), person(names, record.label), record.image


def _listed(path: Path) -> dict[int, str]:
    """Return the name of each key; im2rec's lists (key, label(s), path) and ours are alike in this."""
    if not path.is_file():
        return {}
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return {int(row[0]): row[-1] for row in rows if len(row) >= 3 and row[0].isdigit()}
