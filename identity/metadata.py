"""The metadata tables of a Hugging Face ImageFolder: which identity each file shows, where the table says so."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from ..core.errors import UserError

METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
IDENTITY_COLUMNS = ("identity", "identity_id", "label")
"""Columns that may hold the identity, first found wins."""


def identity_by_file(files: Sequence[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Return {file: identity} from every metadata table among `files`; "" where a row names no identity.

    `file_name` is relative to the table's folder. Files that are listed but absent are in the result, so that they are reported.

    Raises:
        UserError: a table that cannot be read or has no `file_name` column.
    """
    known: dict[str, str] = {}
    for table in files:
        path = PurePosixPath(table)
        if path.name not in METADATA_NAMES:
            continue
        for row in _rows(table, path.suffix, read):
            if not row.get("file_name"):
                raise UserError(f"{table}: a row has no 'file_name' (columns: {', '.join(map(str, row))}); add it or remove the table")
            if ".." in PurePosixPath(str(row["file_name"])).parts or str(row["file_name"]).startswith("/"):
                raise UserError(f"{table}: the file name '{row['file_name']}' leaves the folder; use names relative to the table")
            known[(path.parent / str(row["file_name"])).as_posix()] = identity_in(row)
    return known


def identity_in(row: dict[str, Any]) -> str:
    """Return the identity a row names, "" if none; numbers become six digits so that names sort like numbers."""
    for column in IDENTITY_COLUMNS:
        value = row.get(column)
        if value is not None and value != "":
            return f"{value:06d}" if isinstance(value, int) else str(value)
    return ""


def _rows(table: str, suffix: str, read: Callable[[str], bytes]) -> Iterable[dict[str, Any]]:
    try:
        data = read(table)
        if suffix == ".parquet":
            return pq.read_table(io.BytesIO(data)).to_pylist()
        text = data.decode("utf-8-sig")
        if suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{table} cannot be read as an ImageFolder table: {error}") from error
