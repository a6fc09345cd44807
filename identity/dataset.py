"""A dataset is a folder that is already a Hugging Face dataset repository: Parquet shards, a card, a manifest.

    data/train-00000-of-00003.parquet          kept faces
    rejected/rejected-00000-of-00001.parquet   rejected faces, each with its reason
    metadata/identities.parquet                one row a person
    pairs/validation.parquet                   pairs for verification
    README.md  manifest.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import UserError
from ..core.files import sha256_file, write_bytes, write_json
from ..core.images import decode
from .card import card_text
from .parquet import open_parquet
from .records import SCHEMA, SCHEMA_VERSION, FaceRecord, check_schema
from .shards import PREFIX, read_shard, row_groups, shard_path, shards_of, write_shard
from .tables import write_tables

__all__ = ["FaceDataset", "finalise", "read_shard", "shard_path", "shards_of", "verify_dataset", "write_shard"]

MANIFEST = "manifest.json"
TABLES = ("metadata", "pairs")
_PACKAGES = ("facefoundry", "datasets", "numpy", "pillow", "pyarrow", "torch")


@dataclass(frozen=True)
class FaceDataset:
    """The kept faces of a dataset folder (or its rejected ones); images stay on disk until asked for.

    Attributes:
        folder: the dataset folder.
        shards: the Parquet files, in order.
    """

    folder: Path
    shards: tuple[Path, ...]

    @classmethod
    def open(cls, folder: Path | str, part: str = "data") -> FaceDataset:
        """Open a dataset folder; `part` is "data" (kept faces) or "rejected".

        Raises:
            UserError: no shards there, or shards of another schema.
        """
        folder = Path(folder)
        shards = tuple(shards_of(folder, part))
        if not shards and (part == "data" or not folder.is_dir()):
            raise UserError(f"{folder} is no dataset folder: it has no {part}/{PREFIX[part]}-*.parquet; expected the output of: facefoundry run or ingest")
        for shard in shards:
            check_schema(open_parquet(shard).schema_arrow, str(shard))
        return cls(folder, shards)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def table(self) -> pa.Table:
        """All columns but the images, in the order of the shards."""
        columns = [name for name in SCHEMA.names if name != "image"]
        tables = [open_parquet(shard).read(columns=columns) for shard in self.shards]
        return pa.concat_tables(tables) if tables else SCHEMA.remove(SCHEMA.get_field_index("image")).empty_table()

    @cached_property
    def identity_N(self) -> np.ndarray:
        """Identity of every row, int32 (N,)."""
        return self.table.column("identity").to_numpy()

    def records(self) -> Iterator[FaceRecord]:
        """Yield every row with its image; one row group is in memory at a time."""
        for shard in self.shards:
            for records in row_groups(shard):
                yield from records

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the decoded images of some rows, uint8 RGB (n, 112, 112, 3), in the order asked for.

        Raises:
            UserError: an index out of range, or a row whose image cannot be decoded (named).
        """
        wanted = np.asarray(indices, np.int64)
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            raise UserError(f"row {wanted[outside][0]} is not in {self.folder}, which has {len(self)} rows (0 to {len(self) - 1})")
        image_NHWC = np.empty((len(wanted), 112, 112, 3), np.uint8)
        starts, groups = self._groups
        group_N = np.searchsorted(starts, wanted, side="right") - 1
        for group in np.unique(group_N):
            shard, number = groups[group]
            cells = open_parquet(shard).read_row_group(number, columns=["image"]).column("image")
            for place in np.flatnonzero(group_N == group):
                image_NHWC[place] = self._decode(cells[int(wanted[place] - starts[group])].as_py(), int(wanted[place]))
        return image_NHWC

    @cached_property
    def _groups(self) -> tuple[np.ndarray, list[tuple[Path, int]]]:
        """First row of every row group, and where the group is."""
        groups, sizes = [], []
        for shard in self.shards:
            footer = open_parquet(shard).metadata
            groups += [(shard, number) for number in range(footer.num_row_groups)]
            sizes += [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        return np.cumsum([0, *sizes[:-1]]), groups

    def _decode(self, cell: dict | None, row: int) -> np.ndarray:
        name = self.table.column("face_id")[row].as_py()
        if cell is None:
            raise UserError(f"{self.folder}: row {row} (face {name}) has no image")
        try:
            return decode(cell["bytes"])
        except UserError as error:
            raise UserError(f"{self.folder}: row {row} (face {name}): {error}") from error


def finalise(folder: Path | str, *, title: str, generator: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the tables of identities and pairs, README.md (the card) and manifest.json of a folder whose shards are complete; return the manifest.

    The manifest holds no time and no host: the same shards and facts give the same files. It is written last: with it a dataset is whole.

    Args:
        title: name of the dataset for people.
        generator: what made the faces, or what brought them in ("ingest").
        facts: what the card says, see `card.card_text`; anything else in it becomes a line of the table of figures.

    Raises:
        UserError: no kept faces, or a damaged shard.
    """
    folder = Path(folder)
    dataset = FaceDataset.open(folder)
    rejected = FaceDataset.open(folder, "rejected")
    counts = {"data": len(dataset), "rejected": len(rejected)}
    write_tables(folder, dataset.table, rejected.table)
    origins = sorted({str(origin) for origin in dataset.table.column("origin").unique().to_pylist()})
    manifest = {
        "title": title,
        "generator": generator,
        "schema_version": SCHEMA_VERSION,
        "rows": counts,
        "identities": len(np.unique(dataset.identity_N)),
        "origins": origins,
        "shards": [_shard_entry(folder, shard) for shard in (*dataset.shards, *rejected.shards, *_extra_tables(folder))],
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "facts": json.loads(json.dumps(dict(facts), default=str)),
    }
    write_bytes(folder / "README.md", card_text(manifest, manifest["facts"]).encode())
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Return what the manifest of a dataset folder says.

    Raises:
        UserError: none that can be read.
    """
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
        for entry in manifest["shards"]:
            entry["path"]  # a file of another program's may have no such lists
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no {MANIFEST} that can be read ({error}); it is no finished dataset: finish the job, or ingest it again") from error
    return manifest


def verify_dataset(folder: Path | str) -> list[str]:
    """Check a dataset folder against its manifest; return the problems, one line each (empty: all is well).

    Every shard is hashed again; rows, schema version, unique face ids and the presence of reasons are checked.

    Raises:
        UserError: the folder has no readable manifest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    listed = {entry["path"]: entry for entry in manifest["shards"]}
    problems = [f"{name}: {problem}" for name, entry in listed.items() if (problem := _shard_problem(folder / name, entry))]
    present = {path.relative_to(folder).as_posix() for part in PREFIX for path in (folder / part).glob("*.parquet")}
    problems += [f"{name}: not in the manifest" for name in sorted(present - listed.keys())]
    if not (folder / "README.md").is_file():
        problems.append("README.md: missing")
    return problems or _row_problems(folder, manifest)


def _shard_entry(folder: Path, shard: Path) -> dict[str, Any]:
    rows = open_parquet(shard).metadata.num_rows
    return {"path": shard.relative_to(folder).as_posix(), "rows": rows, "bytes": shard.stat().st_size, "sha256": sha256_file(shard)}


def _extra_tables(folder: Path) -> list[Path]:
    return sorted(path for part in TABLES for path in (folder / part).glob("*.parquet"))


def _shard_problem(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != entry["bytes"]:
        return f"has {path.stat().st_size} bytes, the manifest says {entry['bytes']}"
    if sha256_file(path) != entry["sha256"]:
        return "its content has changed (SHA-256 differs from the manifest)"
    return None


def _row_problems(folder: Path, manifest: dict[str, Any]) -> list[str]:
    problems = []
    seen: set[str] = set()
    for part, count in manifest["rows"].items():
        table = FaceDataset.open(folder, part).table
        if table.num_rows != count:
            problems.append(f"{part}: {table.num_rows} rows, the manifest says {count}")
        for name, reason in zip(table.column("face_id").to_pylist(), table.column("dropped").to_pylist()):
            if name in seen:
                problems.append(f"{part}: face {name} is there twice")
            if (reason is None) != (part == "data"):
                problems.append(f"{part}: face {name} has the reason {reason!r}")
            seen.add(name)
    return problems


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
