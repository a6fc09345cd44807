"""Parquet shards: where they are, writing them whole or not at all, reading them back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.files import write_atomic
from .parquet import open_parquet
from .records import FaceRecord, check_schema, from_table, to_table

ROW_GROUP = 256
"""Rows of a row group: about 6 MB of PNG, the unit of random access."""

PREFIX = {"data": "train", "rejected": "rejected"}
"""Folder of the shards → first part of their names."""


def shard_path(folder: Path, part: str, number: int, count: int) -> Path:
    """Return the place of a shard; `part` is "data" or "rejected", `number` counts from 0."""
    return folder / part / f"{PREFIX[part]}-{number:05d}-of-{count:05d}.parquet"


def shards_of(folder: Path, part: str) -> list[Path]:
    """Return the shards of "data" or "rejected" in order."""
    return sorted((folder / part).glob(f"{PREFIX[part]}-*.parquet"))


def write_shard(path: Path, records: Iterable[FaceRecord]) -> None:
    """Write records as one Parquet shard, atomically; the same records give the same bytes.

    Raises:
        UserError: a row that must not be stored (named), or a disk that is full.
    """
    write_table(path, to_table(records))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a shard's table, atomically: one of records, or one with further columns beside theirs."""
    # Images are compressed already: a codec would only cost time; the small columns gain nothing that counts. By the page index a viewer reads rows.
    write_atomic(Path(path), lambda temporary: pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="none", use_dictionary=False, write_page_index=True))


def read_shard(path: Path) -> list[FaceRecord]:
    """Return the records of a shard in order.

    Raises:
        UserError: absent, damaged, not ours, or written by a newer version.
    """
    return [record for records in row_groups(Path(path)) for record in records]


class ShardWriter:
    """Writes a stream of records as numbered shards; kept and rejected rows go to their own files.

    The number of shards stands in their names and is known only at the end, so that shards are written to `.partial/` and moved by `close`:
    a folder never looks complete before it is.
    """

    def __init__(self, folder: Path, rows: int = 4096) -> None:
        self.folder = folder
        self._rows = rows
        self._buffer: dict[str, list[FaceRecord]] = {part: [] for part in PREFIX}
        self._written: dict[str, list[Path]] = {part: [] for part in PREFIX}

    def add(self, record: FaceRecord) -> None:
        """Take one record; it goes to "rejected" if it has a reason in `dropped`."""
        part = "data" if record.dropped is None else "rejected"
        self._buffer[part].append(record)
        if len(self._buffer[part]) >= self._rows:
            self._flush(part)

    def close(self) -> None:
        """Write what is left and put all shards in place."""
        for part in PREFIX:
            if self._buffer[part]:
                self._flush(part)
            for number, path in enumerate(self._written[part]):
                final = shard_path(self.folder, part, number, len(self._written[part]))
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, final)
        partial = self.folder / ".partial"
        if partial.is_dir():
            partial.rmdir()

    def _flush(self, part: str) -> None:
        path = self.folder / ".partial" / f"{PREFIX[part]}-{len(self._written[part]):05d}.parquet"
        write_shard(path, self._buffer[part])
        self._written[part].append(path)
        self._buffer[part] = []


def row_groups(path: Path) -> Iterator[list[FaceRecord]]:
    """Yield the records of a shard, one row group at a time."""
    file = open_parquet(path)
    check_schema(file.schema_arrow, str(path))
    for number in range(file.num_row_groups):
        yield from_table(file.read_row_group(number))

