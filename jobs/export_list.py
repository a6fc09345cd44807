"""Image files and lists of them, as trainings that read text files want them.

    images/000123/0007.png
    train.txt            one absolute path a line (DataCV and the trainer it prescribes: the folder is the identity)
    train_labels.txt     relative path TAB label (TFace's plain index; its data root is this folder)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..challenge.lists import read_lines
from ..core.errors import UserError
from ..core.files import write_bytes
from ..identity.entries import Entry
from ..identity.labels import people_of, person
from .export import Entries, Faces
from .export_imagefolder import stored

NAME, LABELLED = "train.txt", "train_labels.txt"


def write(faces: Faces, out: Path) -> None:
    """Write the images and both lists. The first holds absolute paths: write it again (`facefoundry export`) after moving the folder."""
    rows = [(face.name, face.label) for face in stored(faces, out / "images")]
    root = (out / "images").resolve()
    write_bytes(out / NAME, "".join(f"{root / name}\n" for name, _ in rows).encode())
    write_bytes(out / LABELLED, "".join(f"images/{name}\t{label}\n" for name, label in rows).encode())


def read(path: Path) -> Entries | None:
    """Open a list (.txt), or the folder of an export; relative paths are looked for beside it."""
    if path.is_dir():
        path = path / LABELLED  # a bare train.txt in a folder of people is somebody else's split
    if path.suffix != ".txt" or not path.is_file():
        return None
    lines = read_lines(path, "list of images")
    return Entries(path=path, count=len(lines), open=partial(_entries, path, lines))


def _entries(path: Path, lines: list[str]) -> Iterator[Entry]:
    names = people_of(path)
    for number, line in enumerate(lines, 1):
        name, tab, label = line.partition("\t")
        if tab and not label.isdigit():
            raise UserError(f"{path}, line {number}: '{label[:40]}' after the path; expected a label (a number), or a path alone")
        place = path.parent / name
        data, problem = None, None
        try:
            data = place.read_bytes()
        except OSError as error:
            problem = f"cannot read it: {error.strerror or error}"
        yield Entry(path="/".join(place.parts[-2:]), identity=person(names, int(label)) if tab else place.parent.name, data=data, problem=problem)
