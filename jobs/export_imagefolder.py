"""A folder a person, as torchvision's and Hugging Face's ImageFolder read it; metadata.jsonl says what is known of each file.

Reading back is `identity.entries`: folders of images need nothing of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ..core.files import write_bytes
from .export import Entries, Face, Faces


def write(faces: Faces, out: Path) -> None:
    """Write `<person>/<number>.png` and metadata.jsonl. Many sets have too many files for a Hub repository: there, publish the Parquet."""
    lines = [json.dumps({"file_name": face.name, **face.facts()}) for face in stored(faces, out)]
    write_bytes(out / "metadata.jsonl", "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> Entries | None:
    """None: `identity.entries.EntrySource` reads folders."""
    return None


def stored(faces: Faces, out: Path) -> Iterator[Face]:
    """Write the image files below `out` and yield each face once its file is there."""
    for face in faces:
        place = out / face.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(face.image)  # no fsync of a million files: without facefoundry.json an export does not count
        yield face
