"""Face data sets in RecordIO: `train.rec`, `train.idx`, `property`, as insightface and MXNet trainings read them (recognition.md §9.4).

Record 0 is a header with the labels (E, F): images have the keys 1 ... E - 1, identities E ... F - 1, each naming its range of images. E and F are
float32 and wrong above 2^24, so ranges are taken from the index and the identity records, not from them. im2rec files have no header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes
from .recordio import RecordFile, write_records

_HEAD = struct.Struct("<IfQQ")  # flag, label, id, id2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """The payload of a record.

    Attributes:
        labels: one number (in the header, `flag` 0), or several (`flag` of them before the image).
        image: the encoded image; empty for header and identity records.
        id, id2: carried along, without meaning.
        in_header: whether a single label stands in the header (the usual) or as a list of one.
    """

    labels: tuple[float, ...]
    image: bytes
    id: int = 0
    id2: int = 0
    in_header: bool = True

    @property
    def label(self) -> int:
        """The identity: the first label."""
        return int(self.labels[0])


def pack(record: ImageRecord) -> bytes:
    """Return the payload of a record: 24 bytes of header, labels, image."""
    if len(record.labels) == 1 and record.in_header:
        return _HEAD.pack(0, record.labels[0], record.id, record.id2) + record.image
    return _HEAD.pack(len(record.labels), 0.0, record.id, record.id2) + np.asarray(record.labels, "<f4").tobytes() + record.image


def unpack(payload: bytes, source: str = "the record") -> ImageRecord:
    """Read the payload of a record; `pack` of the result gives the same bytes.

    Raises:
        UserError: shorter than its header says.
    """
    if len(payload) < _HEAD.size:
        raise UserError(f"{source} has {len(payload)} bytes, expected a header of {_HEAD.size} and an image")
    flag, label, number, number2 = _HEAD.unpack_from(payload)
    end = _HEAD.size + 4 * flag
    if len(payload) < end:
        raise UserError(f"{source} announces {flag} labels but has {len(payload)} bytes; the file is damaged")
    labels = tuple(np.frombuffer(payload, "<f4", flag, _HEAD.size).tolist()) if flag else (label,)
    return ImageRecord(labels=labels, image=payload[end:], id=number, id2=number2, in_header=flag == 0)


def iter_faces(path: Path | str) -> Iterator[tuple[int, ImageRecord]]:
    """Yield (key, record) of every image of a .rec data set, with or without a header record, in the order of the keys.

    Raises:
        UserError: an image record without an image, or a damaged file (names the key).
    """
    with RecordFile(path) as records:
        keys = sorted(records.offsets)
        first = unpack(records[keys[0]], f"{path}, key {keys[0]}") if keys else None
        if first is None:
            return
        end = _first_identity_key(first, keys) if not first.image else None
        for key in keys if end is None else keys[1:]:
            if end is not None and key >= end:
                return
            record = unpack(records[key], f"{path}, key {key}")
            if not record.image:
                if end is not None:  # the header's float was rounded up: identity records have begun
                    return
                raise UserError(f"{path}, key {key}: a record without an image")
            yield key, record


def write_rec(path: Path | str, faces: Iterable[tuple[int, bytes]], *, identities: int | None = None) -> int:
    """Write `<path>`, its .idx and a `property` file beside it; return the number of images.

    The layout is insightface's: header record, images with keys from 1, then one record an identity with its range of keys.

    Args:
        path: a name ending in `.rec`.
        faces: (identity 0 ... I-1, encoded image), sorted by identity.
        identities: I; default: the largest identity + 1.

    Raises:
        UserError: not sorted by identity, no faces, or more than 2^24 images (float32 labels could not name their keys).
    """
    faces = list(faces)
    return write_faces(path, np.array([identity for identity, _ in faces], np.int64), (image for _, image in faces), identities=identities)


def write_faces(path: Path | str, label_N: np.ndarray, images: Iterable[bytes], *, identities: int | None = None) -> int:
    """`write_rec` with the identities known beforehand, int (N,), and the images as a stream: one is in memory at a time."""
    count = int(label_N[-1]) + 1 if identities is None and len(label_N) else identities or 0
    if not len(label_N) or (np.diff(label_N) < 0).any():
        raise UserError(f"{len(label_N)} faces, {'not sorted by identity' if len(label_N) else 'none to write'}; a .rec set needs faces sorted by identity")
    if label_N[0] < 0 or label_N[-1] >= count:
        raise UserError(f"identities from {label_N[0]} to {label_N[-1]}, expected 0 to {count - 1}")
    if len(label_N) + 1 + count > 1 << 24:
        raise UserError(f"{len(label_N)} images and {count} identities; float32 keys are exact up to {1 << 24} only: split the set")
    path = Path(path)
    write_records(path, _records(label_N, images, count))
    write_bytes(path.parent / "property", f"{count},112,112\n".encode("ascii"))
    return len(label_N)


def _records(label_N: np.ndarray, images: Iterable[bytes], count: int) -> Iterator[tuple[int, bytes]]:
    """Yield the header record, the images with keys from 1, then the identities with their ranges of keys."""
    first_key = len(label_N) + 1
    bounds = np.searchsorted(label_N, np.arange(count + 1)) + 1
    yield 0, pack(ImageRecord(labels=(float(first_key), float(first_key + count)), image=b"", id=0, id2=1))
    for key, (identity, image) in enumerate(zip(label_N.tolist(), images, strict=True), 1):
        yield key, pack(ImageRecord(labels=(float(identity),), image=image, id=key))
    for i in range(count):
        yield first_key + i, pack(ImageRecord(labels=(float(bounds[i]), float(bounds[i + 1])), image=b"", id=first_key + i))


def read_property(path: Path | str) -> tuple[int, int, int]:
    """Read a `property` file: (identities, height, width)."""
    text = Path(path).read_text(encoding="ascii").strip()
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise UserError(f"{path}: '{text[:60]}'; expected identities,112,112")
    return tuple(int(part) for part in parts)  # type: ignore[return-value]


def _first_identity_key(header: ImageRecord, keys: list[int]) -> int:
    """Return the least key that belongs to no image. A float32 above 2^24 may be off by its rounding: then every key is looked at."""
    end = int(header.labels[0])
    return end if end < 1 << 24 else keys[-1] + 1
