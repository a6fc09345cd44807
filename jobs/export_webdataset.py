"""WebDataset: plain tar files in which the members of a sample share a name: 000123_0007.png, .cls (label), .json (what is known).

Written with the standard library and read back as a stream, never extracted; `webdataset` and `datasets.load_dataset("webdataset")` open it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_atomic
from ..identity.entries import IMAGE_SUFFIXES, Entry
from ..identity.metadata import identity_in
from ..identity.trees import MAX_FILE_BYTES
from ..identity.labels import people_of, person
from .export import Entries, Face, Faces

SHARD_IMAGES = 10_000
"""Of 112x112 PNG some 220 MB, of JPEG 70 MB."""


def write(faces: Faces, out: Path) -> None:
    """Write `train-00000.tar`, ...; equal faces give equal bytes (no times, no owners)."""
    stream = iter(faces)
    for number in range(-(-len(faces) // SHARD_IMAGES)):
        write_atomic(out / f"train-{number:05d}.tar", partial(_write_shard, islice(stream, SHARD_IMAGES)))


def read(path: Path) -> Entries | None:
    """Open a .tar file or a folder of them (without subfolders: an archive beside folders of people is no WebDataset)."""
    files = [path] if path.suffix == ".tar" and path.is_file() else sorted(path.glob("*.tar")) if path.is_dir() and not any(child.is_dir() for child in path.iterdir()) else []
    if not files:
        return None
    count = sum(Path(member.name).suffix.lower() in IMAGE_SUFFIXES for file in files for member, _ in _members(file, load=False))
    return Entries(path=path, count=count, open=partial(_entries, files))


def _write_shard(faces: Iterator[Face], temporary: Path) -> None:
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for face in faces:
            key, _, suffix = face.name.replace("/", "_").rpartition(".")
            for end, data in ((suffix, face.image), ("cls", str(face.label).encode()), ("json", json.dumps(face.facts()).encode())):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size, member.mode = len(data), 0o644
                archive.addfile(member, io.BytesIO(data))


def _entries(files: list[Path]) -> Iterator[Entry]:
    for file in files:
        names, key, parts = people_of(file), None, dict[str, bytes]()
        with closing(_members(file)) as members:
            for member, data in members:
                stem, _, end = member.name.partition(".") if "/" not in member.name else _split(member.name)
                if key not in (None, stem):
                    yield from _sample(file, key, parts, names)
                    parts = {}
                key, parts[end.lower()] = stem, data
        if key is not None:
            yield from _sample(file, key, parts, names)


def _split(name: str) -> tuple[str, str, str]:
    """The key of a sample ends at the first dot after the last slash."""
    folder, _, last = name.rpartition("/")
    stem, dot, end = last.partition(".")
    return f"{folder}/{stem}", dot, end


def _sample(file: Path, key: str, parts: dict[str, bytes], names: dict[int, str]) -> Iterator[Entry]:
    """Yield the image of a sample with its identity: the json's, or the label in .cls; none without an image."""
    image = next((data for end, data in parts.items() if f".{end.rpartition('.')[2]}" in IMAGE_SUFFIXES), None)
    if image is None:
        return
    try:
        facts: Any = json.loads(parts.get("json", b"{}"))
        label = parts.get("cls", b"").decode("ascii").strip()
    except ValueError as error:
        raise UserError(f"{file}, sample '{key}': the json or cls entry cannot be read ({error}); the file is damaged, or is no WebDataset of labelled images") from error
    identity = identity_in(facts) if isinstance(facts, dict) else ""
    yield Entry(path=key, identity=identity or (person(names, int(label)) if label.isdigit() else label), data=image)


def _members(file: Path, *, load: bool = True) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the regular files of a tar with their bytes (empty without `load`), one in memory at a time."""
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > MAX_FILE_BYTES:
                    raise UserError(f"{file}: '{member.name}' has {member.size} bytes, more than the limit of {MAX_FILE_BYTES}")
                yield member, archive.extractfile(member).read() if load else b""  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{file} cannot be read as a tar file ({error}); copy or make it again") from error
