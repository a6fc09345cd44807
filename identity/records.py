"""One face, one row: the schema on disk, its version, and the way between rows and records.

The schema is written down once, as `datasets.Features`, so that `datasets.load_dataset(folder)` opens our shards without our code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features, Image, Value

from ..core.errors import UserError
from ..core.face_style import FaceStyle

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or goes; new columns that may be null do not raise it."""

_PICTURES = ("image", "parts")

VERSION_KEY = b"facefoundry.schema_version"

FEATURES = Features(
    {
        "face_id": Value("string"),
        "identity": Value("int32"),
        "image": Image(),
        "seed": Value("int64"),
        "generator": Value("string"),
        "origin": Value("string"),
        "anchor": [Value("float32")],
        "style": {name: [Value("float32")] for name in ("pose_deg", "expression", "light", "shape")},
        "landmarks_px": [[Value("float32")]],
        "parts": Image(),
        "scores": [{"name": Value("string"), "value": Value("float32")}],
        "split": Value("string"),
        "source": Value("string"),
        "dropped": Value("string"),
    }
)

SCHEMA: pa.Schema = FEATURES.arrow_schema.with_metadata({**FEATURES.arrow_schema.metadata, VERSION_KEY: str(SCHEMA_VERSION).encode()})


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceRecord:
    """One face.

    Attributes:
        face_id: "000123/0007", identity / index; unique in a dataset and the seed's address.
        identity: number of the person; -1 where the source names none (rejected rows only).
        image: the encoded file (PNG or JPEG, 112×112 RGB); None only in rejected rows whose file is no image.
        seed: seed of the image, 0 … 2⁶³−1; None for real faces.
        generator: registry name and settings it was made with; None for real faces.
        origin: "real", "rendered:<by what>" or "generated:<by what>".
        anchor: identity embedding the face was made from, float32 (D,), or None.
        landmarks_px: eyes, nose, mouth corners in pixels of the image, float32 (5, 2), or None.
        parts: label image (PNG, one channel, as large as the image): what each pixel shows, 0 = background; of rendered faces, else None.
        scores: what steps measured; a step adds, never overwrites (`with_scores`).
        split: "train" unless a recipe says otherwise.
        source: name of the input file or row, None for made faces.
        dropped: reason why it was rejected, None for kept rows.
    """

    face_id: str
    identity: int
    image: bytes | None = field(repr=False)
    seed: int | None = None
    generator: str | None = None
    origin: str = "real"
    anchor: np.ndarray | None = field(default=None, repr=False)
    style: FaceStyle | None = None
    landmarks_px: np.ndarray | None = None
    parts: bytes | None = field(default=None, repr=False)
    scores: dict[str, float] = field(default_factory=dict)
    split: str = "train"
    source: str | None = None
    dropped: str | None = None


def to_table(records: Iterable[FaceRecord]) -> pa.Table:
    """Return the rows as an Arrow table with `SCHEMA`.

    Raises:
        UserError: a row that must not be stored (NaN anchor or landmarks, kept row without image, ...), naming it.
    """
    return pa.Table.from_pylist([_to_row(number, record) for number, record in enumerate(records)], schema=SCHEMA)


def from_table(table: pa.Table) -> list[FaceRecord]:
    """Return the records of an Arrow table that `to_table` made; columns added by later versions are ignored.

    Raises:
        UserError: not our schema, or a newer version of it.
    """
    check_schema(table.schema, "the table")
    wanted = [spec.name for spec in fields(FaceRecord) if spec.name in table.column_names]
    return [_from_row(row) for row in table.select(wanted).to_pylist()]


def check_schema(schema: pa.Schema, name: str) -> None:
    """Raise UserError unless `schema` is ours in a version this code reads."""
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise UserError(f"{name} is not a FaceFoundry shard (columns: {', '.join(schema.names)}); bring it in with: facefoundry ingest")
    if int(version) > SCHEMA_VERSION:
        raise UserError(f"{name} has schema version {int(version)}, this program reads up to {SCHEMA_VERSION}; update facefoundry")


def with_scores(record_scores: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """Return the scores with `new` added.

    Raises:
        ValueError: a name is taken; scores are never overwritten.
    """
    taken = record_scores.keys() & new.keys()
    if taken:
        raise ValueError(f"the scores {', '.join(sorted(taken))} are there already; scores are added, never overwritten")
    return {**record_scores, **new}


def _to_row(number: int, record: FaceRecord) -> dict[str, Any]:
    problem = _problem(record)
    if problem:
        raise UserError(f"row {number} (face {record.face_id!r}): {problem}")
    row = vars(record).copy()
    for name in _PICTURES:
        row[name] = None if row[name] is None else {"bytes": row[name], "path": None}
    row["anchor"] = None if record.anchor is None else np.asarray(record.anchor, np.float32)
    row["style"] = None if record.style is None else {spec.name: getattr(record.style, spec.name) for spec in fields(FaceStyle)}
    row["landmarks_px"] = None if record.landmarks_px is None else np.asarray(record.landmarks_px, np.float32).tolist()
    row["scores"] = [{"name": name, "value": float(value)} for name, value in sorted(record.scores.items())]
    return row


def _problem(record: FaceRecord) -> str | None:
    if not record.face_id:
        return "the face_id is empty; expected identity/index such as '000123/0007'"
    if record.dropped is None and (not record.image or record.identity < 0):
        return "a kept face needs an image and an identity of 0 or more; give them, or set `dropped` to the reason it is rejected"
    if record.dropped == "":
        return "`dropped` is empty; expected None for a kept face or the reason of the rejection"
    if record.anchor is not None and (np.ndim(record.anchor) != 1 or not np.isfinite(record.anchor).all()):
        return f"the anchor has shape {np.shape(record.anchor)} or holds NaN; expected finite numbers (D,); embed the face again or drop it"
    if record.landmarks_px is not None and (np.shape(record.landmarks_px) != (5, 2) or not np.isfinite(record.landmarks_px).all()):
        return f"landmarks_px has shape {np.shape(record.landmarks_px)} or holds NaN; expected five finite points (5, 2)"
    return None


def _from_row(row: dict[str, Any]) -> FaceRecord:
    style = row.get("style")
    values = {
        **row,
        **{name: row[name]["bytes"] if row.get(name) else None for name in _PICTURES},
        "anchor": _array(row.get("anchor")),
        "style": FaceStyle(**{name: None if part is None else tuple(part) for name, part in style.items()}) if style else None,
        "landmarks_px": _array(row.get("landmarks_px")),
        "scores": {item["name"]: item["value"] for item in row.get("scores") or ()},
    }
    return FaceRecord(**values)


def _array(values: Sequence | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)
