"""TFRecord as TFace reads it: TFR-faces/TFR-faces-00000.tfrecord and the index TFR-faces.txt (recognition.md §9.5).

A record is length u64 | masked CRC-32C of those 8 bytes u32 | data | masked CRC-32C of the data u32, little-endian; the data are a tf.train.Example
with the features `image` (the encoded file) and `label`. A line of the index is: name TAB number of the file TAB offset TAB label.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..challenge.lists import read_lines
from ..core.errors import UserError
from ..core.files import write_atomic, write_bytes
from ..identity.entries import Entry
from ..identity.labels import people_of, person
from .export import Entries, Face, Faces

NAME = "TFR-faces"
"""TFace takes a set for TFRecord if its name holds TFR."""

SHARD_IMAGES = 500_000


def write(faces: Faces, out: Path) -> None:
    """Write the records and their index; in TFace `data_root` and `index_root` are both this folder."""
    lines: list[str] = []
    stream = iter(faces)
    for number in range(-(-len(faces) // SHARD_IMAGES)):
        write_atomic(out / NAME / f"{NAME}-{number:05d}.tfrecord", partial(_write_shard, stream, number, lines))
    write_bytes(out / f"{NAME}.txt", "".join(lines).encode("ascii"))


def read(path: Path) -> Entries | None:
    """Open a folder with TFace's layout, or its index (.txt with four columns)."""
    index = path if path.is_file() else next(iter(sorted(path.glob("*TFR*.txt"))), None) if path.is_dir() else None
    if index is None or index.suffix != ".txt":
        return None
    rows = [line.split("\t") for line in read_lines(index, "index")]
    if not rows or any(len(row) != 4 or not all(part.isdigit() for part in row[1:]) for row in rows):
        return None
    return Entries(path=path, count=len(rows), open=partial(_entries, index, rows))


def example(image: bytes, label: int) -> bytes:
    """Return a serialised tf.train.Example with the features `image` (bytes) and `label` (int64)."""
    values = {"image": _field(1, _field(1, image)), "label": _field(3, _field(1, _varint(label)))}  # bytes_list is field 1 of a Feature, int64_list 3
    return _field(1, b"".join(_field(1, _field(1, name.encode()) + _field(2, value)) for name, value in values.items()))


def masked_crc(data: bytes) -> int:
    """Return TensorFlow's masked CRC-32C."""
    crc = ~_kernel()(np.frombuffer(data, np.uint8), _table()) & 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _write_shard(stream: Iterator[Face], number: int, lines: list[str], temporary: Path) -> None:
    with open(temporary, "wb") as file:
        for _, face in zip(range(SHARD_IMAGES), stream):
            lines.append(f"{NAME}\t{number}\t{file.tell()}\t{face.label}\n")
            data = example(face.image, face.label)
            length = struct.pack("<Q", len(data))
            file.write(length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data)))


def _entries(index: Path, rows: list[list[str]]) -> Iterator[Entry]:
    names, held, file = people_of(index), None, None
    try:
        for name, number, offset, label in rows:
            place = index.parent / name / f"{name}-{int(number):05d}.tfrecord"
            if not _is_plain(name):
                raise UserError(f"{index}: '{name}' is no plain name of a set; the index is damaged")
            if place != held:
                if file is not None:
                    file.close()
                held, file = place, _open(place)
            yield Entry(path=f"{place.name}@{offset}", identity=person(names, int(label)), data=_image(_record(file, int(offset), place), place))
    finally:
        if file is not None:
            file.close()


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name not in ("", ".", "..")


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; the index names it") from error


def _record(file: BinaryIO, offset: int, path: Path) -> bytes:
    file.seek(offset)
    head = file.read(12)
    length, crc = struct.unpack("<QI", head) if len(head) == 12 else (0, -1)
    if crc != masked_crc(head[:8]):
        raise UserError(f"{path}, byte {offset}: no record begins here; the file is damaged, or the index belongs to another")
    data, tail = file.read(length), file.read(4)
    if len(tail) < 4 or struct.unpack("<I", tail)[0] != masked_crc(data):
        raise UserError(f"{path}, byte {offset}: the record is cut or damaged (CRC); copy or make it again")
    return data


def _image(data: bytes, path: Path) -> bytes:
    """Return the bytes of the feature `image` of an Example; other features are passed over."""
    for feature in _all(_one(data, 1), 1):
        if _one(feature, 1) == b"image":
            return _one(_one(_one(feature, 2), 1), 1)
    raise UserError(f"{path}: a record without the feature 'image'")


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _one(message: bytes, number: int) -> bytes:
    return next(_all(message, number), b"")


def _all(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the length-delimited fields of that number; Examples hold no others on the way to an image."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        if tag & 7 != 2:
            return
        length, at = _read_varint(message, at)
        if tag >> 3 == number:
            yield message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            break
    return value, at


@cache
def _table() -> np.ndarray:
    """CRC-32C of every byte (Castagnoli, reflected polynomial 0x82F63B78)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


@cache
def _kernel() -> Any:
    import numba

    @numba.njit(nogil=True, cache=True)
    def run(data: np.ndarray, table: np.ndarray) -> int:
        crc = np.uint32(0xFFFFFFFF)
        for byte in data:
            crc = table[(crc ^ byte) & 0xFF] ^ (crc >> np.uint32(8))
        return crc

    return run
