"""MXNet RecordIO as insightface's arcface_torch reads it: train.rec, train.idx, train.lst, property (recognition.md §9.2-9.4).

Images are ordinary PNG or JPEG files inside; OpenCV and MXNet decode both, and the colours are those of the file (nobody stores BGR).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..core.files import write_bytes
from ..identity.entries import Entry
from ..identity.rec_entries import iter_rec, rec_count, rec_file
from ..identity.rec_faces import write_faces
from .export import Entries, Faces

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
    file = rec_file(path)
    return None if file is None else Entries(path=path, count=rec_count(file), open=partial(_entries, file))


def _entries(file: Path) -> Iterator[Entry]:
    for path, identity, image in iter_rec(file):
        yield Entry(path=path, identity=identity, data=image)
