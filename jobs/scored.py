"""A dataset with one more score a face: predictions written back as a column. The source is left as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..identity.dataset import MANIFEST, FaceDataset, finalise
from ..identity.records import with_scores
from ..identity.shards import ShardWriter


def write_scored(source: Path, out: Path, column: str, score_of: Mapping[str, float], facts: Mapping[str, Any]) -> Path:
    """Copy a dataset folder to `out` with the score `column` of every face named in `score_of`; return `out`.

    Args:
        score_of: by face_id; a face without one keeps the scores it has.
        facts: lines for the card.

    Raises:
        UserError: `out` holds files, the source is no finished dataset, or its faces have such a score already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty folder; choose a new one")
    parts = [part for part in ("data", "rejected") if (source / part).is_dir()]
    taken = {name for record in FaceDataset.open(source).table.column("scores").to_pylist() for name in (item["name"] for item in record)}
    if column in taken:
        raise UserError(f"the faces of {source} have the score '{column}' already; scores are added, never overwritten: choose another --column")
    try:
        manifest = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{source} has no {MANIFEST} that can be read ({error}); finish the job, or ingest it again") from error
    writer = ShardWriter(out)
    for part in parts:
        for record in FaceDataset.open(source, part).records():
            known = record.face_id in score_of
            writer.add(replace(record, scores=with_scores(record.scores, {column: score_of[record.face_id]})) if known else record)
    writer.close()
    finalise(out, title=manifest["title"], generator=manifest["generator"], facts={**manifest["facts"], **facts})
    return out
