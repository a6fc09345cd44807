"""dmlc RecordIO files (.rec) and their index (.idx) in plain Python (recognition.md §9.2, §9.3).

A part is: magic u32 | cflag (3 bits), length (29 bits) u32 | payload | zeros to a multiple of 4, all little-endian. A payload that holds the
magic at a multiple of 4 is cut there, the magic left out: parts with cflag 1 (first), 2 (middle), 3 (last); a whole record has 0.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..core.errors import UserError
from ..core.files import read_lines, write_atomic, write_bytes

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_LENGTH_BITS = 29
MAX_PAYLOAD = (1 << _LENGTH_BITS) - 1


def encode_record(payload: bytes) -> bytes:
    """Return the bytes of one record, in as many parts as the payload needs.

    Raises:
        UserError: a part of 512 MiB or more, which the format cannot hold.
    """
    pieces = _split_at_magic(payload)
    if max(map(len, pieces)) > MAX_PAYLOAD:
        raise UserError(f"a record has {len(payload)} bytes; RecordIO holds at most {MAX_PAYLOAD} in a part")
    if len(pieces) == 1:
        return _part(0, payload)
    flags = [1, *[2] * (len(pieces) - 2), 3]
    return b"".join(_part(flag, piece) for flag, piece in zip(flags, pieces))


def read_record(file: BinaryIO, source: str = "the record file") -> bytes | None:
    """Read the record at the file's position and leave the position after it; None at the end of the file.

    Raises:
        UserError: no magic number, a cut part, or parts in an order that cannot be (names the offset).
    """
    pieces: list[bytes] = []
    while True:
        offset = file.tell()
        head = file.read(8)
        if not head and not pieces:
            return None
        if len(head) < 8:
            raise UserError(f"{source} is cut at byte {offset}: {len(head)} bytes of a part's head, expected 8; copy or make it again")
        magic, word = struct.unpack("<II", head)
        flag, length = word >> _LENGTH_BITS, word & MAX_PAYLOAD
        if magic != MAGIC:
            raise UserError(f"{source}, byte {offset}: {magic:#010x} where a part should begin with {MAGIC:#010x}; the file is damaged, or the index belongs to another file")
        if (flag in (2, 3)) != bool(pieces) or flag > 3:
            raise UserError(f"{source}, byte {offset}: part of kind {flag} {'inside' if pieces else 'at the start of'} a record; the file is damaged, or the index points into a record")
        padded = -(-length // 4) * 4
        data = file.read(padded)
        if len(data) < length:
            raise UserError(f"{source} is cut at byte {offset}: the part has {len(data)} of {length} bytes; copy or make it again")
        pieces.append(data[:length])
        if flag in (0, 3):
            return _MAGIC_BYTES.join(pieces)


class RecordFile:
    """A .rec file with its index; records by key, or all in order.

    Args:
        path: the .rec file; the index is the .idx of the same name. Without one the file is scanned once and keys count from 0.

    Raises:
        UserError: no such file, a line of the index that is not `key TAB offset`, or an offset that is no multiple of 4 or beyond the end.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "rb")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; expected a .rec file") from error
        index = self.path.with_suffix(".idx")
        self.offsets = read_index(index, size=os.fstat(self._file.fileno()).st_size) if index.is_file() else dict(enumerate(self._scan()))

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, key: int) -> bytes:
        if key not in self.offsets:
            raise UserError(f"{self.path} has no record with the key {key}; its index holds {len(self.offsets)} keys")
        self._file.seek(self.offsets[key])
        payload = read_record(self._file, str(self.path))
        if payload is None:
            raise UserError(f"{self.path}: the index puts key {key} at the end of the file; the file is cut")
        return payload

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield (key, payload) in the order of the index."""
        for key in self.offsets:
            yield key, self[key]

    def _scan(self) -> Iterator[int]:
        while True:
            offset = self._file.tell()
            if read_record(self._file, str(self.path)) is None:
                return
            yield offset


def read_index(path: Path | str, *, size: int | None = None) -> dict[int, int]:
    """Read an .idx file: key → byte offset, in the file's order.

    Args:
        size: bytes of the .rec file, to check the offsets against.
    """
    offsets: dict[int, int] = {}
    for number, line in enumerate(read_lines(path, "index"), 1):
        fields = line.split("\t")
        if len(fields) != 2 or not all(part.isdigit() for part in fields):
            raise UserError(f"{path}, line {number}: '{line[:60]}'; expected key TAB offset")
        key, offset = int(fields[0]), int(fields[1])
        if offset % 4 or (size is not None and offset >= size):
            raise UserError(f"{path}, line {number}: offset {offset} is {'no multiple of 4' if offset % 4 else f'beyond the end of the record file ({size} bytes)'}; the index belongs to another file")
        if key in offsets:
            raise UserError(f"{path}, line {number}: key {key} stands there twice")
        offsets[key] = offset
    return offsets


def write_records(path: Path | str, records: Iterable[tuple[int, bytes]]) -> dict[int, int]:
    """Write (key, payload) records to a .rec file and its .idx beside it, both whole or not at all; return key → offset."""
    path, offsets = Path(path), {}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            for key, payload in records:
                offsets[key] = file.tell()
                file.write(encode_record(payload))

    write_atomic(path, write)
    write_index(path.with_suffix(".idx"), offsets)
    return offsets


def write_index(path: Path | str, offsets: Mapping[int, int]) -> None:
    """Write an .idx file."""
    write_bytes(Path(path), "".join(f"{key}\t{offset}\n" for key, offset in offsets.items()).encode("ascii"))


def _part(flag: int, piece: bytes) -> bytes:
    return struct.pack("<II", MAGIC, flag << _LENGTH_BITS | len(piece)) + piece + b"\0" * (-len(piece) % 4)


def _split_at_magic(payload: bytes) -> list[bytes]:
    pieces, start, found = [], 0, payload.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            pieces.append(payload[start:found])
            start = found + 4
            found = payload.find(_MAGIC_BYTES, start)
        else:
            found = payload.find(_MAGIC_BYTES, found + 1)
    return [*pieces, payload[start:]]
