"""A dataset with more scores a face: predictions written back as columns. The source is left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..identity.dataset import FaceDataset, finalise, read_manifest
from ..identity.records import with_scores
from ..identity.shards import ShardWriter


def write_scored(source: Path, out: Path, column: str, score_of: Mapping[str, float], facts: Mapping[str, Any]) -> Path:
    """`write_columns` of one column."""
    return write_columns(source, out, {column: score_of}, facts)


def write_columns(source: Path, out: Path, columns: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> Path:
    """Copy a dataset folder to `out` with more scores of the faces; return `out`.

    Args:
        columns: values by face_id, by name; a face without one keeps the scores it has.
        facts: lines for the card.

    Raises:
        UserError: `out` holds files, the source is no finished dataset, or its faces have such a score already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; choose a new one")
    parts = [part for part in ("data", "rejected") if (source / part).is_dir()]
    taken = columns.keys() & {name for record in FaceDataset.open(source).table.column("scores").to_pylist() for name in (item["name"] for item in record)}
    if taken:
        raise UserError(f"the faces of {source} have the score '{min(taken)}' already; scores are added, never overwritten: choose another --column")
    manifest = read_manifest(source)
    writer = ShardWriter(out)
    for part in parts:
        for record in FaceDataset.open(source, part).records():
            new = {name: values[record.face_id] for name, values in columns.items() if record.face_id in values}
            writer.add(replace(record, scores=with_scores(record.scores, new)) if new else record)
    writer.close()
    finalise(out, title=manifest["title"], generator=manifest["generator"], facts={**manifest["facts"], **facts})
    return out
