"""Other people's faces become a dataset of ours: every input file turns into a kept or a rejected row, none is lost."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..core.errors import UserError
from ..core.files import write_atomic
from ..core.images import decode, encode_png
from ..core.progress import bar
from .dataset import finalise
from .entries import Entry, EntrySource
from .records import FaceRecord
from .shards import ShardWriter
from .sources import SIDE

_CHUNK_ENTRIES = 256
_CHUNK_BYTES = 64 * 1024 * 1024


class Aligner(Protocol):
    """Finds the face in a photo and brings it to the ArcFace template."""

    def __call__(self, image_HWC: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """uint8 RGB photo (H, W, 3) → (aligned face uint8 (112, 112, 3), five landmarks float32 (5, 2) in pixels of that face), or None: no face."""
        ...


class Entries(Protocol):
    """Faces of a source one by one; `EntrySource` is one, readers of other formats are others."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Entry]: ...


@dataclass(frozen=True, kw_only=True)
class IngestSummary:
    """What became of a source.

    Attributes:
        kept, rejected: rows; together the number of input files.
        identities: identities with a kept face.
        single_image: how many of them have only one (kept; they give no mated pair).
        reasons: rejected rows by kind of reason ("duplicate", "size", "unreadable", ...).
        shared: pairs (face_id kept, face_id rejected) of one image under two identities.
    """

    kept: int
    rejected: int
    identities: int
    single_image: int
    reasons: dict[str, int]
    shared: tuple[tuple[str, str], ...]

    def facts(self) -> dict[str, int]:
        """Return the figures for the card."""
        kinds = {f"rejected_{kind}": count for kind, count in sorted(self.reasons.items())}
        return {"identities_with_one_image": self.single_image, "images_shared_by_two_identities": len(self.shared), **kinds}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Face:
    """An entry after decoding: an encoded face with the digest of its pixels, or the reason why there is none."""

    image: bytes | None = None
    digest: bytes = b""
    landmarks_px: np.ndarray | None = None
    reason: str | None = None


@dataclass(kw_only=True)
class _Books:
    """Numbers given so far: identities in order of appearance, faces within an identity, pixels seen."""

    number: dict[str, int] = field(default_factory=dict)
    entries: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)
    owner: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    reasons: Counter = field(default_factory=Counter)
    shared: list[tuple[str, str]] = field(default_factory=list)


def ingest(
    source: Path | str, out: Path | str, *, aligner: Aligner | None = None, origin: str = "real", title: str | None = None, entries: Entries | None = None
) -> IngestSummary:
    """Read a folder per identity, a zip of that, an ImageFolder or a Parquet set into the dataset folder `out`.

    Faces of 112×112 are taken as they are (the file's own bytes where it is an RGB PNG or JPEG, else a lossless PNG); other sizes go through
    `aligner`. Of equal images the first is kept, later ones are rejected and name it. Memory does not grow with the images.

    Args:
        entries: the faces of a source in another format; None = `EntrySource(source)`.

    Raises:
        UserError: `out` is not empty, the source is unsafe or empty, or no face could be kept.
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty; choose a new folder (nothing is mixed or overwritten)")
    entries = EntrySource(source) if entries is None else entries
    if not len(entries):
        raise UserError(f"{source} holds no images; expected faces of named people")
    books, writer = _Books(), ShardWriter(out)
    with bar(f"ingest {source.name}", len(entries)) as step:
        for entry, face in _prepare_all(entries, aligner):
            writer.add(_record(books, entry, face, origin))
            step(1)
    writer.close()
    if not books.kept:
        kind, count = books.reasons.most_common(1)[0]
        total = sum(books.reasons.values())
        raise UserError(f"{source}: no face could be kept, {total} files were rejected (most: {kind}, {count}); reasons are in {out / 'rejected'}")
    summary = _summary(books)
    _write_identities(out, books)
    finalise(out, title=title or source.stem, generator="ingest", facts=summary.facts())
    return summary


def _prepare_all(entries: Entries, aligner: Aligner | None) -> Iterator[tuple[Entry, _Face]]:
    lock = Lock()  # detectors keep scratch space: one face at a time; decoding runs beside it
    with ThreadPoolExecutor(max_workers=2) as pool:
        for chunk in _chunks(entries):
            yield from zip(chunk, pool.map(lambda entry: _prepare(entry, aligner, lock), chunk))


def _chunks(entries: Entries) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry.data or b"")
        if len(chunk) >= _CHUNK_ENTRIES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _prepare(entry: Entry, aligner: Aligner | None, lock: Lock) -> _Face:
    if entry.data is None:
        return _Face(reason=f"unreadable: {entry.problem}")
    try:
        image_HWC = decode(entry.data)
    except UserError as error:
        return _Face(reason=f"unreadable: {error}")
    digest = blake2b(image_HWC.tobytes() + bytes(str(image_HWC.shape), "ascii"), digest_size=16).digest()
    if image_HWC.shape == (SIDE, SIDE, 3):
        return _Face(image=entry.data if _is_plain(entry.data) else encode_png(image_HWC), digest=digest)
    size = f"{image_HWC.shape[1]}x{image_HWC.shape[0]}"
    if aligner is None:
        return _Face(reason=f"size: the image is {size}, expected an aligned {SIDE}x{SIDE} face; ingest it with an aligner")
    with lock:
        aligned = aligner(image_HWC)
    if aligned is None:
        return _Face(reason=f"no face: none was found in the {size} photo")
    return _Face(image=encode_png(aligned[0]), digest=digest, landmarks_px=np.asarray(aligned[1], np.float32))


def _is_plain(data: bytes) -> bool:
    """Whether any reader shows the file as `decode` does: 8-bit RGB, PNG or JPEG, not rotated by EXIF, no transparency."""
    with Image.open(io.BytesIO(data)) as picture:
        return picture.format in ("PNG", "JPEG") and picture.mode == "RGB" and "transparency" not in picture.info and picture.getexif().get(0x0112, 1) == 1


def _record(books: _Books, entry: Entry, face: _Face, origin: str) -> FaceRecord:
    number = books.number.setdefault(entry.identity, len(books.number)) if entry.identity else -1
    face_id = f"{number:06d}/{books.entries[number]:04d}" if number >= 0 else f"unknown/{books.entries[number]:06d}"
    books.entries[number] += 1
    reason = face.reason or ("no identity: the file is in no identity's folder and no table names one" if number < 0 else _twin(books, entry, face, face_id))
    if reason is None:
        books.owner[face.digest] = (face_id, entry.identity)
        books.kept[number] += 1
    else:
        books.reasons[reason.partition(":")[0]] += 1
    return FaceRecord(
        face_id=face_id, identity=number, image=face.image, origin=origin, landmarks_px=face.landmarks_px, source=entry.path, dropped=reason
    )  # fmt: skip


def _twin(books: _Books, entry: Entry, face: _Face, face_id: str) -> str | None:
    if face.digest not in books.owner:
        return None
    twin_id, twin_identity = books.owner[face.digest]
    if twin_identity == entry.identity:
        return f"duplicate: the same pixels as {twin_id} of the same identity"
    books.shared.append((twin_id, face_id))
    return f"duplicate of another identity: the same pixels as {twin_id} of '{twin_identity}'; one of the two labels is wrong"


def _summary(books: _Books) -> IngestSummary:
    return IngestSummary(
        kept=sum(books.kept.values()),
        rejected=sum(books.reasons.values()),
        identities=len(books.kept),
        single_image=sum(count == 1 for count in books.kept.values()),
        reasons=dict(books.reasons),
        shared=tuple(books.shared),
    )


def _write_identities(out: Path, books: _Books) -> None:
    """Write metadata/identities.parquet: number, name, faces kept and rejected of every identity."""
    names = list(books.number)  # numbers were given in this order
    kept = [books.kept[number] for number in range(len(names))]
    table = pa.table(
        {
            "identity": pa.array(range(len(names)), pa.int32()),
            "name": names,
            "kept": pa.array(kept, pa.int32()),
            "rejected": pa.array([books.entries[number] - count for number, count in enumerate(kept)], pa.int32()),
        }
    )
    write_atomic(out / "metadata" / "identities.parquet", lambda temporary: pq.write_table(table, temporary))
