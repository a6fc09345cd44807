"""Reading images row by row from Parquet sets, ours and other people's, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import UserError
from .metadata import IDENTITY_COLUMNS, METADATA_NAMES, identity_in

IMAGE_COLUMNS = ("image", "img", "face")
ID_COLUMNS = ("face_id", "image_id", "id")
_BATCH = 256


def parquet_shards(path: Path) -> tuple[Path, ...]:
    """Return the Parquet files at `path`: itself, those of `data/`, or those anywhere below; empty if it is no Parquet set."""
    if path.is_file():
        return (path,) if path.suffix == ".parquet" else ()
    inside = path / "data" if any((path / "data").glob("*.parquet")) else path
    # A dataset of ours keeps rejected rows beside data/: they are no faces of the set.
    return tuple(sorted(file for file in inside.rglob("*.parquet") if file.name not in METADATA_NAMES and not file.name.startswith(".")))


def parquet_rows(shards: Sequence[Path]) -> int:
    """Return the number of rows, from the footers alone."""
    return sum(open_parquet(shard).metadata.num_rows for shard in shards)


def iter_parquet(root: Path, shards: Sequence[Path]) -> Iterator[tuple[str, str, bytes | None, str | None]]:
    """Yield (name, identity, encoded image, problem) of every row.

    The name is the face id where there is one, else `file#row`. The identity is the first of `identity`, `identity_id`, `label`;
    numbers of a ClassLabel become its names.
    """
    for shard in shards:
        file = open_parquet(shard)
        image_column = _first(file.schema_arrow.names, IMAGE_COLUMNS)
        if image_column is None:
            raise UserError(f"{shard} has the columns {', '.join(file.schema_arrow.names)}; expected an image column ({', '.join(IMAGE_COLUMNS)})")
        id_column = _first(file.schema_arrow.names, ID_COLUMNS)
        labels = _label_names(file.schema_arrow)
        wanted = [name for name in (image_column, id_column, *IDENTITY_COLUMNS) if name in file.schema_arrow.names]
        row_number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
            for row in batch.to_pylist():
                name = str(row[id_column]) if id_column else f"{_relative(shard, root)}#{row_number}"
                data = _image_bytes(row[image_column])
                yield name, _identity(row, labels), data, None if data is not None else "the row holds no image bytes"
                row_number += 1


def open_parquet(shard: Path) -> pq.ParquetFile:
    """Open a Parquet file; a missing or damaged one is a UserError."""
    try:
        return pq.ParquetFile(shard)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{shard} is not a Parquet file that can be read ({error}); restore it or write the shard again") from error


def _relative(shard: Path, root: Path) -> str:
    return shard.name if shard == root else shard.relative_to(root).as_posix()


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _image_bytes(cell: Any) -> bytes | None:
    return cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None


def _identity(row: dict[str, Any], labels: dict[str, list[str]]) -> str:
    for column in IDENTITY_COLUMNS:
        value = row.get(column)
        if isinstance(value, int) and 0 <= value < len(labels.get(column, ())):
            return labels[column][value]
    return identity_in(row)


def _label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the ClassLabel columns from the schema metadata that `datasets` writes."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError):
        return {}
    return {name: feature["names"] for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"}
