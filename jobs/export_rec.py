"""MXNet RecordIO as insightface's arcface_torch reads it: train.rec, train.idx, train.lst, property (recognition.md §9.2-9.4).

Images are ordinary PNG or JPEG files inside; OpenCV and MXNet decode both, and the colours are those of the file (nobody stores BGR).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..challenge.rec_faces import iter_faces, write_faces
from ..challenge.recordio import RecordFile
from ..core.files import write_bytes
from ..identity.entries import Entry
from .export import Entries, Faces, people_of, person

NAME = "train.rec"


def write(faces: Faces, out: Path) -> None:
    """Write the record file with its index, `property`, and `train.lst` (key, label, name); images are not held in memory."""
    lines: list[str] = []

    def images() -> Iterator[bytes]:
        for key, face in enumerate(faces, 1):
            lines.append(f"{key}\t{face.label}\t{face.name}\n")
            yield face.image

    write_faces(out / NAME, faces.label_N, images())
    write_bytes(out / "train.lst", "".join(lines).encode("ascii"))


def read(path: Path) -> Entries | None:
    """Open a .rec file, or the folder that holds one."""
    files = [path] if path.suffix == ".rec" else sorted(path.glob("*.rec")) if path.is_dir() else []
    if len(files) != 1 or not files[0].is_file():
        return None
    with RecordFile(files[0]) as records:
        count = len(records)  # header and identity records among them: an upper bound, for the progress bar
    return Entries(path=path, count=count, open=partial(_entries, files[0]))


def _entries(file: Path) -> Iterator[Entry]:
    names, listed = people_of(file), _listed(file.with_suffix(".lst"))
    for key, record in iter_faces(file):
        yield Entry(path=listed.get(key, f"{file.name}#{key}"), identity=person(names, record.label), data=record.image)


def _listed(path: Path) -> dict[int, str]:
    """Return the name of each key; im2rec's lists (key, label(s), path) and ours are alike in this."""
    if not path.is_file():
        return {}
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return {int(row[0]): row[-1] for row in rows if len(row) >= 3 and row[0].isdigit()}
